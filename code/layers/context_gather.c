/* code/layers/context_gather.c: from chapters/06-context-parallelism-ways.md. Edit the chapter, or edit here and run "make untangle". */
/* All blocks of keys and values at once; see context.h. */
#include "comm/comm.h"
#include "layers/context_internal.h"

/* gather all keys */
// Elements of a slot, keys and values of the longest member.
static size_t slot(const dls_member *r)
{
    return (size_t)r->most * 2 * r->shape.Hk * r->shape.D;
}

static dls_status gather(const dls_context_pass *p, const char *k, const char *v)
{
    const dls_member *r = &p->r;
    char *own = p->at.kv[0] + r->member * slot(r) * r->size;
    DLS_TRY(dls_context_pack(p, own, k, v));
    DLS_TRY(dls_context_ready(p));
    return slot(r) == 0 ? DLS_OK
                        : dls_comm_all_gather(r->axes->ring, own, p->at.kv[0], slot(r),
                                              p->ctx->dtype, r->axes->stream);
}

/* attend to all */
dls_status dls_context_gather_forward(const dls_context_pass *p, char *out, const char *k,
                                      const char *v)
{
    const dls_member *r = &p->r;
    int n = r->members, C = r->shape.H * r->shape.D;
    DLS_TRY(gather(p, k, v));
    for (int t = 0; t < n; t++) {
        int s = (r->member - t + n) % n;
        DLS_TRY(dls_context_attend(p, s, p->at.kv[0] + s * slot(r) * r->size));
        if (t == 0)
            DLS_TRY(dls_context_arrived(p));
    }
    return dls_merge_store(p->ctx, dls_member_rows(r, r->member), C, out, r->shape.o_row,
                           p->at.sum, C);
}

dls_status dls_context_gather_backward(const dls_context_pass *p, char *dk, char *dv,
                                       const char *k, const char *v)
{
    const dls_member *r = &p->r;
    int n = r->members;
    size_t bytes = slot(r) * r->wide;
    char *sums = p->at.dkv[0];
    DLS_TRY(gather(p, k, v));
    DLS_CUDA(cudaMemsetAsync(sums, 0, n * bytes, p->ctx->stream));
    for (int t = 0; t < n; t++) {
        int s = (r->member - t + n) % n;
        /* walk back over a slot */
        DLS_TRY(dls_context_walk_back(p, s, p->at.kv[0] + s * slot(r) * r->size,
                                      sums + s * bytes));
        if (t == 0)
            DLS_TRY(dls_context_arrived(p));
    }
    /* bring the gradients home */
    DLS_TRY(dls_context_ready(p));
    if (bytes > 0)
        DLS_TRY(dls_comm_reduce_scatter(r->axes->ring, sums, sums + r->member * bytes,
                                        slot(r), dls_dtype_accumulator(p->ctx->dtype),
                                        DLS_SUM, r->axes->stream));
    DLS_TRY(dls_context_arrived(p));
    return dls_context_unpack(p, dk, dv, sums + r->member * bytes);
}
