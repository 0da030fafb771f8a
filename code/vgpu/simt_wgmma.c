/* code/vgpu/simt_wgmma.c: from chapters/A-virtual-gpu-simt-hopper.md. Edit the chapter, or edit here and run "make untangle". */
/* wgmma for the emulator: lanes note their products, warps compute them at the wait.
 *
 * The four warps of a warpgroup compute their own 16 rows each, and need not meet: what
 * one warp computes depends on shared memory and on its own registers only. Arithmetic is
 * that of mma.sync (simt_tensor.c): exact products, sums of eight, rounded to f32.
 */
#include "vgpu/simt_internal.h"
#include "vgpu/simt_hopper.h"
#include "vgpu/shadow/vgpu_float.h"

#include <stdlib.h>
#include <string.h>

/* define the products under way */
enum { PRODUCTS = 64, RESULTS = 3, LARGEST_N = 128, OWN = LARGEST_N / 2, K = 16 };

typedef struct started {
    dls_wgmma product;
    unsigned group;
    int result;          // its number in results[]
} started;

typedef struct results {
    float *d;            // NULL: free
    int floats, under_way;
    float kept[OWN];     // the accumulator, while products are under way
} results;

typedef struct lane_state {
    unsigned serial;     // of the block that filled it
    int fenced;
    unsigned committed, count;
    started list[PRODUCTS];
    results result[RESULTS];
} lane_state;

static __thread lane_state *lanes;  // (DLS_SIMT_MAX_THREADS)

static lane_state *own_lane(dls_simt_worker *w)
{
    if (!lanes && !(lanes = calloc(DLS_SIMT_MAX_THREADS, sizeof *lanes)))
        dls_fault_as(w, cudaErrorMemoryAllocation, "no memory for products");
    lane_state *l = &lanes[threadIdx.linear];
    if (l->serial != dls_simt_here.serial) {
        l->serial = dls_simt_here.serial;
        l->fenced = 0;
        l->committed = l->count = 0;
        for (int i = 0; i < RESULTS; i++)
            l->result[i].d = NULL;
    }
    return l;
}

/* start a product */
void dls_simt_wgmma_fence(void)
{
    own_lane(dls_me)->fenced = 1;
}

/* Sets the accumulator aside, poisoned, unless it already is; its number. */
static int set_aside(dls_simt_worker *w, lane_state *l, const dls_wgmma *p)
{
    int unused = -1, floats = p->N / 2;
    for (int i = 0; i < RESULTS; i++) {
        if (l->result[i].d == p->d)
            return i;
        if (!l->result[i].d)
            unused = i;
    }
    if (unused < 0)
        dls_fault(w, "more than %d accumulators under way in a thread", RESULTS);
    results *r = &l->result[unused];
    r->d = p->d;
    r->floats = floats;
    r->under_way = 0;
    memcpy(r->kept, p->d, (size_t)floats * sizeof *r->kept);
    for (int i = 0; i < floats; i++)
        memcpy(&p->d[i], &(unsigned){DLS_SIMT_POISON}, sizeof *p->d);
    return unused;
}

void dls_simt_wgmma(const dls_wgmma *product, const char *file, int line)
{
    dls_simt_worker *w = dls_me;
    lane_state *l = own_lane(w);
    if (!l->fenced)
        dls_fault(w, "%s:%d: wgmma without a wgmma.fence since the last wait", file,
                  line);
    if (l->count == PRODUCTS)
        dls_fault(w, "%s:%d: more than %d products under way", file, line, PRODUCTS);
    int result = set_aside(w, l, product);
    l->result[result].under_way++;
    l->list[l->count++] = (started){*product, l->committed, result};
    if (dls_simt_probes)
        dls_simt_probes->flops((unsigned long long)product->N * K,
                               __builtin_return_address(0));
}

void dls_simt_wgmma_commit(void)
{
    own_lane(dls_me)->committed++;
}

/* read operands through descriptors */
typedef struct tile {
    unsigned start, leading, stride;
} tile;

static tile tile_of(uint64_t bits)
{
    return (tile){(unsigned)(bits & 0x3fff) << 4, (unsigned)(bits >> 16 & 0x3fff) << 4,
                  (unsigned)(bits >> 32 & 0x3fff) << 4};
}

static double element(dls_simt_worker *w, unsigned at, int fp16)
{
    uint16_t bits;
    at ^= at >> 3 & 0x70;
    if (at + 2 > w->arena.dynamic_bytes)
        dls_fault(w, "wgmma reads at %u of %zu bytes of dynamic shared memory", at,
                  w->arena.dynamic_bytes);
    memcpy(&bits, w->arena.dynamic + at, sizeof bits);
    return dls_decode(bits, fp16 ? DLS_FORMAT_FP16 : DLS_FORMAT_BF16);
}

/* Summed index k along the rows: (row, k). */
static double along(dls_simt_worker *w, tile t, int row, int k, int fp16)
{
    return element(w, t.start + row % 8 * 128 + row / 8 * t.stride + k * 2, fp16);
}

/* Summed index k down the rows: (k, column). */
static double down(dls_simt_worker *w, tile t, int k, int column, int fp16)
{
    return element(w, t.start + column % 64 * 2 + column / 64 * t.leading +
                          k % 8 * 128 + k / 8 * t.stride, fp16);
}

/* compute a product of a warp */
typedef struct operands {
    double a[16][K], b[K][LARGEST_N];
    float sum[16][LARGEST_N];
} operands;

/* Elements of A that `lane` holds in registers, as of mma.m16n8k16. */
static void gather_rows(operands *o, const dls_wgmma *p, int lane)
{
    for (int r = 0; r < 4; r++)
        for (int e = 0; e < 2; e++)
            o->a[lane / 4 + r % 2 * 8][lane % 4 * 2 + e + r / 2 * 8] = dls_decode(
                p->a[r] >> 16 * e & 0xffff, p->fp16 ? DLS_FORMAT_FP16 : DLS_FORMAT_BF16);
}

static void read_operands(dls_simt_worker *w, operands *o, const dls_wgmma *p, int warp)
{
    tile a = tile_of(p->a_tile), b = tile_of(p->b_tile);
    for (int k = 0; k < K; k++) {
        for (int i = 0; i < 16 && !p->rows; i++)
            o->a[i][k] = along(w, a, warp % 4 * 16 + i, k, p->fp16);
        for (int n = 0; n < p->N; n++)
            o->b[k][n] = p->rows ? down(w, b, k, n, p->fp16) : along(w, b, n, k, p->fp16);
    }
}

static void multiply(operands *o, int N)
{
    double wide[LARGEST_N];
    for (int i = 0; i < 16; i++)
        for (int half = 0; half < K; half += 8) {
            for (int n = 0; n < N; n++)
                wide[n] = o->sum[i][n];
            for (int k = half; k < half + 8; k++)
                for (int n = 0; n < N; n++)
                    wide[n] += o->a[i][k] * o->b[k][n];
            for (int n = 0; n < N; n++)
                o->sum[i][n] = (float)wide[n];
        }
}

/* compute the groups that must end */
typedef struct waiting {
    dls_simt_meeting meeting;
    lane_state *lane;
    int warp;
    unsigned below;  // groups before this number must end
    const char *file;
    int line;
} waiting;

static lane_state *lane_at(dls_simt_meeting *const lane[DLS_SIMT_WARP], int i)
{
    return ((waiting *)lane[i])->lane;
}

/* Where element (row, column) of the sum lies with its lane. */
static float *place(dls_simt_meeting *const lane[DLS_SIMT_WARP], int row, int column,
                    unsigned product)
{
    lane_state *l = lane_at(lane, row % 8 * 4 + column % 8 / 2);
    return &l->result[l->list[product].result]
                .kept[column / 8 * 4 + row / 8 * 2 + column % 2];
}

static void compute(dls_simt_meeting *const lane[DLS_SIMT_WARP], unsigned i)
{
    static __thread operands o;
    const dls_wgmma *p = &lane_at(lane, 0)->list[i].product;
    for (int l = 0; l < DLS_SIMT_WARP && p->rows; l++)
        gather_rows(&o, &lane_at(lane, l)->list[i].product, l);
    read_operands(dls_me, &o, p, ((waiting *)lane[0])->warp);
    for (int r = 0; r < 16; r++)
        for (int n = 0; n < p->N; n++)
            o.sum[r][n] = p->accumulate ? *place(lane, r, n, i) : 0;
    multiply(&o, p->N);
    for (int r = 0; r < 16; r++)
        for (int n = 0; n < p->N; n++)
            *place(lane, r, n, i) = o.sum[r][n];
}

/* Takes the first `ended` products off the lane's list; gives back what is complete. */
static void retire(lane_state *l, unsigned ended)
{
    for (unsigned i = 0; i < ended; i++) {
        results *r = &l->result[l->list[i].result];
        if (--r->under_way == 0) {
            memcpy(r->d, r->kept, (size_t)r->floats * sizeof *r->d);
            r->d = NULL;
        }
    }
    l->count -= ended;
    memmove(l->list, l->list + ended, l->count * sizeof *l->list);
}

static void complete_wait(dls_simt_meeting *const lane[DLS_SIMT_WARP])
{
    const waiting *first = (const waiting *)lane[0];
    const lane_state *l = first->lane;
    unsigned ended = 0;
    while (ended < l->count && l->list[ended].group < first->below)
        ended++;
    for (int i = 1; i < DLS_SIMT_WARP; i++)
        if (lane_at(lane, i)->count != l->count ||
            ((waiting *)lane[i])->below != first->below)
            dls_fault(dls_me, "%s:%d: lanes of one warp started %u and %u products",
                      first->file, first->line, l->count, lane_at(lane, i)->count);
    for (unsigned i = 0; i < ended; i++)
        compute(lane, i);
    for (int i = 0; i < DLS_SIMT_WARP; i++)
        retire(lane_at(lane, i), ended);
}

/* wait for products */
void dls_simt_wgmma_wait(int groups, const char *file, int line)
{
    lane_state *l = own_lane(dls_me);
    waiting own = {{"wgmma.wait_group", __builtin_return_address(0), complete_wait}, l,
                   (int)(threadIdx.linear / DLS_SIMT_WARP), 0, file, line};
    own.below = l->committed > (unsigned)groups ? l->committed - (unsigned)groups : 0;
    l->fenced = 0;
    dls_simt_meet(&own.meeting, file, line);
}
