/* code/parallel/data/zero_groups.c: from chapters/04-data-parallelism-zero.md. Edit the chapter, or edit here and run "make untangle". */
/* Who takes part: one plan for all, and the groups that share a copy or a slice. */
#include <string.h>

#include "base/hash.h"
#include "parallel/data/zero_private.h"

/* agree on the slices */
static uint64_t plan_hash(const dls_zero *z)
{
    uint64_t parts[11] = {(uint64_t)z->o.stage, (uint64_t)z->ways, (uint64_t)z->kept,
                          (uint64_t)z->o.prefetch, (uint64_t)z->o.keep_forward,
                          (uint64_t)z->ctx->dtype, (uint64_t)z->o.offload};
    for (int i = 0; i < z->params->n; i++) {
        const dls_param *p = &z->params->items[i];
        parts[7] = p->expert ? 1 : dls_hash64(p->name, strlen(p->name));
        parts[8] = p->offset * 131 + (uint64_t)p->unit;
        parts[9] = p->count;
        parts[10] = dls_hash64(parts, sizeof parts);
    }
    return parts[10];
}

dls_status zero_agree(const dls_zero *z)
{
    typedef struct summary { uint64_t hash, stage, ways, params, elements; } summary;
    summary mine = {plan_hash(z), (uint64_t)z->o.stage, (uint64_t)z->ways,
                    (uint64_t)z->params->n, z->params->elements};
    int world = dls_comm_size(z->world);
    summary all[world];
    DLS_TRY(dls_comm_all_gather_host(z->world, &mine, sizeof mine, all));
    for (int r = 1; r < world; r++)
        if (all[r].hash != all[0].hash)
            return DLS_FAIL(DLS_ERR_COMM, "the ranks cut the model differently: rank 0 "
                            "is in stage %d over %d ranks with %d parameters (%d "
                            "elements), rank %d in stage %d over %d with %d (%d), or "
                            "other settings",
                            (int)all[0].stage, (int)all[0].ways, (int)all[0].params,
                            (int)all[0].elements, r, (int)all[r].stage, (int)all[r].ways,
                            (int)all[r].params, (int)all[r].elements);
    return DLS_OK;
}

/* form the groups */
dls_status zero_form_groups(dls_zero *z)
{
    int me = dls_comm_rank(z->world), world = dls_comm_size(z->world);
    z->ways = z->o.shard_size;
    z->ncopies = world / z->ways;
    z->rank = me % z->ways;
    z->copy = me / z->ways;
    z->shard = z->ncopies == 1 ? z->world : NULL;
    z->copies = z->ways == 1 ? z->world : NULL;
    if (z->ways == 1 || z->ncopies == 1)
        return DLS_OK;
    DLS_TRY(dls_comm_split(z->world, z->copy, z->rank, &z->shard));
    return dls_comm_split(z->world, z->rank, z->copy, &z->copies);
}
