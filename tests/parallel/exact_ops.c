/* tests/parallel/exact_ops.c: from chapters/07-proof-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* Exact operations in the stream. */
#include "exact_ops.h"

#include <stdlib.h>

/* run a whole number operation */
static int run_op(void *arg, double start, double *finish)
{
    const exact_op *o = arg;
    o->fn(o);
    *finish = start + 1e-6;
    return 0;
}

dls_status exact_enqueue(dls_ctx *ctx, exact_op o, const char *name)
{
    exact_op *copy = malloc(sizeof *copy);
    if (!copy)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %s", name);
    o.dtype = ctx->dtype;
    *copy = o;
    dls_gpu_op op = {.name = name, .kind = DLS_GPU_COMPUTE, .run = run_op,
                     .destroy = free};
    DLS_CUDA(dls_gpu_enqueue(ctx->stream, &op, copy));
    return DLS_OK;
}

/* limit whole numbers */
void exact_limit(const exact_op *o)
{
    for (size_t i = 0; i < (size_t)o->rows * o->in; i++)
        exact_set(o, 0, i, exact_cut(exact_get(o, 1, i), o->scale));
}
