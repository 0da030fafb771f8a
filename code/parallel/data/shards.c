/* code/parallel/data/shards.c: from chapters/04-data-parallelism-zero.md. Edit the chapter, or edit here and run "make untangle". */
/* Cutting units into slices. */
#include "parallel/data/shards.h"

/* cut units into slices */
static dls_status check_units(const dls_param *params, int n, int ways)
{
    if (n < 1 || ways < 1)
        return DLS_FAIL(DLS_ERR_INPUT, "%d parameters can not be cut for %d ranks", n,
                        ways);
    for (int i = 0; i < n; i++) {
        int before = i ? params[i - 1].unit : 0;
        if (params[i].unit < before || params[i].unit > before + 1)
            return DLS_FAIL(DLS_ERR_INPUT, "parameter %s is in unit %d after unit %d",
                            params[i].name, params[i].unit, before);
    }
    return DLS_OK;
}

static void add_param(dls_shard_unit *u, const dls_param *p, int i)
{
    if (u->params == 0) {
        u->param = i;
        u->first = p->offset;
        u->expert = p->expert;
    }
    u->params++;
    u->count = p->offset + p->count - u->first;
    u->held |= p->uses > 1;
}

dls_status dls_shard_plan(const dls_param *params, int n, int ways, int expert_ways,
                          dls_shard_unit *units, int *count)
{
    DLS_TRY(check_units(params, n, ways));
    *count = 0;
    for (int i = 0; i < n; i++) {
        if (params[i].unit == *count)
            units[(*count)++] = (dls_shard_unit){0};
        add_param(&units[*count - 1], &params[i], i);
    }
    size_t at = 0, whole = 0;
    for (int i = 0; i < *count; i++) {
        dls_shard_unit *u = &units[i];
        u->ways = u->expert && expert_ways ? expert_ways : ways;
        u->slice = (u->count + (size_t)u->ways - 1) / (size_t)u->ways;
        u->at = at;
        u->whole = whole;
        at += u->slice;
        whole += (size_t)u->ways * u->slice;
    }
    return DLS_OK;
}

/* find a slice */
size_t dls_shard_elements(const dls_shard_unit *units, int count)
{
    return count ? units[count - 1].at + units[count - 1].slice : 0;
}

size_t dls_shard_whole(const dls_shard_unit *units, int count)
{
    const dls_shard_unit *last = &units[count - 1];
    return count ? last->whole + (size_t)last->ways * last->slice : 0;
}

void dls_shard_slice(const dls_shard_unit *u, int rank, size_t *first, size_t *count)
{
    size_t from = (size_t)rank * u->slice, to = from + u->slice;
    from = from < u->count ? from : u->count;
    to = to < u->count ? to : u->count;
    *first = u->first + from;
    *count = to - from;
}

void dls_shard_part_experts(dls_param *params, int n, int *first)
{
    int unit = -1, before = -1;
    for (int i = 0; i < n; i++) {
        int here = params[i].unit;
        int other = i > 0 && params[i].expert != params[i - 1].expert;
        unit += here != before || other;
        if (first && here != before)
            first[here] = unit;
        before = here;
        params[i].unit = unit;
    }
    if (first)
        first[before + 1] = unit + 1;
}
