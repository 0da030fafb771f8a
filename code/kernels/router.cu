/* code/kernels/router.cu: from chapters/08-router-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The router on the device: a warp per row, and to place rows a warp per expert and
 * sequence. Only whole numbers are added by atomics, so the order does not show. */
#include "kernels/router.h"

#include "kernels/launch.cuh"
#include "kernels/warp.cuh"

#define DLS_HOST_HEADER "kernels/router_host.h"
#include "kernels/host_pair.h"

/* see a row on the device */
enum { ROWS = 4 }; // of a block, a warp for each

template <typename acc> struct seen_row {
    acc most, sum; // largest score; sum of exp(score - most)
    acc whole;     // sum of the gate's probabilities, where a gate's are not normalised
    int fault;     // 1: some score is no finite number
};

template <typename acc>
__device__ static acc gate_of(const dls_router &r, const seen_row<acc> &w, acc s)
{
    return r.gate == DLS_GATE_SOFTMAX   ? exp(s - w.most) / w.sum
           : r.gate == DLS_GATE_SIGMOID ? acc(1) / (acc(1) + exp(-s))
                                        : s;
}

template <typename acc>
__device__ static seen_row<acc> see(const dls_router &r, const acc *s)
{
    seen_row<acc> w = {acc(-INFINITY), acc(0), acc(0), 0};
    /* find the largest score on the device */
    for (int e = threadIdx.x; e < r.E; e += 32) {
        w.most = s[e] > w.most ? s[e] : w.most;
        w.fault |= !isfinite(s[e]);
    }
    w.most = dls_warp_max(w.most);
    w.fault = __ballot_sync(0xffffffffu, w.fault) != 0;
    for (int e = threadIdx.x; e < r.E; e += 32)
        w.sum += exp(s[e] - w.most);
    w.sum = dls_warp_sum(w.sum);
    for (int e = threadIdx.x; e < r.E; e += 32)
        w.whole += gate_of(r, w, s[e]);
    w.whole = r.gate == DLS_GATE_SIGMOID ? dls_warp_sum(w.whole) : acc(1);
    return w;
}
/* rank groups on the device */
/* What an expert is compared by. */
template <typename acc>
__device__ static acc key_of(const dls_router &r, const seen_row<acc> &w, const acc *s,
                             const acc *bias, int e)
{
    if (w.fault)
        return acc(0);
    if (!bias && r.group_limit == 0)
        return s[e];
    return gate_of(r, w, s[e]) + (bias ? bias[e] : acc(0));
}

/* The sum of the two best of group g, or its only one. */
template <typename acc>
__device__ static acc group_score(const dls_router &r, const seen_row<acc> &w,
                                  const acc *s, const acc *bias, int g)
{
    int size = r.E / r.groups, from = g * size;
    acc best = key_of(r, w, s, bias, from), second = acc(0);
    for (int i = 1; i < size; i++) {
        acc key = key_of(r, w, s, bias, from + i), lower = key > best ? best : key;
        second = i == 1 || lower > second ? lower : second;
        best = key > best ? key : best;
    }
    return best + second;
}
/* Bit g: experts of group g may be chosen. A lane for each group. */
template <typename acc>
__device__ static unsigned open_groups(const dls_router &r, const seen_row<acc> &w,
                                       const acc *s, const acc *bias)
{
    int g = threadIdx.x, better = 0;
    if (r.group_limit == 0)
        return 0xffffffffu;
    acc own = g < r.groups ? group_score(r, w, s, bias, g) : acc(0);
    for (int h = 0; h < r.groups; h++) {
        acc other = __shfl_sync(0xffffffffu, own, h);
        better += other > own || (other == own && h < g);
    }
    return __ballot_sync(0xffffffffu, g < r.groups && better < r.group_limit);
}
/* choose on the device */
/* A candidate; e = E: none. */
template <typename acc> struct candidate { acc key; int e; };

/* 1: a comes before b: the larger key, of equals the lower number. */
template <typename acc>
__device__ static int precedes(candidate<acc> a, candidate<acc> b, int E)
{
    return a.e < E && (b.e == E || a.key > b.key || (a.key == b.key && a.e < b.e));
}

/* The best candidate that does not precede, nor is, `last`. */
template <typename acc>
__device__ static candidate<acc> next_best(const dls_router &r, const seen_row<acc> &w,
                                           const acc *s, const acc *bias, unsigned open,
                                           candidate<acc> last)
{
    int size = r.group_limit > 0 ? r.E / r.groups : r.E;
    candidate<acc> best = {acc(0), r.E};
    for (int e = threadIdx.x; e < r.E; e += 32) {
        candidate<acc> c = {key_of(r, w, s, bias, e), e};
        if ((open >> e / size & 1) && (last.e == r.E || precedes(last, c, r.E)) &&
            precedes(c, best, r.E))
            best = c;
    }
    /* agree on the best of all lanes */
    for (int distance = 16; distance > 0; distance /= 2) {
        candidate<acc> other = {__shfl_xor_sync(0xffffffffu, best.key, distance),
                                __shfl_xor_sync(0xffffffffu, best.e, distance)};
        best = precedes(other, best, r.E) ? other : best;
    }
    return best;
}
template <typename acc>
__global__ void choose_kernel(dls_router r, int *index, acc *weight, int *chosen,
                              const acc *scores, const acc *bias)
{
    int i = blockIdx.x * ROWS + threadIdx.y;
    if (i >= r.N)
        return;
    const acc *s = scores + (size_t)i * r.E;
    int *to = index + (size_t)i * r.k, *of = chosen + (r.first + i) / r.T * r.E;
    seen_row<acc> w = see(r, s);
    unsigned open = open_groups(r, w, s, bias);
    candidate<acc> c = {acc(0), r.E};
    acc sum = acc(0);
    /* choose the experts of a row */
    for (int j = 0; j < r.k; j++) {
        if (r.balanced)
            c.e = (int)(((long long)(r.first + i) * r.k + j) % r.E);
        else
            c = next_best(r, w, s, bias, open, c);
        sum += gate_of(r, w, s[c.e]);
        if (threadIdx.x == 0) {
            to[j] = c.e;
            weight[(size_t)i * r.k + j] = gate_of(r, w, s[c.e]);
            atomicAdd(&of[c.e], 1);
        }
    }
    /* weigh the chosen on the device */
    acc factor = acc(r.scale) / (r.normalised && sum > acc(0) ? sum : acc(1));
    for (int j = 0; threadIdx.x == 0 && j < r.k; j++)
        weight[(size_t)i * r.k + j] *= factor;
    if (threadIdx.x == 0 && w.fault)
        atomicMax(&chosen[r.B * r.E], r.N - i);
}
/* place on the device */
__device__ static int chosen_before(const dls_router &r, const int *before, int earlier,
                                    int s, int e)
{
    int sum = 0;
    for (int q = 0; q < earlier; q++)
        sum += before[(size_t)q * (r.B * r.E + 1) + s * r.E + e];
    return sum;
}

/* The rows that come before those of sequence `to` in expert e, and, with e = E, all. */
__device__ static int rows_before(const dls_router &r, const int *chosen,
                                  const int *before, int earlier, int from, int n, int e,
                                  int to)
{
    int sum = 0;
    for (int at = threadIdx.x; at < e * n + to; at += 32) {
        int s = from + at % n, of = at / n;
        if (r.padded && of < e)
            sum += r.capacity;
        else
            sum += dls_router_kept(r.capacity, chosen_before(r, before, earlier, s, of),
                                   chosen[s * r.E + of]);
    }
    return dls_warp_sum(sum);
}
/* A warp for expert blockIdx.x and the blockIdx.y-th sequence that this rank has. */
__global__ void place_kernel(dls_router r, int *place, int *counts, const int *index,
                             const int *chosen, const int *before, int earlier, int from)
{
    int e = blockIdx.x, n = gridDim.y, s = from + blockIdx.y;
    int at = rows_before(r, chosen, before, earlier, from, n, e, blockIdx.y);
    int seen = chosen_before(r, before, earlier, s, e);
    int i0 = max(0, s * r.T - r.first), i1 = min(r.N, (s + 1) * r.T - r.first);
    for (int base = i0; base < i1; base += 32) {
        /* place 32 rows of an expert */
        int i = base + threadIdx.x, choice = -1;
        for (int j = 0; i < i1 && j < r.k; j++)
            if (index[(size_t)i * r.k + j] == e)
                choice = j;
        unsigned all = __ballot_sync(0xffffffffu, choice >= 0);
        int rank = __popc(all & ((1u << threadIdx.x) - 1));
        int full = r.capacity > 0 && seen + rank >= r.capacity;
        if (choice >= 0)
            place[(size_t)i * r.k + choice] = full ? -1 : at + rank;
        at += __popc(all);
        seen += __popc(all);
    }
    /* count the rows of an expert */
    if (blockIdx.y != 0)
        return;
    int begin = rows_before(r, chosen, before, earlier, from, n, e, 0);
    int end = rows_before(r, chosen, before, earlier, from, n, e + 1, 0);
    if (threadIdx.x == 0) {
        int bad = chosen[r.B * r.E];
        counts[e] = e == 0 && bad > 0 ? -1 - (r.first + r.N - bad) : end - begin;
    }
}
/* gather counts on the device */
__global__ void router_gather_kernel(int *out, const int *chosen, int B, int E)
{
    int e = blockIdx.x * blockDim.x + threadIdx.x, sum = 0;
    for (int s = 0; e < E && s < B; s++)
        sum += chosen[(size_t)s * E + e];
    if (e < E)
        out[e] = sum;
}
/* push auxiliary losses on the device */
template <typename acc>
__device__ static acc batch_choices(const dls_router &r, const dls_router_aux &a)
{
    acc sum = acc(0);
    for (int e = threadIdx.x; a.in_batch && e < r.E; e += 32)
        sum += acc(a.in_batch[e]);
    return dls_warp_sum(sum);
}

template <typename acc>
__device__ static acc batch_share(const dls_router &r, const dls_router_aux &a, int e,
                                  acc all)
{
    return a.in_batch ? acc(r.E) * acc(a.in_batch[e]) / all : acc(0);
}

template <typename acc>
__device__ static acc sequence_share(const dls_router &r, const dls_router_aux &a, int i,
                                     int e)
{
    const int *in = a.in_sequence;
    return in ? acc(r.E) * acc(in[(r.first + i) / r.T * r.E + e]) /
                    (acc(r.k) * acc(a.tokens))
              : acc(0);
}
/* go back on the device */
/* What a row's gradients need besides its scores. */
template <typename acc> struct way_back {
    acc scale, all;     // of the losses; choices of the micro-batch
    acc by, dot;        // the divisor of the weights; what it gives back
    acc push;           // mean of the balance losses' gradient under p
};

/* The gradient of the balance losses for an expert's share. */
template <typename acc>
__device__ static acc push_of(const dls_router &r, const dls_router_aux &a,
                              const way_back<acc> &b, int i, int e)
{
    return b.scale * (acc(a.batch) * batch_share(r, a, e, b.all) +
                      acc(a.sequence) * sequence_share<acc>(r, a, i, e));
}

template <typename acc>
__device__ static way_back<acc> weights_back(const dls_router &r, const seen_row<acc> &w,
                                             const acc *s, const acc *dweight,
                                             const int *index, const int *place)
{
    way_back<acc> b = {acc(0), acc(0), acc(0), acc(0), acc(0)};
    for (int j = 0; j < r.k; j++) {
        acc p = gate_of(r, w, s[index[j]]);
        b.by += p;
        b.dot += place[j] < 0 ? acc(0) : dweight[j] * p;
    }
    b.by = r.normalised && b.by > acc(0) ? b.by : acc(1);
    b.dot = r.normalised ? b.dot / b.by : acc(0);
    return b;
}
/* The gradient of probability e. */
template <typename acc>
__device__ static acc dp_of(const dls_router &r, const dls_router_aux &a,
                            const seen_row<acc> &w, const way_back<acc> &b,
                            const acc *dweight, const int *index, const int *place, int i,
                            int e)
{
    acc dp = (push_of(r, a, b, i, e) - b.push) / w.whole;
    for (int j = 0; j < r.k; j++)
        if (index[j] == e)
            dp += acc(r.scale) * ((place[j] < 0 ? acc(0) : dweight[j]) - b.dot) / b.by;
    return dp;
}
template <typename real, typename acc = dls_acc<real>>
__global__ void router_backward_kernel(dls_router r, dls_router_aux a, acc scale,
                                       real *dscores, const acc *dweight,
                                       const acc *scores, const int *index,
                                       const int *place)
{
    int i = blockIdx.x * ROWS + threadIdx.y;
    if (i >= r.N)
        return;
    const acc *s = scores + (size_t)i * r.E, *dw = dweight + (size_t)i * r.k;
    const int *of = index + (size_t)i * r.k, *at = place + (size_t)i * r.k;
    seen_row<acc> w = see(r, s);
    way_back<acc> b = weights_back(r, w, s, dw, of, at);
    b.scale = scale;
    b.all = batch_choices<acc>(r, a);
    /* sum what a row gives back */
    acc push = acc(0), dot = acc(0), z = scale * acc(a.z), lse = w.most + log(w.sum);
    for (int e = threadIdx.x; e < r.E; e += 32)
        push += push_of(r, a, b, i, e) * gate_of(r, w, s[e]) / w.whole;
    b.push = r.gate == DLS_GATE_SIGMOID ? dls_warp_sum(push) : acc(0);
    for (int e = threadIdx.x; e < r.E; e += 32)
        dot += dp_of(r, a, w, b, dw, of, at, i, e) * gate_of(r, w, s[e]);
    dot = dls_warp_sum(dot);
    /* store the gradients of a row */
    for (int e = threadIdx.x; e < r.E; e += 32) {
        acc p = gate_of(r, w, s[e]), d = dp_of(r, a, w, b, dw, of, at, i, e);
        d = r.gate == DLS_GATE_SOFTMAX   ? p * (d - dot)
            : r.gate == DLS_GATE_SIGMOID ? d * p * (acc(1) - p) : d;
        if (z != acc(0))
            d += acc(2) * z * lse * exp(s[e] - w.most) / w.sum;
        dscores[(size_t)i * r.E + e] = real(d);
    }
}
/* tally on the device */
/* values: the sums of one row each. */
template <typename acc>
__global__ void tally_rows_kernel(dls_router r, dls_router_aux a, acc *values,
                                  const acc *scores)
{
    int i = blockIdx.x * ROWS + threadIdx.y;
    if (i >= r.N)
        return;
    const acc *s = scores + (size_t)i * r.E;
    seen_row<acc> w = see(r, s);
    acc all = batch_choices<acc>(r, a), lse = w.most + log(w.sum);
    acc batch = acc(0), sequence = acc(0), entropy = acc(0);
    /* sum the losses of a row */
    for (int e = threadIdx.x; e < r.E; e += 32) {
        acc p = gate_of(r, w, s[e]) / w.whole;
        batch += batch_share(r, a, e, all) * p;
        sequence += sequence_share<acc>(r, a, i, e) * p;
        entropy -= r.gate != DLS_GATE_IDENTITY && p > acc(0) ? p * log(p) : acc(0);
    }
    batch = dls_warp_sum(batch);
    sequence = dls_warp_sum(sequence);
    entropy = dls_warp_sum(entropy);
    if (threadIdx.x != 0)
        return;
    /* store the sums of a row */
    acc *to = values + (size_t)i * DLS_TALLY_SUMS;
    to[DLS_TALLY_TOKENS] = acc(1);
    to[DLS_TALLY_BATCH] = batch;
    to[DLS_TALLY_SEQUENCE] = sequence;
    to[DLS_TALLY_Z] = lse * lse;
    to[DLS_TALLY_ENTROPY] = entropy;
}
/* A warp for each expert, and one more for each sum. */
template <typename acc>
__global__ void tally_kernel(dls_router r, acc *tally, const acc *values,
                             const int *chosen, const int *before, int earlier)
{
    int e = blockIdx.x, drop = 0, all = 0;
    acc sum = acc(0);
    /* count an expert on the device */
    for (int s = threadIdx.x; e < r.E && s < r.B; s += 32) {
        int n = chosen[s * r.E + e];
        int b = chosen_before(r, before, earlier, s, e);
        all += n;
        drop += n - dls_router_kept(r.capacity, b, n);
    }
    for (int i = threadIdx.x; e >= r.E && i < r.N; i += 32)
        sum += values[(size_t)i * DLS_TALLY_SUMS + e - r.E];
    all = dls_warp_sum(all);
    drop = dls_warp_sum(drop);
    sum = dls_warp_sum(sum);
    if (threadIdx.x != 0)
        return;
    tally[e < r.E ? e : r.E + e] += e < r.E ? acc(all) : sum;
    if (e < r.E)
        tally[r.E + e] += acc(drop);
}

template <typename acc>
__global__ void bias_kernel(acc *bias, const acc *tally, int E, double rate)
{
    int e = blockIdx.x * blockDim.x + threadIdx.x;
    double sum = 0;
    for (int i = 0; e < E && i < E; i++)
        sum += double(tally[i]);
    if (e >= E)
        return;
    double less = sum - double(E) * double(tally[e]);
    bias[e] += acc(less > 0 ? rate : less < 0 ? -rate : 0.0);
}
/* check a router */
extern "C" dls_status dls_router_check(const dls_router *r)
{
    if (r->E < 1 || r->E > DLS_ROUTER_EXPERTS)
        return DLS_FAIL(DLS_ERR_INPUT, "experts: expected 1 to %d, got %d",
                        DLS_ROUTER_EXPERTS, r->E);
    if (r->k < 1 || r->k > r->E)
        return DLS_FAIL(DLS_ERR_INPUT, "chosen: expected 1 to %d, the experts, got %d",
                        r->E, r->k);
    if (r->group_limit == 0 && r->groups > 1)
        return DLS_FAIL(DLS_ERR_INPUT, "group_limit: expected 1 to %d, since there are "
                        "groups, got none or 0", r->groups);
    if (r->group_limit == 0)
        return DLS_OK;
    /* refuse groups that can not be */
    if (r->groups < 1 || r->groups > DLS_ROUTER_GROUPS || r->E % r->groups != 0)
        return DLS_FAIL(DLS_ERR_INPUT,
                        "groups: expected at most %d, a divisor of the %d experts, "
                        "got %d",
                        DLS_ROUTER_GROUPS, r->E, r->groups);
    /* refuse too few open groups */
    if (r->group_limit < 0 || r->group_limit > r->groups ||
        r->group_limit * (r->E / r->groups) < r->k)
        return DLS_FAIL(DLS_ERR_INPUT,
                        "group_limit: expected 1 to %d groups that have the %d chosen "
                        "experts, got %d of %d",
                        r->groups, r->k, r->group_limit, r->E / r->groups);
    return DLS_OK;
}
/* launch the router */
static inline dim3 row_blocks(const dls_router &r) { return dim3(dls_blocks(r.N, ROWS)); }

template <typename real, typename acc = dls_acc<real>>
static dls_status choose(dls_ctx *ctx, dls_router r, int *index, acc *weight, int *chosen,
                         const acc *scores, const acc *bias)
{
    double count = (double)r.N * r.E;
    dls_gpu_cost_of(DLS_WORK_NORM, "router choose", (6.0 + r.k) * count,
                    count * sizeof(acc) + (double)r.N * r.k * (4 + sizeof(acc)));
    DLS_RUN_ON_HOST(ctx, dls_router_choose, r, index, weight, chosen, scores, bias);
    DLS_CUDA(cudaMemsetAsync(chosen, 0, ((size_t)r.B * r.E + 1) * sizeof *chosen,
                             ctx->stream));
    if (r.N == 0)
        return DLS_OK;
    choose_kernel<acc><<<row_blocks(r), dim3(32, ROWS), 0, ctx->stream>>>(
        r, index, weight, chosen, scores, bias);
    return dls_launched();
}
template <typename real>
static dls_status place_rows(dls_ctx *ctx, dls_router r, int *place, int *counts,
                             const int *index, const int *chosen, const int *before,
                             int earlier)
{
    double choices = (double)r.N * r.k;
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "router place", choices, 8 * choices);
    DLS_RUN_ON_HOST(ctx, dls_router_place, r, place, counts, index, chosen, before,
                    earlier);
    if (r.N == 0) {
        DLS_CUDA(cudaMemsetAsync(counts, 0, (size_t)r.E * sizeof *counts, ctx->stream));
        return DLS_OK;
    }
    int from = r.first / r.T, n = (r.first + r.N - 1) / r.T - from + 1;
    place_kernel<<<dim3((unsigned)r.E, (unsigned)n), 32, 0, ctx->stream>>>(
        r, place, counts, index, chosen, before, earlier, from);
    return dls_launched();
}
/* launch the way back */
template <typename real>
static dls_status gather(dls_ctx *ctx, int *out, const int *chosen, int B, int E)
{
    dls_gpu_cost_of(DLS_WORK_REDUCTION, "router counts", (double)B * E, 4.0 * B * E);
    DLS_RUN_ON_HOST(ctx, dls_router_gather, out, chosen, B, E);
    router_gather_kernel<<<dls_blocks(E, 128), 128, 0, ctx->stream>>>(out, chosen, B, E);
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status backward(dls_ctx *ctx, dls_router r, dls_router_aux aux, acc scale,
                           real *dscores, const acc *dweight, const acc *scores,
                           const int *index, const int *place)
{
    double count = (double)r.N * r.E;
    if (r.N == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "router backward", 12 * count,
                    count * (sizeof(acc) + sizeof(real)) +
                        (double)r.N * r.k * (8 + sizeof(acc)));
    DLS_RUN_ON_HOST(ctx, dls_router_backward, r, aux, scale, dscores, dweight, scores,
                    index, place);
    router_backward_kernel<real><<<row_blocks(r), dim3(32, ROWS), 0, ctx->stream>>>(
        r, aux, scale, dscores, dweight, scores, index, place);
    return dls_launched();
}
/* launch the tally */
template <typename real, typename acc = dls_acc<real>>
static dls_status tally_all(dls_ctx *ctx, dls_router r, dls_router_aux aux, acc *tally,
                            acc *values, const acc *scores, const int *chosen,
                            const int *before, int earlier)
{
    if (r.N == 0)
        return DLS_OK;
    dls_gpu_cost_of(DLS_WORK_NORM, "router tally", 8.0 * r.N * r.E,
                    (double)r.N * (r.E + 2 * DLS_TALLY_SUMS) * sizeof(acc));
    DLS_RUN_ON_HOST(ctx, dls_router_tally, r, aux, tally, scores, chosen, before,
                    earlier);
    DLS_CUDA(cudaMemsetAsync(values, 0, (size_t)r.N * DLS_TALLY_SUMS * sizeof(acc),
                             ctx->stream));
    tally_rows_kernel<acc><<<row_blocks(r), dim3(32, ROWS), 0, ctx->stream>>>(
        r, aux, values, scores);
    tally_kernel<acc><<<(unsigned)(r.E + DLS_TALLY_SUMS), 32, 0, ctx->stream>>>(
        r, tally, values, chosen, before, earlier);
    return dls_launched();
}

template <typename real, typename acc = dls_acc<real>>
static dls_status step_bias(dls_ctx *ctx, acc *bias, const acc *tally, int E, double rate)
{
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, "router bias", 3.0 * E, 3.0 * E * sizeof(acc));
    DLS_RUN_ON_HOST(ctx, dls_router_bias, bias, tally, E, (acc)rate);
    bias_kernel<acc>
        <<<dls_blocks(E, 128), 128, 0, ctx->stream>>>(bias, tally, E, rate);
    return dls_launched();
}
/* expose the router */
extern "C" dls_status dls_router_choose(dls_ctx *ctx, const dls_router *r, int *index,
                                        void *weight, int *chosen, const void *scores,
                                        const void *bias)
{
    return DLS_BY_TYPE(ctx, choose<real>(ctx, *r, index, (acc *)weight, chosen,
                                         (const acc *)scores, (const acc *)bias));
}

extern "C" dls_status dls_router_place(dls_ctx *ctx, const dls_router *r, int *place,
                                       int *counts, const int *index, const int *chosen,
                                       const int *before, int earlier)
{
    return DLS_BY_TYPE(ctx, place_rows<real>(ctx, *r, place, counts, index, chosen,
                                             before, earlier));
}

extern "C" dls_status dls_router_gather(dls_ctx *ctx, int *out, const int *chosen, int B,
                                        int E)
{
    return DLS_BY_TYPE(ctx, gather<real>(ctx, out, chosen, B, E));
}

extern "C" dls_status dls_router_backward(dls_ctx *ctx, const dls_router *r,
                                          const dls_router_aux *aux, double scale,
                                          void *dscores, const void *dweight,
                                          const void *scores, const int *index,
                                          const int *place)
{
    return DLS_BY_TYPE(ctx, backward<real>(ctx, *r, *aux, (acc)scale, (real *)dscores,
                                           (const acc *)dweight, (const acc *)scores,
                                           index, place));
}
extern "C" dls_status dls_router_tally(dls_ctx *ctx, const dls_router *r,
                                       const dls_router_aux *aux, void *tally,
                                       void *values, const void *scores,
                                       const int *chosen, const int *before, int earlier)
{
    return DLS_BY_TYPE(ctx, tally_all<real>(ctx, *r, *aux, (acc *)tally, (acc *)values,
                                            (const acc *)scores, chosen, before,
                                            earlier));
}

extern "C" dls_status dls_router_bias(dls_ctx *ctx, void *bias, const void *tally, int E,
                                      double rate)
{
    return DLS_BY_TYPE(ctx,
                       step_bias<real>(ctx, (acc *)bias, (const acc *)tally, E, rate));
}
