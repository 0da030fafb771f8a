/* code/layers/expert_axes.c: from chapters/08-dispatch.md. Edit the chapter, or edit here and run "make untangle". */
/* The groups of ranks that share experts, added to the axes of a cut model. */
#include "layers/sharding.h"

#include <stdlib.h>

#include "comm/scratch.h"
#include "comm/window.h"
#include "layers/dispatch_nodes.h"

#include "vgpu/gpu.h"

/* join the experts */
static dls_status agree(const char *axis, int ranks, int rank, const dls_comm *comm)
{
    int size = comm ? dls_comm_size(comm) : 1, number = comm ? dls_comm_rank(comm) : 0;
    ranks = ranks > 1 ? ranks : 1;
    return ranks == size && (ranks == 1 || rank == number) ? DLS_OK
        : DLS_FAIL(DLS_ERR_INPUT, "the %s axis: expected rank %d of %d, got rank %d of "
                   "%d", axis, rank, ranks, number, size);
}

static dls_status make_moves(dls_axes *a)
{
    a->moves = calloc(DLS_AXES_MOVES, sizeof *a->moves);
    if (!a->moves)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the moves of rows");
    for (int i = 0; i < DLS_AXES_MOVES; i++)
        DLS_CUDA(cudaEventCreateWithFlags(&a->moves[i].done, cudaEventDisableTiming));
    return DLS_OK;
}

dls_status dls_axes_add_experts(dls_axes *a, dls_comm *expert, dls_comm *expert_tensor,
                                dls_comm *rows)
{
    const dls_sharding *s = &a->sharding;
    DLS_TRY(agree("expert", s->expert, s->expert_rank, expert));
    DLS_TRY(agree("expert tensor", s->expert_tensor, s->expert_tensor_rank,
                  expert_tensor));
    a->expert = expert;
    a->expert_tensor = expert_tensor;
    a->rows = rows;
    if (expert && !dls_comm_is_imagined(expert))
        DLS_TRY(dls_comm_split(expert, 0, s->expert_rank, &a->counts));
    if (expert_tensor && !dls_comm_is_imagined(expert_tensor))
        DLS_TRY(dls_comm_split(expert_tensor, 0, s->expert_tensor_rank, &a->shares));
    if (s->dispatch == DLS_DISPATCH_NODES)
        DLS_TRY(dls_axes_add_nodes(a));
    if (s->dispatch == DLS_DISPATCH_ONE_SIDED && expert &&
        !(a->window = calloc(1, sizeof *a->window)))
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a window");
    return expert || expert_tensor ? make_moves(a) : DLS_OK;
}

void dls_axes_drop_experts(dls_axes *a)
{
    dls_comm_destroy(a->counts);
    dls_comm_destroy(a->shares);
    dls_comm_destroy(a->node);
    dls_comm_destroy(a->across);
    for (int i = 0; a->moves && i < DLS_AXES_MOVES; i++)
        if (a->moves[i].done)
            cudaEventDestroy(a->moves[i].done);
    free(a->moves);
    dls_window_close(a->window ? a->window->window : NULL);
    free(a->window);
    a->counts = a->shares = a->node = a->across = NULL;
    a->moves = NULL;
    a->window = NULL;
}
