/* code/layers/dispatch.h: from chapters/08-dispatch.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows on their way to experts on other ranks, and back. */
#ifndef DLS_LAYERS_DISPATCH_H
#define DLS_LAYERS_DISPATCH_H
#include "layers/layer.h"
#include "layers/moe.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define the routes */
/* A stretch of the rows that arrived: those of one source for one expert of this rank. */
typedef struct dls_segment {
    int expert;                 /* 0 ... experts of this rank - 1 */
    int begin, count;           /* rows of the buffer of arrived rows */
} dls_segment;

/* Where the rows of one pass go. On the host, in the pass's host region. */
typedef struct dls_routes {
    int sent, arrived;          /* rows that leave, sorted by expert; rows that come */
    int ranks, experts;         /* of the expert group; on this rank */
    int *counts;                /* [ranks * E]: rows of each source for each expert */
    int segments;               /* sorted by place in the buffer */
    dls_segment *segment;
} dls_routes;

/* declare the dispatch */
/* Bytes of the host region that the routes of one pass take. */
size_t dls_routes_bytes(const dls_sharding *s, const dls_moe *m);

/* The most rows that can arrive when each rank of the group has `rows` tokens, in
 * sequences of T. */
int dls_dispatch_room(const dls_sharding *s, const dls_moe *m, int rows, int T);

/* Fills the routes, whose arrays lie in `host`, from counts (E) device int32: this rank's
 * rows for each expert. Waits for the context's stream. Collective over the expert group:
 * every rank calls it, with rows or without. */
dls_status dls_dispatch_count(const dls_pass *p, const dls_moe *m, const int *counts,
                              void *host, dls_routes *out);

/* arrived (r->arrived, C) := the rows (r->sent, C) of all ranks for the experts of this
 * one. Enqueued on the communication stream, behind what the context's stream has now.
 * Collective. Room: dls_dispatch_plan_room at plan time. */
dls_status dls_dispatch_rows(const dls_pass *p, const dls_routes *r, void *arrived,
                             const void *rows, int columns);

/* The way back: rows (r->sent, C) := what stands in their places in arrived. With
 * expert_tensor > 1 the sum of all shares. */
dls_status dls_combine_rows(const dls_pass *p, const dls_routes *r, void *rows,
                            const void *arrived, int columns);

/* The context's stream waits for this pass's last dispatch or combine. */
dls_status dls_dispatch_wait(const dls_pass *p);

/* Reserves what the two need besides their buffers. */
void dls_dispatch_plan_room(dls_plan *plan, const dls_sharding *s, const dls_moe *m,
                            int columns);
#ifdef __cplusplus
}
#endif
#endif
