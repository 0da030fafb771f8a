/* tests/comm/peer_mpi.c: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* Open MPI's all-reduce in the loop of rounds.h: bytes, µs. Built when mpicc is there. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "rounds.h"

/* sum with mpi */
static int sum_mpi(void *context, float *buffer, size_t count)
{
    (void)context;
    return MPI_Allreduce(MPI_IN_PLACE, buffer, (int)count, MPI_FLOAT, MPI_SUM,
                         MPI_COMM_WORLD) == MPI_SUCCESS ? 0 : -1;
}

static double largest_mpi(void *context, double mine)
{
    double all;
    (void)context;
    if (MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD) != MPI_SUCCESS)
        return -1;
    return all;
}

int main(int argc, char **argv)
{
    int rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    float *buffer = malloc(BIG);
    for (int i = 0; buffer && i < SIZES; i++) {
        double seconds = measure_rounds(i, buffer, sum_mpi, largest_mpi, NULL);
        if (rank == 0)
            printf("%zu %.3f\n", measured[i].bytes, seconds * 1e6);
    }
    free(buffer);
    return MPI_Finalize();
}
