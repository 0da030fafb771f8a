/* tests/comm/bench_all_reduce.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The virtual time of all-reduces against the formula: ranks, bytes, µs, µs. */
#include <math.h>
#include <stdio.h>

#include "comm/comm.h"
#include "comm/launch.h"
#include "vgpu/gpu.h"

enum { MOST = 100000000 }; // bytes

/* compute what the ring should cost */
static double formula(int n, size_t bytes)
{
    double alpha = 0, beta = 0, a, b;
    for (int r = 0; r < n; r++) {
        dls_cluster_link(dls_gpu_cluster(), r, (r + 1) % n, &a, &b);
        alpha = fmax(alpha, a);
        beta = fmax(beta, b);
    }
    return 2.0 * (n - 1) * (alpha + beta * (double)bytes / n);
}

/* measure an all reduce */
static dls_status measure(dls_comm *comm, float *buffer, size_t bytes,
                          cudaStream_t stream, double *longest)
{
    double all[16];
    DLS_TRY(dls_comm_barrier(comm));
    double mine = -dls_comm_stats(comm).busy_seconds;
    DLS_TRY(dls_comm_all_reduce(comm, buffer, bytes / sizeof *buffer, DLS_F32, DLS_SUM,
                                stream));
    DLS_CUDA(cudaStreamSynchronize(stream));
    mine += dls_comm_stats(comm).busy_seconds;
    DLS_TRY(dls_comm_all_gather_host(comm, &mine, sizeof mine, all));
    *longest = 0;
    for (int r = 0; r < dls_comm_size(comm); r++)
        *longest = fmax(*longest, all[r]);
    return DLS_OK;
}

/* measure the sizes of a world */
static dls_status measure_world(int rank, void *cluster)
{
    static const size_t sizes[] = {1000,   4000,    10000,   40000,    100000,   400000,
                                   1000000, 4000000, 10000000, 40000000, MOST};
    dls_gpu_options options = {.cluster_file = cluster};
    dls_comm *comm;
    cudaStream_t stream;
    void *buffer;
    DLS_TRY(dls_gpu_init(&options));
    DLS_TRY(dls_comm_create(&comm, &(dls_comm_options){.algorithm = "all_reduce:ring"}));
    DLS_CUDA(cudaStreamCreate(&stream));
    DLS_CUDA(dls_gpu_alloc_shared(&buffer, MOST));
    /* print a line per size */
    int n = dls_comm_size(comm);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        double seconds = 0;
        DLS_TRY(measure(comm, buffer, sizes[i], stream, &seconds));
        if (rank == 0)
            printf("%d\t%zu\t%.2f\t%.2f\n", n, sizes[i], formula(n, sizes[i]) * 1e6,
                   seconds * 1e6);
    }
    cudaFree(buffer);
    cudaStreamDestroy(stream);
    dls_comm_destroy(comm);
    return DLS_OK;
}

/* measure four worlds */
int main(void)
{
    static const struct { int ranks; char cluster[16]; } worlds[] = {
        {2, "dgx-h100"}, {4, "dgx-h100"}, {8, "dgx-h100"}, {16, "two-dgx-h100"}};
    for (int i = 0; i < 4; i++)
        if (dls_run_ranks(worlds[i].ranks, measure_world, (void *)worlds[i].cluster)) {
            fprintf(stderr, "%s\n", dls_status_message());
            return 1;
        }
    return 0;
}
