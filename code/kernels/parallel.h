/* code/kernels/parallel.h: from chapters/09-transformer-cpu.md. Edit the chapter, or edit here and run "make untangle". */
/* Dividing the loops of host kernels among threads so that the threads do not show:
 *
 *     DLS_PARALLEL(elements)
 *     for (size_t from = 0; from < n; from += DLS_BLOCK) { ... }
 *
 * The pieces follow from the sizes alone, and no sum is divided but into a fixed number
 * of parts that are added in order. A loop over few elements stays on one thread. */
#ifndef DLS_KERNELS_PARALLEL_H
#define DLS_KERNELS_PARALLEL_H

#include <stddef.h>

/* divide loops among threads */
enum {
    DLS_WORTH = 1 << 14, // elements that are worth a second thread
    DLS_BLOCK = 1 << 12, // elements of a block
    DLS_COLUMNS = 128    // columns of a block, where rows are added up
};

#define DLS_OMP(...) DLS_OMP_TEXT(__VA_ARGS__)
#define DLS_OMP_TEXT(...) _Pragma(#__VA_ARGS__)
#define DLS_PARALLEL(elements) \
    DLS_OMP(omp parallel for schedule(static) if ((elements) >= DLS_WORTH))
/* For pieces of unequal size: whoever is free takes the next. */
#define DLS_PARALLEL_TASKS(work) \
    DLS_OMP(omp parallel for schedule(dynamic) if ((work) >= DLS_WORTH))

static inline size_t dls_block_end(size_t from, size_t n)
{
    return n - from < DLS_BLOCK ? n : from + DLS_BLOCK;
}

static inline int dls_columns_end(int from, int n)
{
    return n - from < DLS_COLUMNS ? n : from + DLS_COLUMNS;
}

#endif
