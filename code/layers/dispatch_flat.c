/* code/layers/dispatch_flat.c: from chapters/08-dispatch.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows from everybody to everybody: one all-to-all with a size for each pair of ranks. */
#include "layers/dispatch_internal.h"

#include <string.h>

#include "vgpu/gpu.h"

/* exchange the rows */
static void bytes_by_rank(const dls_axes *a, const dls_routes *r, size_t row,
                          size_t *leaves, size_t *comes)
{
    int me = a->expert ? a->sharding.expert_rank : 0;
    int first = (a->expert_tensor ? a->sharding.expert_tensor_rank : 0) * r->ranks;
    for (int e = 0; e < r->ranks; e++) {
        leaves[e] = dls_routes_rows(r, first + me, e) * row;
        comes[e] = dls_routes_rows(r, first + e, me) * row;
    }
}

static void pile_up(const size_t *bytes, size_t *at, int n)
{
    at[0] = 0;
    for (int e = 1; e < n; e++)
        at[e] = at[e - 1] + bytes[e - 1];
}

dls_status dls_dispatch_flat(const dls_axes *a, const dls_routes *r, void *to,
                             const void *from, size_t bytes, int back)
{
    int n = r->ranks;
    size_t leaves[n], leaves_at[n], comes[n], comes_at[n];
    bytes_by_rank(a, r, bytes, back ? comes : leaves, back ? leaves : comes);
    pile_up(leaves, leaves_at, n);
    pile_up(comes, comes_at, n);
    if (a->expert)
        return dls_comm_all_to_all_v(a->expert, from, leaves, leaves_at, to, comes,
                                     comes_at, DLS_COMM_U8, a->stream);
    if (leaves[0])
        DLS_CUDA(cudaMemcpyAsync(to, from, leaves[0], cudaMemcpyDeviceToDevice,
                                 a->stream));
    return DLS_OK;
}
