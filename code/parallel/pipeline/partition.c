/* code/parallel/pipeline/partition.c: from chapters/05-pipeline-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* By count, by cost and by hand. By cost is a search for the smallest limit that enough
 * stages can keep; whether they can is found by packing greedily.
 */
#include "parallel/pipeline/partition.h"

#include "model/expert_block.h"

/* partition by count */
static dls_status enough_units(int layers, int stages)
{
    if (stages >= 1 && stages <= layers + 2)
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_INPUT, "%d stages: expected 1 to %d for %d blocks, an "
                    "embedding and a head", stages, layers + 2, layers);
}

dls_status dls_partition_by_count(int layers, int stages, int *first)
{
    int blocks = layers >= stages, n = blocks ? layers : layers + 2;
    DLS_TRY(enough_units(layers, stages));
    for (int s = 0; s < stages; s++)
        first[s] = (int)((int64_t)n * s / stages) + (blocks && s > 0);
    first[stages] = layers + 2;
    return DLS_OK;
}

/* partition by cost */
/* How many stages it takes when none may exceed the limit. */
static int stages_needed(const int64_t *cost, int units, int64_t limit)
{
    int stages = 1;
    int64_t sum = 0;
    for (int u = 0; u < units; u++) {
        if (sum + cost[u] > limit) {
            stages++;
            sum = 0;
        }
        sum += cost[u];
    }
    return stages;
}

static int64_t smallest_limit(const int64_t *cost, int units, int stages)
{
    int64_t low = 0, high = 0;
    for (int u = 0; u < units; u++) {
        low = cost[u] > low ? cost[u] : low;
        high += cost[u];
    }
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (stages_needed(cost, units, middle) <= stages)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Where a stage that begins at `u` ends, `left` stages to come behind it. */
static int end_of_stage(const int64_t *cost, int units, int u, int left, int64_t limit)
{
    int64_t sum = cost[u], rest = 0;
    for (int i = u; i < units; i++)
        rest += cost[i];
    int end = u + 1;
    while (end < units - left && sum + cost[end] <= limit) {
        int enough = left > 0 && (sum + cost[end] / 2) * (left + 1) >= rest
            && stages_needed(cost + end, units - end, limit) <= left;
        if (enough)
            break;
        sum += cost[end++];
    }
    return end;
}

dls_status dls_partition_by_cost(const int64_t *cost, int layers, int stages, int *first)
{
    int units = layers + 2;
    DLS_TRY(enough_units(layers, stages));
    int64_t limit = smallest_limit(cost, units, stages);
    first[0] = 0;
    for (int s = 0; s < stages; s++)
        first[s + 1] = end_of_stage(cost, units, first[s], stages - 1 - s, limit);
    return DLS_OK;
}

int64_t dls_partition_largest(const int64_t *cost, int stages, const int *first)
{
    int64_t largest = 0;
    for (int s = 0; s < stages; s++) {
        int64_t sum = 0;
        for (int u = first[s]; u < first[s + 1]; u++)
            sum += cost[u];
        largest = sum > largest ? sum : largest;
    }
    return largest;
}

/* partition by hand */
dls_status dls_partition_by_hand(const int64_t *units, int layers, int stages, int *first)
{
    int64_t sum = 0;
    DLS_TRY(enough_units(layers, stages));
    first[0] = 0;
    for (int s = 0; s < stages; s++) {
        if (units[s] < 1 || sum + units[s] > layers + 2)
            return DLS_FAIL(DLS_ERR_INPUT, "stage %d has %lld units: expected at least "
                            "1, and %d in all stages (embedding, %d blocks, head)", s,
                            (long long)units[s], layers + 2, layers);
        sum += units[s];
        first[s + 1] = (int)sum;
    }
    if (sum != layers + 2)
        return DLS_FAIL(DLS_ERR_INPUT, "the stages have %lld units: expected %d "
                        "(embedding, %d blocks, head)", (long long)sum, layers + 2,
                        layers);
    return DLS_OK;
}

/* count the operations of a unit */
void dls_partition_flops(const dls_transformer_config *c, int T, int64_t *cost)
{
    int64_t C = c->channels, D = c->head_size, F = c->hidden;
    int64_t qkv = C * (c->heads + 2 * c->kv_heads) * D, proj = c->heads * D * C;
    int64_t matrices = c->mlp == DLS_MLP_SWIGLU ? 3 : 2;
    int64_t passed = (int64_t)(c->moe.chosen + c->moe.shared) * c->moe.hidden;
    int64_t experts = matrices * C * passed + C * c->moe.experts;
    cost[0] = C;
    for (int i = 1; i <= c->layers; i++)
        cost[i] = 2 * (qkv + proj + (dls_block_has_experts(c, i - 1) ? experts
                                                                     : matrices * C * F))
                  + 4 * (int64_t)T * c->heads * D;
    cost[c->layers + 1] = 2 * C * c->vocabulary;
}
