/* code/parallel/pipeline/pairs.h: from chapters/08-dualpipe-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* An F and a backward pass that run together: which of them runs when.
 *
 *   backward   wdy ─┐        ┌ experts' I ─┐        ┌ experts' W, attention
 *   forward         └ attention ┐          └ experts ┐         └ sum, next attention
 *              combine B  dispatch F   dispatch B  combine F      beside the computation
 */
#ifndef DLS_PARALLEL_PIPELINE_PAIRS_H
#define DLS_PARALLEL_PIPELINE_PAIRS_H

#include "layers/param.h"
#include "parallel/pipeline/coroutine.h"
#include "parallel/pipeline/schedule.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the order of turns */
enum { DLS_PAIR_TURNS = 64, DLS_PAIR_FORWARD = 0, DLS_PAIR_BACKWARD = 1 };

/* Whose turn it is, one after the other and then from the front again. A turn goes from
 * one point to the next; the turn of a pass that has ended is the other's. */
typedef struct dls_pair_order {
    int n;
    uint8_t turn[DLS_PAIR_TURNS];
} dls_pair_order;

/* declare the pairs */
/* Reads "b f b f": f forward, b backward, blanks where you like. NULL: "b f".
 * DLS_ERR_INPUT with `what` in front: something else, nothing, or too much. */
dls_status dls_pair_order_read(const char *what, const char *text, dls_pair_order *out);

/* How many actions from list[at] on take turns: 2 for an F that is paired with the I or B
 * behind it, else 1. */
size_t dls_pair_size(const dls_actions *list, size_t at);

/* 1: a pair of the rank has both of its passes in this stage. */
int dls_schedule_pairs_within(const dls_schedule *s, int rank, int stage);

/* Of a pipeline: its order, and a stack for each of the two. */
typedef struct dls_pairs {
    dls_pair_order order;
    dls_coroutine *pass[2];         /* NULL: the rank has no pairs */
    dls_point_hook points;
} dls_pairs;

#ifdef __cplusplus
}
#endif
#endif
