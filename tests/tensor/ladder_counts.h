/* tests/tensor/ladder_counts.h: from chapters/02-gemm-ladder-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* What each step of the ladder must ask of memory, for any size: derived by hand. */
#ifndef DLS_TESTS_LADDER_COUNTS_H
#define DLS_TESTS_LADDER_COUNTS_H

/* declare the counts */
typedef struct ladder_traffic {
    long requests;
    long pieces;  // sectors of device memory; wavefronts of shared memory
} ladder_traffic;

typedef struct ladder_counts {
    ladder_traffic load, store;                // device memory
    ladder_traffic shared_load, shared_store;  // shared memory
    long cold;   // bytes of DRAM when nothing is in the cache at the start
    long flops;  // zeros beyond the edges included
} ladder_counts;

/* For alpha = 1 and beta = 0. */
ladder_counts ladder_count(int step, int M, int N, int K);

#endif
