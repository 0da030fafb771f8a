/* tests/comm/rounds.h: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* The measuring loop that bench_local.c and peer_mpi.c share. Buffers begin as ones in
 * every round and soon overflow; adding infinities takes as long as adding ones. */
#ifndef DLS_TESTS_COMM_ROUNDS_H
#define DLS_TESTS_COMM_ROUNDS_H

#include <stddef.h>
#include <time.h>

/* choose what is measured */
enum { BIG = 64 << 20, RANKS = 4 };

static const struct { size_t bytes; int rounds, repeats; } measured[] = {
    {8, 60, 500}, {1 << 10, 60, 200}, {64 << 10, 20, 50}, {1 << 20, 9, 10}, {BIG, 9, 2}};

enum { SIZES = sizeof measured / sizeof *measured };

/* Sums `count` f32 over all ranks, in place, and returns when it is done; 0, or -1. */
typedef int all_reduce(void *context, float *buffer, size_t count);

/* The largest of the ranks' values, on every rank; also a barrier. */
typedef double largest(void *context, double mine);

/* measure in rounds */
static inline double rounds_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of one all-reduce, the best of the rounds; -1: it failed. */
static inline double measure_rounds(int size, float *buffer, all_reduce *sum,
                                    largest *meet, void *context)
{
    size_t count = measured[size].bytes / sizeof *buffer;
    double best = 1e9;
    for (int round = 0; round < measured[size].rounds; round++) {
        for (size_t i = 0; i < count; i++)
            buffer[i] = 1;
        if (meet(context, 0) < 0)
            return -1;
        double start = rounds_clock();
        for (int k = 0; k < measured[size].repeats; k++)
            if (sum(context, buffer, count) != 0)
                return -1;
        double seconds = meet(context, rounds_clock() - start);
        if (seconds < 0)
            return -1;
        if (round > 0 && seconds < best) // the first one touches the memory
            best = seconds;
    }
    return best / measured[size].repeats;
}
#endif
