/* code/kernels/grouped_internal.h: from chapters/08-mixture-of-experts-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to grouped.c and grouped.cu. */
#ifndef DLS_KERNELS_GROUPED_INTERNAL_H
#define DLS_KERNELS_GROUPED_INTERNAL_H

#include "kernels/grouped.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define a table of groups */
enum { DLS_GROUPS = 64 };       /* of one launch */

/* What a launch is told by value, 1.8 KB of the 4 that arguments may have. */
typedef struct dls_group_table {
    int groups, segments;
    int tiles[DLS_GROUPS + 1];  /* of all groups before this one; last: of all */
    int from[DLS_GROUPS + 1];   /* the group's first segment */
    int begin[DLS_GROUPS], count[DLS_GROUPS];   /* of each segment */
    void *weight[DLS_GROUPS];   /* of each group, or its gradient */
    int keep[DLS_GROUPS];       /* 1: the gradient is added to */
} dls_group_table;

typedef enum dls_grouped_step {
    DLS_GROUPED_FORWARD, DLS_GROUPED_INPUT, DLS_GROUPED_WEIGHT
} dls_grouped_step;

enum { DLS_GROUP_TILE = 32 };

/* One launch: y (rows, N) := x (rows, K) by the weights; WEIGHT: weights (N, K) from
 * y = dy (rows, N) and x (rows, K). */
dls_status dls_grouped_tiles(dls_ctx *ctx, dls_grouped_step step,
                             const dls_group_table *table, int N, int K, const void *y,
                             const void *x);

#ifdef __cplusplus
}
#endif
#endif
