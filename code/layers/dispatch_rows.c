/* code/layers/dispatch_rows.c: from chapters/08-dispatch.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows to the experts and back, on the communication stream. */
#include "layers/dispatch_internal.h"

#include "vgpu/gpu.h"

/* keep rows under way apart */
dls_status dls_dispatch_wait(const dls_pass *p)
{
    (void)p;
    return DLS_OK;
}

/* move the rows */
static dls_status stay(const dls_pass *p, const dls_dispatch *d, void *to,
                       const void *from)
{
    size_t row = d->columns * dls_dtype_size(p->ctx->dtype);
    size_t bytes = dls_dispatch_routes(p, d)->sent * row;
    if (to != from && bytes)
        DLS_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice,
                                 p->ctx->stream));
    return DLS_OK;
}

dls_status dls_dispatch_rows(const dls_pass *p, const dls_dispatch *d, void *arrived,
                             const void *rows)
{
    return stay(p, d, arrived, rows);
}

dls_status dls_combine_rows(const dls_pass *p, const dls_dispatch *d, void *rows,
                            const void *arrived)
{
    return stay(p, d, rows, arrived);
}
