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

typedef struct operands {
    int packed, k;  // elements in 32 bits; columns of A
    float a[M][LARGEST_K], b[LARGEST_K][N];
} operands;

/* The value of element `at` of a register. */
static float element(uint32_t bits, int at, int shape)
{
    float x;
    switch (shape) {
    case 1: return dls_decode(bits >> 16 * at & 0xffff, DLS_FP16);
    case 3: return (float)(int8_t)(bits >> 8 * at);
    case 2: bits &= ~0x1fffu; break;
    default: bits = bits >> 16 * at << 16;
    }
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void gather(dls_simt_meeting *const lane[DLS_SIMT_WARP], operands *o)
{
    static const int in_register[] = {2, 2, 1, 4};
    int shape = ((const product *)lane[0])->shape, p = in_register[shape];
    o->packed = p;
    o->k = 8 * p;
    for (int l = 0; l < DLS_SIMT_WARP; l++) {
        const product *own = (const product *)lane[l];
        int g = l / 4, t = l % 4;
        for (int e = 0; e < p; e++) {
            int k = p * t + e;
            for (int r = 0; r < 4; r++)
                o->a[g + r % 2 * 8][k + r / 2 * 4 * p] = element(own->a[r], e, shape);
            for (int r = 0; r < 2; r++)
                o->b[k + r * 4 * p][g] = element(own->b[r], e, shape);
        }
    }
}
/* multiply the operands */
/* sum[j] += row . (column j of b) for k terms from `from` on, rounded once. */
static void add_step(float sum[N], const float *a, const float (*b)[N], int terms)
{
    double wide[N];
    for (int j = 0; j < N; j++)
        wide[j] = sum[j];
    for (int k = 0; k < terms; k++)
        for (int j = 0; j < N; j++)
            wide[j] += (double)a[k] * (double)b[k][j];
    for (int j = 0; j < N; j++)
        sum[j] = (float)wide[j];
}

static void multiply_floats(const operands *o, float sum[M][N])
{
    int step = o->packed == 1 ? 4 : 8;
    for (int i = 0; i < M; i++)
        for (int k = 0; k < o->k; k += step)
            add_step(sum[i], o->a[i] + k, o->b + k, step);
}

static void multiply_integers(const operands *o, uint32_t sum[M][N])
{
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++)
            for (int k = 0; k < o->k; k++)
                sum[i][j] += (uint32_t)((int)o->a[i][k] * (int)o->b[k][j]);
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
