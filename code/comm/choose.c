/* code/comm/choose.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* Choosing an algorithm: what the user wants, else what costs least. */
#include "comm/choose.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/cost.h"

/* list the algorithms */
#define AR DLS_MESSAGE_ALL_REDUCE
#define RS DLS_MESSAGE_REDUCE_SCATTER
#define AG DLS_MESSAGE_ALL_GATHER
const dls_algorithm dls_algorithms[] = {
    {AR, "ring", dls_ring_all_reduce, NULL, NULL},
    {AR, "halving", dls_halving_all_reduce, NULL, NULL},
    {AR, "doubling", dls_doubling_all_reduce, dls_doubling_scratch, NULL},
    {AR, "tree", dls_double_tree_all_reduce, NULL, NULL},
    {AR, "hierarchical", dls_hierarchical_all_reduce, NULL, dls_hierarchical_fits},
    {AR, "direct", dls_direct_all_reduce, NULL, NULL},
    {RS, "ring", dls_ring_reduce_scatter, dls_ring_scratch, NULL},
    {RS, "halving", dls_halving_reduce_scatter, dls_halving_scratch, NULL},
    {RS, "direct", dls_direct_reduce_scatter, NULL, NULL},
    {AG, "ring", dls_ring_all_gather, NULL, NULL},
    {AG, "bruck", dls_bruck_all_gather, dls_bruck_gather_scratch, NULL},
    {AG, "direct", dls_direct_all_gather, NULL, NULL},
    {DLS_MESSAGE_BROADCAST, "chain", dls_chain_broadcast, NULL, NULL},
    {DLS_MESSAGE_BROADCAST, "binomial", dls_binomial_broadcast, NULL, NULL},
    {DLS_MESSAGE_BROADCAST, "direct", dls_direct_broadcast, NULL, NULL},
    {DLS_MESSAGE_REDUCE, "chain", dls_chain_reduce, NULL, NULL},
    {DLS_MESSAGE_REDUCE, "binomial", dls_binomial_reduce, NULL, NULL},
    {DLS_MESSAGE_REDUCE, "direct", dls_direct_reduce, NULL, NULL},
    {DLS_MESSAGE_GATHER, "direct", dls_direct_gather, NULL, NULL},
    {DLS_MESSAGE_GATHER, "binomial", dls_binomial_gather, dls_binomial_scratch, NULL},
    {DLS_MESSAGE_SCATTER, "direct", dls_direct_scatter, NULL, NULL},
    {DLS_MESSAGE_SCATTER, "binomial", dls_binomial_scatter, dls_binomial_scratch, NULL},
    {DLS_MESSAGE_ALL_TO_ALL, "pairwise", dls_pairwise_all_to_all, NULL, NULL},
    {DLS_MESSAGE_ALL_TO_ALL, "bruck", dls_bruck_all_to_all, dls_bruck_exchange_scratch,
     NULL},
    {DLS_MESSAGE_ALL_TO_ALL, "direct", dls_direct_all_to_all, NULL, NULL},
    {DLS_MESSAGE_ALL_TO_ALL_V, "direct", dls_direct_all_to_all, NULL, NULL},
    {DLS_MESSAGE_ALL_TO_ALL_V, "pairwise", dls_pairwise_all_to_all, NULL, NULL},
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

const char *dls_operation_name(dls_message_kind kind)
{
    return operation[kind];
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
static dls_comm_choice *remembered(dls_comm *comm, const dls_comm_choice *what)
{
    uint64_t mix = what->count * 0x9e3779b97f4a7c15u ^ what->element << 7 ^
                   (uint64_t)(what->kind * 131 + what->root);
    return &comm->choice[(mix >> 20 ^ mix) % DLS_COMM_CHOICES];
}

static dls_status cheapest(const dls_comm *comm, dls_comm_choice *c, dls_shape shape)
{
    double least = 0;
    dls_cost cost;
    c->algorithm = NULL;
    for (int i = 0; i < dls_algorithm_count; i++) {
        const dls_algorithm *a = &dls_algorithms[i];
        if ((int)a->kind != c->kind || (a->fits && !a->fits(&shape)))
            continue;
        shape.block = dls_cost_block(a, &shape, comm->links, c->element);
        if (!shape.varies)
            DLS_TRY(dls_cost_of(a, &shape, comm->links, c->element, NULL, &cost));
        if (c->algorithm && (shape.varies || cost.seconds >= least * (1 - 1e-9)))
            continue;
        c->algorithm = a;
        c->block = shape.block;
        least = shape.varies ? 0 : cost.seconds;
    }
    return DLS_OK;
}

dls_status dls_comm_choose(dls_comm *comm, int kind, dls_shape *shape, size_t element,
                           const dls_algorithm **out)
{
    dls_comm_choice key = {.kind = kind, .root = shape->root, .count = shape->count,
                           .element = element};
    dls_comm_choice *known = remembered(comm, &key);
    const char *list = comm->wanted;
    const dls_algorithm *algorithm;
    dls_message_kind wanted;
    /* look for a wish */
    while (next_wanted(&list, &wanted, &algorithm) > 0)
        if ((int)wanted == kind)
            key.algorithm = algorithm;
    if (key.algorithm && key.algorithm->fits && !key.algorithm->fits(shape))
        return DLS_FAIL(DLS_ERR_INPUT, "the %s algorithm does not fit %d ranks",
                        key.algorithm->name, shape->world);
    if (key.algorithm) {
        key.block = dls_cost_block(key.algorithm, shape, comm->links, element);
    } else if (known->algorithm && known->kind == kind && known->root == key.root &&
               known->count == key.count && known->element == element) {
        key = *known;
    } else {
        DLS_TRY(cheapest(comm, &key, *shape));
        *known = key;
    }
    shape->block = key.block;
    *out = key.algorithm;
    return DLS_OK;
}

dls_status dls_comm_choose_named(dls_comm *comm, const char *operation, size_t count,
                                 int dtype, dls_shape *shape, size_t *element,
                                 const dls_algorithm **out)
{
    int kind = (int)dls_operation_find(operation, strlen(operation));
    *element = dls_comm_type_size(dtype);
    *shape = (dls_shape){.rank = comm->rank, .world = comm->world, .root = -1,
                         .per_node = comm->per_node, .count = count, .block = 1};
    *out = NULL;
    if (!kind || !*element)
        return DLS_FAIL(DLS_ERR_INPUT, "%s of type %d: there is no such collective",
                        operation, dtype);
    return comm->world == 1 || comm->native ? DLS_OK
        : dls_comm_choose(comm, kind, shape, *element, out);
}
