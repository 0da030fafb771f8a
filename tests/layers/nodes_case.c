/* tests/layers/nodes_case.c: from chapters/08-dispatch-nodes-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Choices of tokens; see nodes_case.h. */
#include "nodes_case.h"

#include "base/rng.h"

/* choose for a case over nodes */
dls_node_grid nodes_grid(const nodes_case *c)
{
    return (dls_node_grid){c->nodes, c->places, c->nodes * c->places * c->per_rank, c->k};
}

int nodes_tokens(const nodes_case *c, int rank)
{
    return c->pattern == NODES_EMPTY ? 0 : (rank * 5 + 3) % (NODES_MOST + 1) % 8;
}

static int has(const int *x, int n, int e)
{
    for (int i = 0; i < n; i++)
        if (x[i] == e)
            return 1;
    return 0;
}

/* choose by the pattern */
void nodes_choose(const nodes_case *c, int rank, int *index, int *place)
{
    int E = nodes_grid(c).experts, k = c->k;
    uint64_t draw = 0;
    for (int t = 0; t < nodes_tokens(c, rank); t++)
        for (int j = 0; j < k; j++) {
            int e, *x = index + t * k;
            do {
                e = (int)(dls_rng_u32(3, rank, draw++) % (unsigned)E);
                e = c->pattern == NODES_FIRST ? j : c->pattern == NODES_LAST ? E - 1 - j : e;
            } while (has(x, j, e));
            x[j] = e;
            int drops = c->pattern == NODES_DROPPED &&
                        (t % 3 == 1 || dls_rng_u32(4, rank, draw) % 3 == 0);
            place[t * k + j] = drops ? -1 : t * k + j;
        }
}

void nodes_kept(const nodes_case *c, int rank, int *index)
{
    int place[NODES_MOST * 64];
    nodes_choose(c, rank, index, place);
    for (int i = 0; i < nodes_tokens(c, rank) * c->k; i++)
        index[i] = place[i] < 0 ? -1 : index[i];
}
