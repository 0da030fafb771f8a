/* code/comm/split.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* Communicators of some of the ranks, each with a context of its own. */
#include <stdlib.h>
#include <string.h>

#include "comm/comm_private.h"
#include "comm/native.h"

/* agree on the members */
typedef struct bid { int color, key, next_context; } bid;

/* member (up to 64) := the world's ranks of my color, in order; returns how many. */
static int members_of(const dls_comm *comm, const bid *bids, int *member)
{
    int place[DLS_COMM_RANKS], n = 0;
    for (int r = 0; r < comm->world; r++) {
        if (bids[r].color != bids[comm->rank].color)
            continue;
        int i = n++;
        for (; i > 0 && bids[place[i - 1]].key > bids[r].key; i--)
            place[i] = place[i - 1];
        place[i] = r;
    }
    for (int i = 0; i < n; i++)
        member[i] = comm->member[place[i]];
    return n;
}

/* make a communicator of members */
/* Ranks on each node, if they are as many on all, in order; else 0. */
static int count_per_node(const dls_cluster *cluster, const int *member, int n)
{
    int size = 1;
    while (size < n && member[size] / cluster->gpus_per_node ==
                           member[0] / cluster->gpus_per_node)
        size++;
    for (int i = 0; i < n; i++)
        if (n % size || member[i] / cluster->gpus_per_node !=
                            member[i / size * size] / cluster->gpus_per_node)
            return 0;
    for (int i = size; i < n; i += size)
        for (int j = 0; j < i; j += size)
            if (member[i] / cluster->gpus_per_node == member[j] / cluster->gpus_per_node)
                return 0;
    return size;
}

dls_status dls_comm_form(dls_world *all, const int *member, int n, int context,
                         dls_comm **out)
{
    dls_comm *comm = calloc(1, sizeof *comm);
    dls_link *links = calloc((size_t)n * (size_t)n, sizeof *links);
    dls_status status = DLS_OK;
    if (!comm || !links)
        DLS_TRY_GOTO(status, DLS_FAIL(DLS_ERR_MEMORY, "no memory for a communicator"),
                     fail);
    *comm = (dls_comm){.all = all, .world = n, .context = context, .links = links};
    memcpy(comm->member, member, (size_t)n * sizeof *member);
    while (comm->member[comm->rank] != all->rank)
        comm->rank++;
    if (n > 1) {
        comm->per_node = count_per_node(dls_gpu_cluster(), member, n);
        DLS_TRY_GOTO(status, dls_links_measure(dls_gpu_cluster(), member, n, links),
                     fail);
    }
    if (n > 1 && all->transport)    // none: it is only imagined
        DLS_TRY_GOTO(status, all->transport->calls->open(all->transport, context), fail);
    all->communicators++;
    *out = comm;
    return DLS_OK;
fail:
    free(links);
    free(comm);
    return status;
}

/* split a communicator */
dls_status dls_comm_split(dls_comm *comm, int color, int key, dls_comm **out)
{
    bid mine = {color < 0 ? -1 : color, key, comm->all->next_context};
    bid bids[DLS_COMM_RANKS];
    int member[DLS_COMM_RANKS], context = 0;
    *out = NULL;
    DLS_TRY(dls_comm_all_gather_host(comm, &mine, sizeof mine, bids));
    for (int r = 0; r < comm->world; r++)
        context = bids[r].next_context > context ? bids[r].next_context : context;
    if (comm->world > 1 && context >= DLS_LOCAL_CONTEXTS)
        return DLS_FAIL(DLS_ERR_STATE, "a rank has been in %d communicators: no more",
                        DLS_LOCAL_CONTEXTS);
    comm->all->next_context = context + 1;
    if (color < 0)
        return DLS_OK;
    int n = members_of(comm, bids, member);
    DLS_TRY(dls_comm_form(comm->all, member, n, context, out));
    memcpy((*out)->wanted, comm->wanted, sizeof comm->wanted);
    if (comm->native)
        DLS_TRY(dls_native_open(*out, &(*out)->native));
    return DLS_OK;
}

int dls_comm_world_rank(const dls_comm *comm, int rank)
{
    return comm->member[rank];
}
