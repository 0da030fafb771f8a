/* code/kernels/cross_entropy.cuh: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* A block's two passes over a row of logits. Included by .cu files only. */
#ifndef DLS_KERNELS_CROSS_ENTROPY_CUH
#define DLS_KERNELS_CROSS_ENTROPY_CUH

#include <math.h>

#include "kernels/pack.cuh"
#include "tensor/accumulator.cuh"

/* keep a running softmax */
/* Of the logits seen so far: the largest, and the sum of exp(logit - largest). */
template <typename acc>
struct running {
    acc largest, sum;
};

template <typename acc>
__device__ inline void see(running<acc> &r, acc z)
{
    if (z > r.largest) {
        r.sum = r.sum * exp(r.largest - z) + acc(1);
        r.largest = z;
    } else if (z != acc(-INFINITY)) {
        r.sum += exp(z - r.largest);
    }
}

template <typename acc>
__device__ inline running<acc> join(running<acc> a, running<acc> b)
{
    acc m = a.largest > b.largest ? a.largest : b.largest;
    if (m == acc(-INFINITY))
        return {m, a.sum + b.sum};
    return {m, a.sum * exp(a.largest - m) + b.sum * exp(b.largest - m)};
}

/* The row's pair, for all threads of the block. `shared` has room for 32. */
template <typename acc>
__device__ inline running<acc> join_block(running<acc> r, running<acc> *shared)
{
    for (int distance = 16; distance > 0; distance /= 2)
        r = join(r, {__shfl_xor_sync(0xffffffffu, r.largest, distance),
                     __shfl_xor_sync(0xffffffffu, r.sum, distance)});
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = r;
    __syncthreads();
    r = shared[0];
    for (int warp = 1; warp < (int)blockDim.x / 32; warp++)
        r = join(r, shared[warp]);
    return r;
}

template <int width, typename real, typename acc = dls_acc<real>>
__device__ inline running<acc> see_row(const real *row, int V, running<acc> *shared)
{
    running<acc> r = {acc(-INFINITY), acc(0)};
    int whole = V / width * width;
    for (int v = threadIdx.x * width; v < whole; v += blockDim.x * width) {
        dls_pack<real, width> z = dls_load<width>(row + v);
        for (int i = 0; i < width; i++)
            see(r, acc(z.at[i]));
    }
    for (int v = whole + threadIdx.x; v < V; v += blockDim.x)
        see(r, acc(row[v]));
    return join_block(r, shared);
}

template <typename acc>
__device__ inline running<acc> judge(running<acc> r)
{
    return {r.largest, isfinite(r.largest) ? r.sum : acc(NAN)};
}

/* push a row on the device */
/* to[v] = scale * (factor * exp(from[v] - shift) - [v == target]), 0 without a target. */
template <typename real, typename acc>
__device__ inline real push(real logit, acc shift, acc factor, acc scale, int hit,
                            int none)
{
    acc p = factor * exp(acc(logit) - shift) - (hit ? acc(1) : acc(0));
    return real(none ? acc(0) : scale * p);
}

template <int width, typename real, typename acc>
__device__ inline void push_row(real *to, const real *from, acc shift, acc factor,
                                acc scale, int target, int V, int stride)
{
    int whole = V / width * width;
    for (int v = threadIdx.x * width; v < whole; v += blockDim.x * width) {
        dls_pack<real, width> z = dls_load<width>(from + v);
        for (int i = 0; i < width; i++)
            z.at[i] = push(z.at[i], shift, factor, scale, v + i == target, target < 0);
        dls_store(to + v, z);
    }
    for (int v = whole + threadIdx.x; v < V; v += blockDim.x)
        to[v] = push(from[v], shift, factor, scale, v == target, target < 0);
    for (int v = V + threadIdx.x; v < stride; v += blockDim.x)
        to[v] = real(acc(0));
}

#endif
