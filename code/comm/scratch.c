/* code/comm/scratch.c: from chapters/04-data-parallelism-ddp-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* What collectives need besides the caller's buffers: told before they are called. */
#include "comm/scratch.h"

#include "comm/choose.h"
#include "comm/comm_private.h"

/* imagine a communicator */
static dls_status refuse_number(int rank, int n)
{
    return rank >= 0 && rank < n && n <= DLS_COMM_RANKS ? DLS_OK
        : DLS_FAIL(DLS_ERR_INPUT, "rank %d of %d: expected up to %d ranks", rank, n,
                   DLS_COMM_RANKS);
}

int dls_comm_is_imagined(const dls_comm *comm) { return comm && !comm->all; }

dls_status dls_comm_imagine_ranks(dls_comm **out, int rank, const int *member, int n)
{
    DLS_TRY(refuse_number(rank, n));
    dls_world all = {.rank = member[rank]};
    DLS_TRY(dls_comm_form(&all, member, n, 0, out));
    (*out)->all = NULL;
    return dls_comm_want(*out, NULL);
}

dls_status dls_comm_imagine(dls_comm **out, int rank, int first, int stride, int n)
{
    int member[DLS_COMM_RANKS];
    DLS_TRY(refuse_number(stride < 1 ? -1 : rank, n));
    for (int r = 0; r < n; r++)
        member[r] = first + r * stride;
    return dls_comm_imagine_ranks(out, rank, member, n);
}

/* tell the scratch memory */
static dls_status scratch_of(dls_comm *comm, const char *operation, size_t count,
                             int dtype, size_t *bytes)
{
    const dls_algorithm *algorithm;
    dls_shape shape;
    size_t element;
    *bytes = 0;
    DLS_TRY(dls_comm_choose_named(comm, operation, count, dtype, &shape, &element,
                                  &algorithm));
    if (algorithm && algorithm->scratch)
        *bytes = algorithm->scratch(&shape) * element;
    return DLS_OK;
}

dls_status dls_comm_scratch_bytes(dls_comm *comm, const char *operation, size_t count,
                            int dtype, size_t *bytes)
{
    DLS_TRY(scratch_of(comm, operation, count, dtype, bytes));
    *bytes = dls_comm_piece(*bytes);
    return DLS_OK;
}

dls_status dls_comm_scratch_within(dls_comm *comm, const char *operation, size_t most,
                                   int dtype, size_t *bytes)
{
    size_t largest, one;
    DLS_TRY(scratch_of(comm, operation, most, dtype, &largest));
    for (size_t count = 1; count < most; count *= 2) {
        DLS_TRY(scratch_of(comm, operation, count, dtype, &one));
        largest = 2 * one > largest ? 2 * one : largest;
    }
    *bytes = dls_comm_piece(largest);
    return DLS_OK;
}

/* reserve scratch memory */
dls_status dls_comm_reserve(dls_comm *comm, size_t bytes, cudaStream_t stream)
{
    if (bytes == 0)
        return DLS_OK;
    int i = dls_comm_scratch_take(comm, bytes, stream);
    if (i < 0)
        return DLS_ERR_MEMORY;
    pthread_mutex_lock(&comm->all->lock);
    comm->scratch[i].used--;
    pthread_mutex_unlock(&comm->all->lock);
    return DLS_OK;
}
