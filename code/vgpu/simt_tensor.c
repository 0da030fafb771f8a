/* code/vgpu/simt_tensor.c: from chapters/A-virtual-gpu-simt-tensor-cores.md. Edit the chapter, or edit here and run "make untangle". */
/* ldmatrix and mma.sync for the emulator: whole warps meet, the last lane computes.
 *
 * Products of 16-bit (and tf32) numbers are exact in f32. Sums are made as tensor cores
 * make them, in steps: eight products (four of tf32) and the accumulator are added as if
 * exactly, and rounded to f32 once. (Hardware truncates instead of rounding, and the
 * length of its step differs between generations; no program may rely on either.)
 */
#include "vgpu/simt_internal.h"
#include "vgpu/shadow/vgpu_float.h"

#include <string.h>

/* meet for ldmatrix */
typedef struct load {
    dls_simt_meeting meeting;
    const uint16_t *row;
    int matrices, transpose;
    uint32_t r[4];
} load;

static void complete_load(dls_simt_meeting *const lane[DLS_SIMT_WARP])
{
    const load *first = (const load *)lane[0];
    for (int l = 0; l < DLS_SIMT_WARP; l++)
        for (int i = 0; i < first->matrices; i++) {
            int g = l / 4, t = 2 * (l % 4), o = 8 * i;
            const load *one = (const load *)lane[o + (first->transpose ? t : g)];
            const load *two = (const load *)lane[o + (first->transpose ? t + 1 : g)];
            uint32_t low = one->row[first->transpose ? g : t];
            uint32_t high = two->row[first->transpose ? g : t + 1];
            ((load *)lane[l])->r[i] = low | high << 16;
        }
}

void dls_simt_ldmatrix(uint32_t *r, const void *row, int matrices, int transpose,
                       const char *file, int line)
{
    static const char *const names[] = {"ldmatrix.x1", "ldmatrix.x2", "", "ldmatrix.x4"};
    dls_simt_worker *w = dls_me;
    const dls_arena *a = &w->arena;
    const void *caller = __builtin_return_address(0);
    load own = {{names[matrices - 1], caller, complete_load}, row, matrices, transpose,
                {0}};
    const char *p = row;
    if ((int)(threadIdx.linear % DLS_SIMT_WARP) < 8 * matrices) {
        if ((uintptr_t)p % 16 || p < a->base || p + 16 > a->end)
            dls_fault_as(w, cudaErrorMisalignedAddress, "thread (%u,%u,%u): %s at %s:%d: "
                         "row %p must be in shared memory and a multiple of 16",
                         threadIdx.x, threadIdx.y, threadIdx.z, own.meeting.name, file,
                         line, row);
        if (dls_simt_probes)
            dls_simt_probes->access(row, 16, 0, caller);
    }
    dls_simt_meet(&own.meeting, file, line);
    memcpy(r, own.r, (size_t)matrices * sizeof *r);
}
/* gather the operands */
enum { M = 16, N = 8, LARGEST_K = 32 };

typedef struct product {
    dls_simt_meeting meeting;
    int shape;
    uint32_t a[4], b[2], c[4], d[4];  // c, d: the bits of float or int
} product;

typedef double pair __attribute__((vector_size(16)));

typedef struct operands {
    int packed, k;  // elements in 32 bits; columns of A
    double a[M][LARGEST_K];
    pair b[LARGEST_K][N / 2];
} operands;

static double value_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The values of the elements of a register. */
static inline void unpack(uint32_t bits, int shape, double x[4])
{
    switch (shape) {
    case 0:
        x[0] = value_of(bits << 16);
        x[1] = value_of(bits & 0xffff0000u);
        break;
    case 1:
        x[0] = dls_decode(bits & 0xffff, DLS_FORMAT_FP16);
        x[1] = dls_decode(bits >> 16, DLS_FORMAT_FP16);
        break;
    case 2:
        x[0] = value_of(bits & ~0x1fffu);
        break;
    default:
        for (int e = 0; e < 4; e++)
            x[e] = (int8_t)(bits >> 8 * e);
    }
}

static void gather(dls_simt_meeting *const lane[DLS_SIMT_WARP], operands *o)
{
    static const int in_register[] = {2, 2, 1, 4};
    int shape = ((const product *)lane[0])->shape, p = in_register[shape];
    double x[4];
    o->packed = p;
    o->k = 8 * p;
    for (int l = 0; l < DLS_SIMT_WARP; l++) {
        const product *own = (const product *)lane[l];
        int g = l / 4, k = l % 4 * p;
        for (int r = 0; r < 4; r++) {
            unpack(own->a[r], shape, x);
            memcpy(&o->a[g + r % 2 * 8][k + r / 2 * 4 * p], x, (size_t)p * sizeof *x);
        }
        for (int r = 0; r < 2; r++) {
            unpack(own->b[r], shape, x);
            for (int e = 0; e < p; e++)
                o->b[k + e + r * 4 * p][g / 2][g % 2] = x[e];
        }
    }
}
/* multiply the operands */
/* wide += (columns `from` to `to` of row i of A) B: eight numbers in four pairs. */
static inline void add_products(pair wide[N / 2], const operands *o, int i, int from,
                                int to)
{
    for (int k = from; k < to; k++) {
        double a = o->a[i][k];
        wide[0] += a * o->b[k][0];
        wide[1] += a * o->b[k][1];
        wide[2] += a * o->b[k][2];
        wide[3] += a * o->b[k][3];
    }
}

static void multiply_floats(const operands *o, float sum[M][N])
{
    int step = o->packed == 1 ? 4 : 8;
    for (int i = 0; i < M; i++)
        for (int k = 0; k < o->k; k += step) {
            float *s = sum[i];
            pair wide[] = {{s[0], s[1]}, {s[2], s[3]}, {s[4], s[5]}, {s[6], s[7]}};
            add_products(wide, o, i, k, k + step);
            for (int j = 0; j < N; j++)
                s[j] = (float)wide[j / 2][j % 2];
        }
}

static void multiply_integers(const operands *o, uint32_t sum[M][N])
{
    for (int i = 0; i < M; i++) {
        pair wide[N / 2] = {{0}};
        add_products(wide, o, i, 0, o->k);
        for (int j = 0; j < N; j++)
            sum[i][j] += (uint32_t)(int)wide[j / 2][j % 2];
    }
}
/* meet for mma */
static void complete_product(dls_simt_meeting *const lane[DLS_SIMT_WARP])
{
    operands o;
    union { float f[M][N]; uint32_t u[M][N]; } sum;
    gather(lane, &o);
    for (int l = 0; l < DLS_SIMT_WARP; l++)
        for (int r = 0; r < 4; r++)
            sum.u[l / 4 + r / 2 * 8][l % 4 * 2 + r % 2] = ((product *)lane[l])->c[r];
    if (((const product *)lane[0])->shape == 3)
        multiply_integers(&o, sum.u);
    else
        multiply_floats(&o, sum.f);
    for (int l = 0; l < DLS_SIMT_WARP; l++)
        for (int r = 0; r < 4; r++)
            ((product *)lane[l])->d[r] = sum.u[l / 4 + r / 2 * 8][l % 4 * 2 + r % 2];
}

void dls_simt_mma(int shape, void *d, const uint32_t *a, const uint32_t *b, const void *c,
                  const char *file, int line)
{
    static const char *const names[] = {"mma.m16n8k16.bf16", "mma.m16n8k16.f16",
                                        "mma.m16n8k8.tf32", "mma.m16n8k32.s8"};
    static const unsigned flops[] = {128, 128, 64, 256};  // per lane
    const void *caller = __builtin_return_address(0);
    product own = {.meeting = {names[shape], caller, complete_product}, .shape = shape};
    memcpy(own.a, a, sizeof own.a);
    memcpy(own.b, b, sizeof own.b);
    memcpy(own.c, c, sizeof own.c);
    if (dls_simt_probes)
        dls_simt_probes->flops(flops[shape], caller);
    dls_simt_meet(&own.meeting, file, line);
    memcpy(d, own.d, sizeof own.d);
}
/* round to tf32 */
uint32_t dls_simt_tf32(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7f800000u) == 0x7f800000u)
        return bits & 0x7fffffu ? 0x7fffffffu : bits;
    return (bits + 0x1000u) & ~0x1fffu;
}
