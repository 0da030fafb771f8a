/* tests/comm/exact.h: from chapters/04-data-parallelism-transports-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Collectives with exact results, for any transport. */
#ifndef DLS_TESTS_COMM_EXACT_H
#define DLS_TESTS_COMM_EXACT_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm.h"
#include "launched.h"
#include "vgpu/gpu.h"

/* make integer valued data */
typedef struct exact {
    dls_comm *comm;
    cudaStream_t stream;
    int rank, world, private_buffers; // 1: from malloc, which no other rank can see
} exact;

#define EXACT(condition, ...)                              \
    do {                                                   \
        test_checks++;                                     \
        if (!(condition))                                  \
            return DLS_FAIL(DLS_ERR_STATE, __VA_ARGS__);   \
    } while (0)

static inline int32_t exact_value(int rank, size_t i)
{
    return (int32_t)((i * 7 + (size_t)rank * 3) % 5) - 1;
}

static inline int32_t exact_reduced(dls_reduce op, int world, size_t i)
{
    int32_t all = exact_value(0, i);
    for (int r = 1; r < world; r++) {
        int32_t v = exact_value(r, i);
        all = op == DLS_MIN ? (v < all ? v : all) : op == DLS_MAX ? (v > all ? v : all)
              : op == DLS_PROD ? all * v : all + v;
    }
    return all;
}

static inline void *exact_buffer(const exact *e, size_t bytes)
{
    void *p = NULL;
    if (e->private_buffers)
        return malloc(bytes ? bytes : 1);
    return dls_gpu_alloc_shared(&p, bytes ? bytes : 1) == cudaSuccess ? p : NULL;
}

static inline void exact_release(const exact *e, void *p)
{
    if (e->private_buffers)
        free(p);
    else
        cudaFree(p);
}

/* check an all reduce */
#define EXACT_ALL_REDUCE(type, number)                                                   \
    static inline dls_status exact_all_reduce_##type(const exact *e, size_t n,           \
                                                     dls_reduce op)                      \
    {                                                                                    \
        type *b = exact_buffer(e, n * sizeof *b);                                        \
        for (size_t i = 0; i < n; i++)                                                   \
            b[i] = (type)exact_value(e->rank, i);                                        \
        DLS_TRY(dls_comm_all_reduce(e->comm, b, n, number, op, e->stream));              \
        DLS_CUDA(cudaStreamSynchronize(e->stream));                                      \
        for (size_t i = 0; i < n; i++)                                                   \
            EXACT(b[i] == (type)exact_reduced(op, e->world, i),                          \
                  "%s %d of %zu: element %zu is %g on rank %d", #type, op, n, i,         \
                  (double)b[i], e->rank);                                                \
        exact_release(e, b);                                                             \
        return DLS_OK;                                                                   \
    }
EXACT_ALL_REDUCE(float, DLS_F32)
EXACT_ALL_REDUCE(double, DLS_F64)
EXACT_ALL_REDUCE(int32_t, DLS_COMM_I32)

static inline dls_status exact_average(const exact *e, size_t n)
{
    double *b = exact_buffer(e, n * sizeof *b);
    for (size_t i = 0; i < n; i++)
        b[i] = e->world * exact_value(e->rank, i);
    DLS_TRY(dls_comm_all_reduce(e->comm, b, n, DLS_F64, DLS_AVG, e->stream));
    DLS_CUDA(cudaStreamSynchronize(e->stream));
    for (size_t i = 0; i < n; i++)
        EXACT(b[i] == exact_reduced(DLS_SUM, e->world, i), "average: element %zu", i);
    exact_release(e, b);
    return DLS_OK;
}

/* check the other collectives */
static inline dls_status exact_scatter_and_gather(const exact *e, size_t n)
{
    size_t all = n * (size_t)e->world, first = (size_t)e->rank * n;
    int32_t *in = exact_buffer(e, all * 4), *out = exact_buffer(e, n * 4);
    for (size_t i = 0; i < all; i++)
        in[i] = exact_value(e->rank, i);
    DLS_TRY(dls_comm_reduce_scatter(e->comm, in, out, n, DLS_COMM_I32, DLS_SUM,
                                    e->stream));
    DLS_TRY(dls_comm_all_gather(e->comm, out, in, n, DLS_COMM_I32, e->stream));
    DLS_CUDA(cudaStreamSynchronize(e->stream));
    for (size_t i = 0; i < n; i++)
        EXACT(out[i] == exact_reduced(DLS_SUM, e->world, first + i), "scattered %zu", i);
    for (size_t i = 0; i < all; i++)
        EXACT(in[i] == exact_reduced(DLS_SUM, e->world, i), "gathered %zu", i);
    exact_release(e, in);
    exact_release(e, out);
    return DLS_OK;
}

static inline dls_status exact_exchange(const exact *e, size_t n)
{
    size_t all = n * (size_t)e->world;
    int32_t *in = exact_buffer(e, all * 4), *out = exact_buffer(e, all * 4);
    for (size_t i = 0; i < all; i++)
        in[i] = exact_value(e->rank, i);
    DLS_TRY(dls_comm_all_to_all(e->comm, in, out, n, DLS_COMM_I32, e->stream));
    DLS_TRY(dls_comm_broadcast(e->comm, in, all, DLS_COMM_I32, e->world - 1, e->stream));
    DLS_CUDA(cudaStreamSynchronize(e->stream));
    for (size_t i = 0; i < all; i++) {
        int from = n ? (int)(i / n) : 0;
        EXACT(in[i] == exact_value(e->world - 1, i), "broadcast %zu", i);
        EXACT(out[i] == exact_value(from, (size_t)e->rank * n + i % (n ? n : 1)),
              "exchanged %zu", i);
    }
    exact_release(e, in);
    exact_release(e, out);
    return DLS_OK;
}

/* check everything exactly */
static inline dls_status exact_halves(const exact *e)
{
    exact half = *e;
    DLS_TRY(dls_comm_split(e->comm, e->rank % 2, e->rank, &half.comm));
    int32_t sum = e->rank + 1, expected = 0, *b = exact_buffer(e, 4);
    for (int r = e->rank % 2; r < e->world; r += 2)
        expected += r + 1;
    *b = sum;
    DLS_TRY(dls_comm_all_reduce(half.comm, b, 1, DLS_COMM_I32, DLS_SUM, e->stream));
    DLS_TRY(exact_all_reduce_float(e, 1000, DLS_SUM));
    DLS_CUDA(cudaStreamSynchronize(e->stream));
    EXACT(*b == expected, "half: %d, expected %d", *b, expected);
    exact_release(e, b);
    dls_comm_destroy(half.comm);
    return DLS_OK;
}

/* Every rank calls it, with the counts 0, 1, a prime below and one above the shortcut's
 * limit, and one of 1.2 MB in f32. */
static inline dls_status exact_everything(exact *e)
{
    static const size_t counts[] = {0, 1, 4099, 30011, 300007};
    e->rank = dls_comm_rank(e->comm);
    e->world = dls_comm_size(e->comm);
    DLS_CUDA(cudaStreamCreate(&e->stream));
    for (int i = 0; i < 5; i++) {
        for (int op = DLS_SUM; op <= DLS_PROD; op++) {
            if (op == DLS_AVG)
                continue;
            DLS_TRY(exact_all_reduce_float(e, counts[i], (dls_reduce)op));
            DLS_TRY(exact_all_reduce_double(e, counts[i], (dls_reduce)op));
            DLS_TRY(exact_all_reduce_int32_t(e, counts[i], (dls_reduce)op));
        }
        DLS_TRY(exact_average(e, counts[i]));
        DLS_TRY(exact_scatter_and_gather(e, counts[i] / 8));
        DLS_TRY(exact_exchange(e, counts[i] / 8));
    }
    DLS_TRY(exact_halves(e));
    DLS_TRY(dls_comm_barrier(e->comm));
    DLS_CUDA(cudaStreamDestroy(e->stream));
    return DLS_OK;
}
#endif
