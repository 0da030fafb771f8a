/* code/parallel/tensor/traffic_laws.c: from chapters/06-sequence-parallelism-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* The table of the chapter as a function. */
#include "parallel/tensor/traffic_laws.h"

/* count the units of a block */
static uint64_t block_units(const dls_transformer_config *c)
{
    int sliced = c->sharding.sequence, deferred = c->split_backward;
    uint64_t back = !sliced ? 4 : deferred ? 8 : 6, again = sliced ? 3 : 2;
    if (c->recompute != DLS_RECOMPUTE_FULL)
        again = 0;
    return 4 + back + again * (deferred ? 2 : 1);
}

/* state the traffic of the tensor axis */
dls_tensor_traffic dls_law_tensor_traffic(const dls_transformer_config *c,
                                          const dls_kept_case *at)
{
    int t = c->sharding.tensor > 1 ? c->sharding.tensor : 1;
    uint64_t rows = at->B * at->T / (uint64_t)t * (uint64_t)(t - 1);
    uint64_t unit = rows * (uint64_t)c->channels * dls_dtype_size(at->dtype);
    uint64_t number = dls_dtype_size(dls_dtype_accumulator(at->dtype));
    return (dls_tensor_traffic){.embedding = 2 * unit, .block = block_units(c) * unit,
                                .head = (c->sharding.sequence ? 3 : 2) * unit,
                                .losses = 3 * 2 * rows * number};
}
