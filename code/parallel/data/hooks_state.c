/* code/parallel/data/hooks_state.c: from chapters/04-data-parallelism-hooks-state.md. Edit the chapter, or edit here and run "make untangle". */
/* What a hook keeps, copied out and put back; into the same world or into another. */
#include <stdlib.h>
#include <string.h>

#include "parallel/data/hooks.h"
#include "vgpu/gpu.h"

/* copy the state of a hook */
static size_t kept_bytes(const dls_hook *h, int world)
{
    dls_hook_kept kept[DLS_HOOK_KEPT];
    size_t bytes = 0;
    int n = h->kind->kept ? h->kind->kept(h, world, kept) : 0;
    for (int i = 0; i < n; i++)
        bytes += kept[i].bytes;
    return bytes;
}

size_t dls_hook_state_bytes(const dls_hook *h)
{
    return kept_bytes(h, dls_comm_size(h->comm));
}

static dls_status copy(const dls_hook *h, char *host, enum cudaMemcpyKind direction)
{
    dls_hook_kept kept[DLS_HOOK_KEPT];
    int n = h->kind->kept ? h->kind->kept(h, dls_comm_size(h->comm), kept) : 0;
    DLS_TRY(dls_ctx_sync(h->wire));
    for (int i = 0; i < n; host += kept[i++].bytes)
        if (direction == cudaMemcpyDeviceToHost)
            DLS_CUDA(cudaMemcpy(host, kept[i].data, kept[i].bytes, direction));
        else
            DLS_CUDA(cudaMemcpy(kept[i].data, host, kept[i].bytes, direction));
    return DLS_OK;
}

dls_status dls_hook_fetch(const dls_hook *h, void *host)
{
    return copy(h, host, cudaMemcpyDeviceToHost);
}

/* put the state of a hook */
static dls_status check_bytes(const dls_hook *h, const size_t *bytes, int n)
{
    size_t want = kept_bytes(h, n);
    for (int i = 0; i < n; i++)
        if (bytes[i] != want)
            return DLS_FAIL(DLS_ERR_INPUT, "hook %s: rank %d of %d has kept %zu bytes, "
                            "expected %zu", dls_hook_name(h->options.choice), i, n,
                            bytes[i], want);
    return DLS_OK;
}

dls_status dls_hook_put(dls_hook *h, const char *const *states, const size_t *bytes,
                        int n)
{
    int rank = dls_comm_rank(h->comm);
    size_t mine = dls_hook_state_bytes(h);
    DLS_TRY(check_bytes(h, bytes, n));
    if (n == dls_comm_size(h->comm))
        return copy(h, (char *)states[rank], cudaMemcpyHostToDevice);
    char *joined = calloc(1, mine + 1);
    if (!joined)
        return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for the state of a hook");
    h->kind->join(h, joined, states, n);
    dls_status s = copy(h, joined, cudaMemcpyHostToDevice);
    free(joined);
    return s;
}

/* join what is owed */
void dls_hook_add(const dls_hook *h, void *to, const void *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (h->wire->dtype == DLS_F64)
            ((double *)to)[i] += ((const double *)from)[i];
        else
            ((float *)to)[i] += ((const float *)from)[i];
}

void dls_hook_join_errors(const dls_hook *h, char *joined, const char *const *states,
                          int n)
{
    size_t elements = h->buckets[0].first + h->buckets[0].count;
    for (int j = dls_comm_rank(h->comm); j < n; j += dls_comm_size(h->comm))
        dls_hook_add(h, joined, states[j], elements);
}
