/* code/parallel/pipeline/search_seen.c: from chapters/05-pipeline-zero-bubble-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* Which states need no second look. */
#include "parallel/pipeline/search.h"

/* hash a state */
static uint64_t mix(uint64_t hash, int64_t value)
{
    hash = (hash ^ (uint64_t)value) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 29;
}

static uint64_t mix_later(uint64_t hash, int64_t a, int64_t b)
{
    return mix(hash, a > b ? a : b);
}

/* All that the future depends on: what is placed, when each rank is free, and when what
 * it has not yet used arrives, if that is later. */
static uint64_t hash_state(const dls_auto *a)
{
    uint64_t hash = 1;
    int64_t hop = a->o->cost.hop;
    int p = a->o->ranks;
    for (int r = 0; r < p; r++) {
        const dls_auto_rank *k = &a->rank[r];
        for (int kind = DLS_DO_F; kind <= DLS_DO_W; kind++)
            hash = mix(hash, k->n[kind]);
        hash = mix(hash, k->free_at);
        for (int i = k->n[DLS_DO_F]; r > 0 && i < k[-1].n[DLS_DO_F]; i++)
            hash = mix_later(hash, k->free_at, dls_auto_end(a, r - 1, DLS_DO_F, i) + hop);
        for (int i = k->n[DLS_DO_I]; r < p - 1 && i < k[1].n[DLS_DO_I]; i++)
            hash = mix_later(hash, k->free_at, dls_auto_end(a, r + 1, DLS_DO_I, i) + hop);
    }
    return hash ? hash : 1;
}

/* remember a state */
int dls_search_met(dls_search *s)
{
    uint64_t hash = hash_state(&s->now);
    size_t at = hash & (s->seen_room - 1);
    for (; s->seen[at]; at = (at + 1) & (s->seen_room - 1))
        if (s->seen[at] == hash)
            return 1;
    if (s->seen_count < s->seen_room / 2) {
        s->seen[at] = hash;
        s->seen_count++;
    }
    return 0;
}
