/* tests/comm/bench_local.c: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* The `local` all-reduce of 4 processes, and Open MPI's beside it: make bench-comm.
 *
 *   bench_local [PEER]     PEER: the program of peer_mpi.c, run under mpirun */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "comm/comm.h"
#include "comm/launch.h"
#include "rounds.h"
#include "vgpu/gpu.h"

/* sum with our own */
typedef struct ours { dls_comm *comm; cudaStream_t stream; } ours;

static int sum_ours(void *context, float *buffer, size_t count)
{
    ours *o = context;
    return dls_comm_all_reduce(o->comm, buffer, count, DLS_F32, DLS_SUM, o->stream) ||
           cudaStreamSynchronize(o->stream) ? -1 : 0;
}

static double largest_ours(void *context, double mine)
{
    ours *o = context;
    double all[RANKS], most = 0;
    if (dls_comm_all_gather_host(o->comm, &mine, sizeof mine, all) != DLS_OK)
        return -1;
    for (int r = 0; r < RANKS; r++)
        most = all[r] > most ? all[r] : most;
    return most;
}

/* measure our own */
static dls_status measure_ours(int rank, void *arg)
{
    double *seconds = arg; // (SIZES), shared with the parent
    dls_gpu_options options = {.cluster_file = "dgx-h100"};
    ours o;
    void *buffer;
    DLS_TRY(dls_gpu_init(&options));
    DLS_TRY(dls_comm_create(&o.comm, NULL));
    DLS_CUDA(cudaStreamCreate(&o.stream));
    DLS_CUDA(dls_gpu_alloc_shared(&buffer, BIG));
    for (int i = 0; i < SIZES; i++) {
        double s = measure_rounds(i, buffer, sum_ours, largest_ours, &o);
        if (s < 0)
            return DLS_FAIL(DLS_ERR_COMM, "%s", dls_status_message());
        if (rank == 0)
            seconds[i] = s;
    }
    cudaFree(buffer);
    cudaStreamDestroy(o.stream);
    dls_comm_destroy(o.comm);
    return DLS_OK;
}

/* measure open mpi */
/* Fills seconds (SIZES); 0 when there is no Open MPI or it does not run. */
static int measure_open_mpi(const char *peer, double *seconds)
{
    char command[600];
    size_t bytes;
    double microseconds;
    int found = 0;
    setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
    setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    snprintf(command, sizeof command, "mpirun --oversubscribe -n %d '%.400s'", RANKS,
             peer);
    FILE *f = popen(command, "r");
    while (f && fscanf(f, "%zu %lf", &bytes, &microseconds) == 2)
        for (int i = 0; i < SIZES; i++)
            if (measured[i].bytes == bytes) {
                seconds[i] = microseconds * 1e-6;
                found++;
            }
    return f && pclose(f) == 0 && found == SIZES;
}

/* print both and the ratio */
int main(int argc, char **argv)
{
    double mpi[SIZES];
    double *local = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                         -1, 0);
    int both = argc > 1 && measure_open_mpi(argv[1], mpi);
    if (dls_run_ranks(RANKS, measure_ours, local) != DLS_OK) {
        fprintf(stderr, "%s\n", dls_status_message());
        return 1;
    }
    printf("all-reduce of f32 over %d processes on %ld cores, real time\n", RANKS,
           sysconf(_SC_NPROCESSORS_ONLN));
    printf("%10s %12s %12s %8s\n", "bytes", "local, us", "Open MPI, us", "ratio");
    for (int i = 0; i < SIZES; i++)
        if (both)
            printf("%10zu %12.2f %12.2f %8.2f\n", measured[i].bytes, local[i] * 1e6,
                   mpi[i] * 1e6, mpi[i] / local[i]);
        else
            printf("%10zu %12.2f %12s %8s\n", measured[i].bytes, local[i] * 1e6, "-",
                   "-");
    if (!both)
        puts(argc > 1 ? "Open MPI was not measured: mpirun failed"
                      : "Open MPI was not measured: mpicc is not installed");
    return 0;
}
