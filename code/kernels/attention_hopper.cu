/* code/kernels/attention_hopper.cu: from chapters/10-flash-attention-hopper.md. Edit the chapter, or edit here and run "make untangle". */
/* Flash Attention, forward, for Hopper: FlashAttention-3 (Shah et al. 2024) by TMA, wgmma
 * and mbarriers. Compiled for sm_90a only.
 *
 *   group 0   one thread: copies queries, then keys and values, stage after stage
 *   group 1   64 rows:  S_j = Q K_j^T │ O += P_j-1 V_j-1 │ softmax of S_j │ ...
 *   group 2   64 rows:  the same, half a step later: they take turns at the tensor core
 *
 * A tile is D / 64 panels of 64 columns; a row of a panel is 128 swizzled bytes.
 */
#include "kernels/attention_hopper.h"

#include <stdint.h>

#include "kernels/attention_fragments.cuh"
#include "kernels/launch.cuh"
#include "vgpu/hopper.cuh"

/* size the tiles of hopper */
enum { GROUP = 128, THREADS = 3 * GROUP, ROWS = 128, KEYS = 128, STAGES = 2 };
enum { PANEL = 128 * 64 };  // elements, of any tile

/* lay out the shared memory of hopper */
struct hopper_barriers {
    uint64_t queries, full_k[STAGES], full_v[STAGES], empty_k[STAGES], empty_v[STAGES];
};

template <int D> struct hopper_shared {
    uint16_t q[D / 64 * PANEL];
    struct {
        uint16_t k[D / 64 * PANEL], v[D / 64 * PANEL];
    } stage[STAGES];
    hopper_barriers bar;
    char rest[1024 - sizeof(hopper_barriers)];  // a multiple of 1024 bytes in all
};

struct hopper_attention {
    dls_tensor_map q, k, v;  // (B, T, heads, D), the head size innermost
    dls_attention_shape s;
    uint16_t *out;
    float *lse;              // or NULL
    dls_dropout_gate gate;
};

/* name the products of a format */
#define HOPPER_FORMAT(name, base, suffix)                                         \
    struct name : base {                                                          \
        static __device__ void scores(float s[16][4], uint64_t q, uint64_t k,     \
                                      int accumulate)                             \
        {                                                                         \
            dls_wgmma_m64n128k16_##suffix(s, q, k, accumulate);                   \
        }                                                                         \
        template <int D>                                                          \
        static __device__ void values(float o[][4], const uint32_t p[4], uint64_t v) \
        {                                                                         \
            if constexpr (D == 64)                                                \
                dls_wgmma_m64n64k16_##suffix##_rows(o, p, v, 1);                  \
            else                                                                  \
                dls_wgmma_m64n128k16_##suffix##_rows(o, p, v, 1);                 \
        }                                                                         \
    }
HOPPER_FORMAT(hopper_bf16, attention_bf16, bf16);
HOPPER_FORMAT(hopper_fp16, attention_fp16, fp16);
#undef HOPPER_FORMAT

/* produce the tiles */
/* Starts the copies of one tile: row `row` of a head, all its panels. */
template <int D>
static __device__ inline void copy_tile(uint16_t *tile, const dls_tensor_map *map,
                                        uint64_t *bar, int head, int row, int b)
{
    dls_mbarrier_arrive_expect(bar, 128 * D * sizeof *tile);
    for (int panel = 0; panel < D / 64; panel++)
        dls_tma_load_4d(tile + panel * PANEL, map, bar, 64 * panel, head, row, b);
}

template <int D>
static __device__ inline void produce(const hopper_attention &a, hopper_shared<D> *m,
                                      int b, int h, int first, int tiles)
{
    int kv = h / (a.s.H / a.s.Hk);
    copy_tile<D>(m->q, &a.q, &m->bar.queries, h, first, b);
    for (int j = 0; j < tiles; j++) {
        int at = j % STAGES, free = j / STAGES % 2 ^ 1;
        dls_mbarrier_wait(&m->bar.empty_k[at], free);
        copy_tile<D>(m->stage[at].k, &a.k, &m->bar.full_k[at], kv, j * KEYS, b);
        dls_mbarrier_wait(&m->bar.empty_v[at], free);
        copy_tile<D>(m->stage[at].v, &a.v, &m->bar.full_v[at], kv, j * KEYS, b);
    }
}

/* start the two products */
template <int D, class format>
static __device__ inline void start_scores(float s[16][4], const uint16_t *q,
                                           const uint16_t *k)
{
#pragma unroll
    for (int d = 0; d < D / 16; d++) {
        uint64_t left = dls_wgmma_tile(q + d / 4 * PANEL, 16, 1024);
        uint64_t right = dls_wgmma_tile(k + d / 4 * PANEL, 16, 1024);
        format::scores(s, dls_wgmma_step(left, d % 4 * 32),
                       dls_wgmma_step(right, d % 4 * 32), d > 0);
    }
    dls_wgmma_commit();
}

template <int D, class format>
static __device__ inline void start_values(float o[][4], const uint32_t p[][4],
                                           const uint16_t *v)
{
    uint64_t right = dls_wgmma_tile(v, PANEL * sizeof *v, 1024);
#pragma unroll
    for (int n = 0; n < KEYS / 16; n++)
        format::template values<D>(o, p[n], dls_wgmma_step(right, n * 2048));
    dls_wgmma_commit();
}

/* take turns at the tensor core */
static __device__ inline void take_turn(int who)
{
    dls_named_barrier_sync(1 + who, 2 * GROUP);
}

static __device__ inline void hand_turn_to(int who)
{
    dls_named_barrier_arrive(1 + who, 2 * GROUP);
}

/* turn scores into weights */
/* The first row and the limits of a thread's two rows. */
struct hopper_rows {
    int first;     // of the warp
    int i;         // of this thread; the other is i + 8
    int sees[2], least;  // keys: its rows', and what the warp's first row sees
    int position[2];     // of its rows among the keys
    dls_dropout_gate gate;
};

template <bool drops>
static __device__ inline void weigh(float s[16][4], attention_rows *rows,
                                    const hopper_rows &r, int j, float scale2,
                                    float shrink[2])
{
    if ((j + 1) * KEYS > r.least)
        attention_hide<16>(s, j * KEYS, r.sees);
    attention_exponentiate<16>(s, rows, scale2, shrink);
    if (drops)
        attention_drop<16>(s, r.gate, j * KEYS, r.position);
}

template <class format>
static __device__ inline void pack(uint32_t p[8][4], const float s[16][4])
{
#pragma unroll
    for (int n = 0; n < KEYS / 16; n++)
        attention_pack<format>(p[n], &s[2 * n]);
}

/* One warp has read the tile. */
static __device__ inline void release(uint64_t *empty)
{
    if (threadIdx.x % 32 == 0)
        dls_mbarrier_arrive(empty);
}

/* consume the tiles */
template <int D, class format, bool drops>
static __device__ inline void consume(const hopper_attention &a, hopper_shared<D> *m,
                                      const hopper_rows &r, int who, int tiles,
                                      float o[][4], attention_rows *rows)
{
    const uint16_t *q = m->q + who * 64 * 64;
    float s[16][4], shrink[2], scale2 = (float)a.s.scale * 1.44269504f;
    uint32_t p[8][4];
    if (who == 1)
        hand_turn_to(0);
    /* consume the first tile */
    dls_mbarrier_wait(&m->bar.queries, 0);
    dls_mbarrier_wait(&m->bar.full_k[0], 0);
    take_turn(who);
    dls_wgmma_fence();
    start_scores<D, format>(s, q, m->stage[0].k);
    if (who == 0 || tiles > 1)
        hand_turn_to(1 - who);
    dls_wgmma_wait<0>();
    dls_wgmma_arrived<16>(s);
    release(&m->bar.empty_k[0]);
    weigh<drops>(s, rows, r, 0, scale2, shrink);
    pack<format>(p, s);
    for (int j = 1; j < tiles; j++) {
        /* consume a tile and the values before */
        int now = j % STAGES, before = (j - 1) % STAGES;
        dls_mbarrier_wait(&m->bar.full_k[now], j / STAGES % 2);
        dls_mbarrier_wait(&m->bar.full_v[before], (j - 1) / STAGES % 2);
        take_turn(who);
        dls_wgmma_fence();
        start_scores<D, format>(s, q, m->stage[now].k);
        start_values<D, format>(o, p, m->stage[before].v);
        if (who == 0 || j + 1 < tiles)
            hand_turn_to(1 - who);
        dls_wgmma_wait<1>();
        dls_wgmma_arrived<16>(s);
        release(&m->bar.empty_k[now]);
        weigh<drops>(s, rows, r, j, scale2, shrink);
        dls_wgmma_wait<0>();
        dls_wgmma_arrived<D / 8>(o);
        release(&m->bar.empty_v[before]);
        #pragma unroll
        for (int n = 0; n < D / 8; n++)
        #pragma unroll
            for (int e = 0; e < 4; e++)
                o[n][e] *= shrink[e / 2];
        pack<format>(p, s);
    }
    /* consume the last values */
    int last = (tiles - 1) % STAGES;
    dls_mbarrier_wait(&m->bar.full_v[last], (tiles - 1) / STAGES % 2);
    dls_wgmma_fence();
    start_values<D, format>(o, p, m->stage[last].v);
    dls_wgmma_wait<0>();
    dls_wgmma_arrived<D / 8>(o);
}

/* write the rows of a group */
static __device__ inline int in_panels(int row, int piece)
{
    return piece / 8 * PANEL + row * 64 + (piece % 8 ^ row % 8) * 8;
}

/* Gathers the warp's 16 rows in `tile` and copies those that exist to `out`. */
template <int D, class format>
static __device__ inline void write_rows(uint16_t *out, size_t stride, int rows,
                                         uint16_t *tile, int row, int pieces,
                                         const float o[][4], const float factor[2])
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t pair = format::pack(o[n][2 * h] * factor[h],
                                         o[n][2 * h + 1] * factor[h]);
            int at = in_panels(row + lane / 4 + 8 * h, n) + lane % 4 * 2;
            *(uint32_t *)&tile[at] = pair;
        }
    __syncwarp();
    for (int e = lane; e < 16 * (D / 8); e += 32) {
        int i = row + e / (D / 8), piece = e % (D / 8);
        if (i < rows && piece < pieces)
            *(uint4 *)(out + i * stride + piece * 8) =
                *(const uint4 *)&tile[in_panels(i, piece)];
    }
}

/* attend on hopper */
template <int D, class format, bool drops>
static __device__ inline void attend(const hopper_attention &a, hopper_shared<D> *m,
                                     int b, int h, int first, int tiles)
{
    const dls_attention_shape &s = a.s;
    int who = threadIdx.x / GROUP - 1, row = threadIdx.x / 32 * 16 - 64;
    int lane = threadIdx.x % 32;
    hopper_rows r = {first + row, first + row + lane / 4, {}, 0, {}, {}};
    r.sees[0] = dls_attention_seen(&s, r.i, s.Tq, s.Tk);
    r.sees[1] = dls_attention_seen(&s, r.i + 8, s.Tq, s.Tk);
    r.least = dls_attention_seen(&s, r.first, s.Tq, s.Tk);
    if (drops) {
        r.position[0] = dls_attention_position(&s, r.i, s.Tq, s.Tk);
        r.position[1] = r.position[0] + 8;
        r.gate = dls_dropout_of_head(a.gate, s.first_sequence + b, s.first_head + h);
    }
    float o[D / 8][4] = {}, factor[2], lse[2];
    attention_rows rows = attention_rows_begin();
    if (tiles > 0)
        consume<D, format, drops>(a, m, r, who, tiles, o, &rows);
    else  // the queries are on their way to the memory that write_rows uses
        dls_mbarrier_wait(&m->bar.queries, 0);
    attention_finish(rows, (float)s.scale, factor, lse);
#pragma unroll
    for (int e = 0; e < 2; e++) {
        if (drops)
            factor[e] *= (float)a.gate.scale;
        if (a.lse && lane % 4 == 0 && r.i + 8 * e < s.Tq)
            a.lse[((size_t)b * s.H + h) * s.Tq + r.i + 8 * e] = lse[e];
    }
    dls_named_barrier_sync(3 + who, GROUP);
    write_rows<D, format>(a.out + b * s.o_sequence + (size_t)first * s.o_row + h * s.D,
                          s.o_row, s.Tq - first, m->q, row, s.D / 8, o,
                          factor);
}

template <int D, class format, bool drops>
__global__ void __launch_bounds__(THREADS, 1)
attention_hopper_kernel(const __grid_constant__ hopper_attention a)
{
    extern __shared__ __align__(1024) unsigned char hopper_memory[];
    hopper_shared<D> *m = (hopper_shared<D> *)hopper_memory;
    int b = blockIdx.x / a.s.H, h = blockIdx.x % a.s.H;
    int first = (gridDim.y - 1 - blockIdx.y) * ROWS;
    int most = dls_attention_seen(&a.s, first + ROWS - 1, a.s.Tq, a.s.Tk);
    int tiles = (most + KEYS - 1) / KEYS;
    if (threadIdx.x == 0) {
        /* initialise the barriers */
        dls_mbarrier_init(&m->bar.queries, 1);
        for (int i = 0; i < STAGES; i++) {
            dls_mbarrier_init(&m->bar.full_k[i], 1);
            dls_mbarrier_init(&m->bar.full_v[i], 1);
            dls_mbarrier_init(&m->bar.empty_k[i], 8);
            dls_mbarrier_init(&m->bar.empty_v[i], 8);
        }
        dls_mbarrier_visible();
    }
    __syncthreads();
    if (threadIdx.x < GROUP) {
        dls_registers_release<24>();
        if (threadIdx.x == 0)
            produce<D>(a, m, b, h, first, tiles);
    } else {
        dls_registers_claim<240>();
        attend<D, format, drops>(a, m, b, h, first, tiles);
    }
}

/* launch the hopper attention */
/* describe heads as tensors */
static dls_status describe_heads(dls_tensor_map *map, const void *x, int D, int heads,
                                 int T, int B, size_t row, size_t sequence)
{
    const uint64_t size[4] = {(uint64_t)D, (uint64_t)heads, (uint64_t)T, (uint64_t)B};
    const uint64_t step[4] = {2, (uint64_t)D * 2, row * 2, sequence * 2};
    const uint32_t box[4] = {64, 1, 128, 1};
    return dls_tensor_map_16bit(map, x, 4, size, step, box);
}

/* say what keeps hopper from a shape */
/* What of the shape the kernel can not do; NULL: nothing. */
static const char *obstacle(const dls_attention_shape *s, const void *out, const void *q,
                            const void *k, const void *v)
{
    int device = 0, major = 0;
    if (s->D > 128)
        return "the head size is above 128";
    if (s->starts_q || s->starts_k)
        return "the sequences are packed";
    if (s->lengths_k)
        return "the lengths of the keys differ";
    if (s->Tk < 1 || s->Tq < 1 || s->B < 1)
        return "there are no queries or no keys";
    if (!dls_attention_tensor_applies(s, out, q, k, v))
        return "a size or a stride is not a multiple of 8";
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) !=
            cudaSuccess || major != 9)
        return "the device is not of compute capability 9.0";
    return nullptr;
}

extern "C" int dls_attention_hopper_applies(const dls_attention_shape *s, const void *out,
                                            const void *q, const void *k, const void *v)
{
    return obstacle(s, out, q, k, v) == nullptr;
}

template <int D, class format, bool drops>
static dls_status launch(cudaStream_t stream, const hopper_attention &a)
{
    const dls_attention_shape &s = a.s;
    const int bytes = sizeof(hopper_shared<D>);
    dim3 grid((unsigned)s.B * s.H, dls_blocks(s.Tq, ROWS));
    DLS_CUDA(cudaFuncSetAttribute(attention_hopper_kernel<D, format, drops>,
                                  cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    attention_announce("attention on Hopper", s, 2, 2, a.lse ? 1 : 0);
    attention_hopper_kernel<D, format, drops><<<grid, THREADS, bytes, stream>>>(a);
    return dls_launched();
}

template <int D, class format>
static dls_status launch_dropping(cudaStream_t stream, const hopper_attention &a)
{
    return a.s.dropout > 0 ? launch<D, format, true>(stream, a)
                           : launch<D, format, false>(stream, a);
}

template <class format>
static dls_status launch_sized(cudaStream_t stream, const hopper_attention &a)
{
    return a.s.D <= 64 ? launch_dropping<64, format>(stream, a)
                       : launch_dropping<128, format>(stream, a);
}

extern "C" dls_status dls_attention_hopper_forward(
    cudaStream_t stream, dls_attention_format format, const dls_attention_shape *shape,
    void *out, float *lse, const void *q, const void *k, const void *v)
{
    hopper_attention a = {};
    const char *why = obstacle(shape, out, q, k, v);
    if (why)
        return DLS_FAIL(DLS_ERR_STATE, "attention on Hopper: %s", why);
    dls_attention_shape &s = a.s = *shape;
    DLS_TRY(dls_attention_complete(&s));
    a.out = (uint16_t *)out;
    a.lse = lse;
    DLS_TRY(describe_heads(&a.q, q, s.D, s.H, s.Tq, s.B, s.q_row, s.q_sequence));
    DLS_TRY(describe_heads(&a.k, k, s.D, s.Hk, s.Tk, s.B, s.k_row, s.k_sequence));
    DLS_TRY(describe_heads(&a.v, v, s.D, s.Hk, s.Tk, s.B, s.v_row, s.v_sequence));
    a.gate = dls_dropout_gate_of(s.dropout, s.seed, s.stream);
    return format == DLS_ATTENTION_BF16 ? launch_sized<hopper_bf16>(stream, a)
                                        : launch_sized<hopper_fp16>(stream, a);
}
