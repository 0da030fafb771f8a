/* code/layers/dispatch_internal.h: from chapters/08-dispatch.md. Edit the chapter, or edit here and run "make untangle". */
/* Shared by the sources of dispatch, and by nobody else. */
#ifndef DLS_LAYERS_DISPATCH_INTERNAL_H
#define DLS_LAYERS_DISPATCH_INTERNAL_H

#include "layers/dispatch.h"

/* declare the inside of dispatch */
/* At least one. */
static inline int dls_at_least_one(int n) { return n > 1 ? n : 1; }

/* Bytes of scratch memory in front of those for rows. */
size_t dls_dispatch_counts_bytes(const dls_dispatch *d);

/* Moves rows of `bytes` bytes over the expert group, on axes->stream: from (r->sent) in
 * the order of experts to the own section (r->own); back: from that to (r->sent). */
typedef dls_status dls_dispatch_move(const dls_axes *a, const dls_routes *r, void *to,
                                     const void *from, size_t bytes, int back);
dls_dispatch_move dls_dispatch_flat, dls_dispatch_one_sided;

/* The parts of a one-sided dispatch. block: rows of a place. */
void dls_one_sided_plan(dls_dispatch *d, dls_plan *plan, int block);
dls_status dls_one_sided_count(const dls_pass *p, const dls_dispatch *d, dls_routes *r,
                               const int *counts, const int *known);

/* Behind a movement that is enqueued: the pass can wait for it. */
dls_status dls_dispatch_moved(const dls_pass *p);

/* What is really on the wire: the model's type stands as DLS_ROWS_SAME. */
dls_row_type dls_dispatch_row_type(const dls_dispatch *d, dls_dtype dtype, int back);
dls_status dls_dispatch_pack(dls_ctx *ctx, dls_row_type type, void *wire,
                             const void *rows, int n, int C);
dls_status dls_dispatch_unpack(dls_ctx *ctx, dls_row_type type, void *rows,
                               const void *wire, int n, int C);
#endif
