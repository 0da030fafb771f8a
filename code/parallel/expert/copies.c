/* code/parallel/expert/copies.c: from chapters/08-expert-mesh.md. Edit the chapter, or edit here and run "make untangle". */
/* Stretches of a parameter set, by the group that has copies of them. */
#include "parallel/expert/copies.h"

#include "comm/scratch.h"

/* know the groups of copies */
void dls_axes_add_copies(dls_axes *axes, dls_comm *data, dls_comm *expert_data)
{
    axes->data = data;
    axes->expert_data = expert_data;
    axes->apart = expert_data != data;
}

dls_comm *dls_copies_of(const dls_axes *axes, dls_comm *data, const dls_param *p)
{
    return axes && axes->apart && p->expert ? axes->expert_data : data;
}

int dls_copies_expert_ways(const dls_axes *axes)
{
    return axes && axes->apart ? dls_comm_size(axes->expert_data) : 0;
}

/* walk over copies */
static int group_of(const dls_axes *axes, const dls_param *p)
{
    return 1 + (axes && axes->apart && p->expert);
}

int dls_copies_next(const dls_axes *axes, const dls_param *params, int n, dls_stretch *s)
{
    if (s->param == n)
        return 0;
    const dls_param *p = &params[s->param];
    *s = (dls_stretch){.first = p->offset, .owed = group_of(axes, p), .param = s->param};
    for (; s->param < n && group_of(axes, &params[s->param]) == s->owed; s->param++)
        s->count += params[s->param].count;
    return 1;
}

/* sum over copies */
/* Of a stretch: where it lies, who has copies. */
static void *at(const dls_param *params, const dls_stretch *s, void *flat, int dtype)
{
    return (char *)flat + (s->first - params->offset) * dls_comm_type_size(dtype);
}

static dls_comm *group(const dls_axes *axes, dls_comm *data, const dls_stretch *s)
{
    return s->owed == 2 ? axes->expert_data : data;
}

dls_status dls_copies_sum(const dls_axes *axes, dls_comm *data, const dls_param *params,
                          int n, void *flat, int dtype, cudaStream_t stream)
{
    for (dls_stretch s = {0}; dls_copies_next(axes, params, n, &s);)
        DLS_TRY(dls_comm_all_reduce(group(axes, data, &s), at(params, &s, flat, dtype),
                                    s.count, dtype, DLS_SUM, stream));
    return DLS_OK;
}

dls_status dls_copies_broadcast(const dls_axes *axes, dls_comm *data,
                                const dls_param *params, int n, void *flat, int dtype,
                                cudaStream_t stream)
{
    for (dls_stretch s = {0}; dls_copies_next(axes, params, n, &s);)
        DLS_TRY(dls_comm_broadcast(group(axes, data, &s), at(params, &s, flat, dtype),
                                   s.count, dtype, 0, stream));
    return DLS_OK;
}

/* weigh the sum over copies */
dls_status dls_copies_scratch(const dls_axes *axes, dls_comm *data,
                              const dls_param *params, int n, int dtype, size_t *of_data,
                              size_t *of_experts)
{
    for (dls_stretch s = {0}; dls_copies_next(axes, params, n, &s);) {
        size_t bytes = 0, *most = s.owed == 2 ? of_experts : of_data;
        dls_comm *comm = group(axes, data, &s);
        if (comm)
            DLS_TRY(dls_comm_scratch_bytes(comm, "all_reduce", s.count, dtype, &bytes));
        *most = bytes > *most ? bytes : *most;
    }
    return DLS_OK;
}

/* say who counts */
dls_counter dls_copies_counter(const dls_axes *axes, int sliced)
{
    dls_counter who = {0};
    if (!axes)
        return who;
    who.tensor_rank = axes->sharding.tensor_rank;
    who.expert_tensor_rank = axes->sharding.expert_tensor_rank;
    if (axes->apart && !sliced) {
        who.copy = dls_comm_rank(axes->data);
        who.expert_copy = dls_comm_rank(axes->expert_data);
    }
    return who;
}

dls_comm *dls_copies_counted_over(const dls_axes *axes)
{
    return !axes ? NULL : axes->apart ? axes->rows : axes->tensor;
}
