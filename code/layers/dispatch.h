/* code/layers/dispatch.h: from chapters/08-dispatch.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows on their way to experts on other ranks, and back.
 *
 *   plan        once: room on the device and on the host
 *   count       how many rows go where; every rank learns all of it
 *   rows        to the experts       } on the communication stream,
 *   combine     back again           } behind what the pass has computed
 *   wait        the pass waits for its last movement */
#ifndef DLS_LAYERS_DISPATCH_H
#define DLS_LAYERS_DISPATCH_H
#include "kernels/grouped.h"
#include "layers/layer.h"
#include "layers/moe.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define the routes */
/* Where the rows of one pass go. In the pass's host region. */
typedef struct dls_routes {
    int sent, arrived;          /* rows that leave, sorted by expert; rows that come */
    int ranks, experts;         /* of the expert group; on this rank */
    int sources;                /* ranks * expert_tensor: whose rows come */
    int own, own_first;         /* of the arrived: those that came over the expert group
                                   and not from neighbours of expert_tensor */
    int *counts;                /* [sources * E]: rows of each source for each expert;
                                   source t * ranks + e is rank e of the expert group of
                                   this rank's neighbour t */
    int segments;               /* sorted by place in the buffer, source by source */
    dls_segment *segment;       /* [sources * experts] */
    /* one-sided, whose host knows no counts */
    const int *going;           /* device (E): rows that leave for each expert */
    int *coming;                /* device: rows that came to each place */
    int block;                  /* the most that a place has; else 0 */
} dls_routes;

/* describe a dispatch */

/* What one expert layer has to know of its dispatch; a plain structure. */
typedef struct dls_dispatch {
    dls_sharding sharding;
    dls_moe moe;
    int columns;                /* C */
    int sent_room, room;        /* the most rows that can leave; that can arrive */
    size_t host, scratch;       /* slots */
    int block;                  /* one-sided: rows of a place, and a slot of the stash */
    size_t numbers;
} dls_dispatch;

/* declare the dispatch */
/* 1: rows leave this rank. 0: a group of one; arrived rows are the sent rows, and may lie
 * in the same place. */
int dls_dispatch_moves(const dls_sharding *s);

/* DLS_ERR_INPUT: experts that ranks can not share equally. */
dls_status dls_dispatch_check(const dls_sharding *s, const dls_moe *m);

/* Describes the dispatch of rows (., columns), of which each rank has up to `rows`, in
 * sequences of T; reserves device scratch, until the caller's mark, and host memory. The
 * buffers of sent (sent_room, C) and arrived rows (room, C) are the caller's. */
void dls_dispatch_plan(dls_dispatch *out, dls_plan *plan, const dls_sharding *s,
                       const dls_moe *m, int rows, int T, int columns);

/* One-sided: bytes of the window that all expert layers of a rank share; else 0. */
size_t dls_one_sided_bytes(const dls_sharding *s, const dls_moe *m, int rows, int T,
                           int columns, dls_dtype dtype);

/* Fills the pass's routes, from this rank's rows for each expert, counts (E) device i32.
 * Waits for the context's stream. known: the same on the host, if that is decided without
 * a look at the scores; else NULL. Collective over the expert group: every rank calls it,
 * with rows or without. What one rank can not take is an error on all of them. */
dls_status dls_dispatch_count(const dls_pass *p, const dls_dispatch *d, const int *counts,
                              const int *known);

/* The routes of the pass, since they were counted: for its backward half as well. */
const dls_routes *dls_dispatch_routes(const dls_pass *p, const dls_dispatch *d);

/* arrived (r->arrived, C) := the rows (r->sent, C) of all ranks for the experts of this
 * one. Enqueued on axes->stream, behind what the context's stream has now. Collective. */
dls_status dls_dispatch_rows(const dls_pass *p, const dls_dispatch *d, void *arrived,
                             const void *rows);

/* The way back: rows (r->sent, C) := what stands in their places in arrived; with
 * expert_tensor the sum over the shares. */
dls_status dls_combine_rows(const dls_pass *p, const dls_dispatch *d, void *rows,
                            const void *arrived);


/* The context's stream waits for this pass's last dispatch or combine. */
dls_status dls_dispatch_wait(const dls_pass *p);

/* Rows of a source for the experts of rank e of the expert group. */
int dls_routes_rows(const dls_routes *r, int source, int e);

/* Bytes of a row on the wire over the expert group, there or back. */
size_t dls_dispatch_row_bytes(const dls_dispatch *d, dls_dtype dtype, int back);
#ifdef __cplusplus
}
#endif
#endif
