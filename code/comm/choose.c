/* code/comm/choose.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* Choosing an algorithm: what the user wants. */
#include "comm/choose.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* list the algorithms */
const dls_algorithm dls_algorithms[] = {
    {DLS_MESSAGE_ALL_REDUCE, "ring", dls_ring_all_reduce, NULL, NULL},
    {DLS_MESSAGE_ALL_REDUCE, "direct", dls_direct_all_reduce, NULL, NULL},
    {DLS_MESSAGE_REDUCE_SCATTER, "ring", dls_ring_reduce_scatter, dls_ring_scratch, NULL},
    {DLS_MESSAGE_REDUCE_SCATTER, "direct", dls_direct_reduce_scatter, NULL, NULL},
    {DLS_MESSAGE_ALL_GATHER, "ring", dls_ring_all_gather, NULL, NULL},
    {DLS_MESSAGE_ALL_GATHER, "direct", dls_direct_all_gather, NULL, NULL},
    {DLS_MESSAGE_BROADCAST, "chain", dls_chain_broadcast, NULL, NULL},
    {DLS_MESSAGE_BROADCAST, "direct", dls_direct_broadcast, NULL, NULL},
    {DLS_MESSAGE_REDUCE, "chain", dls_chain_reduce, NULL, NULL},
    {DLS_MESSAGE_REDUCE, "direct", dls_direct_reduce, NULL, NULL},
    {DLS_MESSAGE_GATHER, "direct", dls_direct_gather, NULL, NULL},
    {DLS_MESSAGE_SCATTER, "direct", dls_direct_scatter, NULL, NULL},
    {DLS_MESSAGE_ALL_TO_ALL, "pairwise", dls_pairwise_all_to_all, NULL, NULL},
    {DLS_MESSAGE_ALL_TO_ALL, "direct", dls_direct_all_to_all, NULL, NULL},
    {DLS_MESSAGE_ALL_TO_ALL_V, "pairwise", dls_pairwise_all_to_all, NULL, NULL},
    {DLS_MESSAGE_ALL_TO_ALL_V, "direct", dls_direct_all_to_all, NULL, NULL},
};
const int dls_algorithm_count = sizeof dls_algorithms / sizeof *dls_algorithms;

/* remember what is wanted */
static const char *const operation[DLS_MESSAGE_KINDS] = {
    [DLS_MESSAGE_ALL_REDUCE] = "all_reduce",
    [DLS_MESSAGE_BROADCAST] = "broadcast",
    [DLS_MESSAGE_REDUCE_SCATTER] = "reduce_scatter",
    [DLS_MESSAGE_ALL_GATHER] = "all_gather",
    [DLS_MESSAGE_REDUCE] = "reduce",
    [DLS_MESSAGE_GATHER] = "gather",
    [DLS_MESSAGE_SCATTER] = "scatter",
    [DLS_MESSAGE_ALL_TO_ALL] = "all_to_all",
    [DLS_MESSAGE_ALL_TO_ALL_V] = "all_to_all_v"};

const dls_algorithm *dls_algorithm_find(dls_message_kind kind, const char *name,
                                        size_t size)
{
    for (int i = 0; i < dls_algorithm_count; i++)
        if (dls_algorithms[i].kind == kind && strlen(dls_algorithms[i].name) == size &&
            memcmp(dls_algorithms[i].name, name, size) == 0)
            return &dls_algorithms[i];
    return NULL;
}

dls_message_kind dls_operation_find(const char *name, size_t size)
{
    for (int k = 1; k < DLS_MESSAGE_KINDS; k++)
        if (operation[k] && strlen(operation[k]) == size &&
            memcmp(operation[k], name, size) == 0)
            return (dls_message_kind)k;
    return 0;
}

/* *kind and *out := of the item at *list, which moves on; 0: no more, -1: a mistake. */
static int next_wanted(const char **list, dls_message_kind *kind,
                       const dls_algorithm **out)
{
    size_t size = strcspn(*list, ","), colon = strcspn(*list, ":,");
    const char *item = *list;
    if (size == 0)
        return 0;
    *list += size + (item[size] == ',');
    if (item[colon] != ':')
        return -1;
    *kind = dls_operation_find(item, colon);
    *out = dls_algorithm_find(*kind, item + colon + 1, size - colon - 1);
    return *out ? 1 : -1;
}

dls_status dls_comm_want(dls_comm *comm, const char *wanted)
{
    const char *from = wanted ? "algorithm" : "DLS_ALGORITHM";
    const char *list = wanted ? wanted : getenv("DLS_ALGORITHM");
    const dls_algorithm *algorithm;
    dls_message_kind kind;
    int rc;
    snprintf(comm->wanted, sizeof comm->wanted, "%s", list ? list : "");
    if (list && strlen(list) >= sizeof comm->wanted)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: longer than %zu characters", from,
                        sizeof comm->wanted - 1);
    for (list = comm->wanted; (rc = next_wanted(&list, &kind, &algorithm)) != 0;)
        if (rc < 0)
            return DLS_FAIL(DLS_ERR_INPUT, "%s=%s: expected a list such as "
                            "all_reduce:ring,broadcast:chain", from, comm->wanted);
    return DLS_OK;
}

/* choose an algorithm */
enum { BLOCK = 128 << 10 }; // bytes of a piece of a chain

dls_status dls_comm_choose(dls_comm *comm, int kind, dls_shape *shape, size_t element,
                           const dls_algorithm **out)
{
    const char *list = comm->wanted;
    const dls_algorithm *algorithm;
    dls_message_kind wanted;
    shape->block = BLOCK / element;
    *out = NULL;
    for (int i = dls_algorithm_count - 1; i >= 0; i--)
        if ((int)dls_algorithms[i].kind == kind)
            *out = &dls_algorithms[i];
    while (next_wanted(&list, &wanted, &algorithm) > 0)
        if ((int)wanted == kind)
            *out = algorithm;
    if ((*out)->fits && !(*out)->fits(shape))
        return DLS_FAIL(DLS_ERR_INPUT, "the %s algorithm does not fit %d ranks",
                        (*out)->name, shape->world);
    return DLS_OK;
}
