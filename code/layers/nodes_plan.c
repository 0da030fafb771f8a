/* code/layers/nodes_plan.c: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* Counts of rows on their way over nodes. See nodes_plan.h. */
#include "layers/nodes_plan.h"

#include <string.h>

/* count rows for ranges */
static int range_of(int expert, int first, int per, int ranges)
{
    int r = expert < first ? -1 : (expert - first) / per;
    return r < ranges ? r : -1;
}

void dls_node_count(const int *index, int rows, int k, int first, int per, int ranges,
                    int *copies)
{
    memset(copies, 0, (size_t)ranges * sizeof *copies);
    for (const int *x = index; x < index + (size_t)rows * k; x += k)
        for (int j = 0; j < k; j++) {
            int r = range_of(x[j], first, per, ranges), before = 0;
            for (int i = 0; i < j; i++)
                before |= range_of(x[i], first, per, ranges) == r;
            copies[r < 0 ? 0 : r] += r >= 0 && !before;
        }
}

/* take a census */
static int ranks(const dls_node_grid *g) { return g->nodes * g->places; }

int dls_node_census_ints(const dls_node_grid *g)
{
    return g->nodes + ranks(g) + g->experts;
}

void dls_node_census(const dls_node_grid *g, const int *index, int rows, int *census)
{
    int E = g->experts, k = g->chosen, R = ranks(g);
    dls_node_count(index, rows, k, 0, E / g->nodes, g->nodes, census);
    dls_node_count(index, rows, k, 0, E / R, R, census + g->nodes);
    dls_node_count(index, rows, k, 0, 1, E, census + g->nodes + R);
}

void dls_node_census_balanced(const dls_node_grid *g, int rows, int first, int *census)
{
    int k = g->chosen, ints = dls_node_census_ints(g), index[k], one[ints];
    memset(census, 0, ints * sizeof *census);
    for (int t = 0; t < rows; t++) {
        for (int j = 0; j < k; j++)
            index[j] = (int)(((long)(first + t) * k + j) % g->experts);
        dls_node_census(g, index, 1, one);
        for (int i = 0; i < ints; i++)
            census[i] += one[i];
    }
}

/* lay out the legs */
int dls_node_leg_ints(const dls_node_grid *g)
{
    return 2 * g->nodes + 2 * g->places + g->experts / ranks(g);
}

static int sum(const int *x, int n)
{
    int all = 0;
    for (int i = 0; i < n; i++)
        all += x[i];
    return all;
}

static void range_legs(const dls_node_grid *g, int rank, dls_leg leg[DLS_LEGS])
{
    int per_node = g->experts / g->nodes, per_rank = g->experts / ranks(g);
    leg[0] = (dls_leg){.ranges = g->nodes, .per = per_node};
    leg[1] = (dls_leg){.ranges = g->places, .per = per_rank,
                       .first = rank / g->places * per_node};
    leg[2] = (dls_leg){.ranges = per_rank, .per = 1, .first = rank * per_rank};
    for (int l = 0; l < DLS_LEGS; l++)
        leg[l].width = leg[l].ranges < g->chosen ? leg[l].ranges : g->chosen;
}

/* sum up the censuses */
void dls_node_legs(const dls_node_grid *g, int rank, int rows, const int *censuses,
                   int *room, dls_leg leg[DLS_LEGS])
{
    int N = g->nodes, P = g->places, node = rank / P, place = rank % P;
    int stride = dls_node_census_ints(g), per = g->experts / ranks(g);
    range_legs(g, rank, leg);
    memset(room, 0, (size_t)dls_node_leg_ints(g) * sizeof *room);
    /* give the legs their arrays */
    leg[0].go = room;
    leg[0].come = leg[0].go + N;
    leg[1].go = leg[0].come + N;
    leg[1].come = leg[1].go + P;
    leg[2].go = leg[1].come + P;
    for (int a = 0; a < N; a++) {
        leg[0].go[a] = censuses[rank * stride + a];
        leg[0].come[a] = censuses[(a * P + place) * stride + node];
        for (int q = 0; q < P; q++) {
            const int *mine = censuses + (a * P + place) * stride + N;
            const int *theirs = censuses + (a * P + q) * stride + N;
            leg[1].go[q] += mine[node * P + q];
            leg[1].come[q] += theirs[rank];
        }
    }
    /* count the rows of each expert */
    for (int s = 0; s < N * P; s++)
        for (int e = 0; e < per; e++)
            leg[2].go[e] += censuses[s * stride + N + N * P + rank * per + e];
    leg[0].rows = rows;
    leg[1].rows = sum(leg[0].come, N);
    leg[2].rows = sum(leg[1].come, P);
    for (int l = 0; l < DLS_LEGS; l++)
        leg[l].copies = sum(leg[l].go, leg[l].ranges);
}

/* bound the legs */
void dls_node_most(const dls_node_grid *g, int rows, dls_leg leg[DLS_LEGS])
{
    range_legs(g, 0, leg);
    leg[0].rows = rows;
    leg[1].rows = rows * g->nodes;
    leg[2].rows = leg[1].rows * g->places;
    for (int l = 0; l < DLS_LEGS; l++)
        leg[l].copies = leg[l].rows * leg[l].width;
}

/* tell the traffic */
dls_node_traffic dls_node_flat(const dls_node_grid *g, int rank, const int *censuses)
{
    int R = ranks(g), per = g->experts / R, P = g->places;
    const int *chosen = censuses + rank * dls_node_census_ints(g) + g->nodes + R;
    dls_node_traffic t = {0, 0};
    for (int r = 0; r < R; r++)
        if (r != rank)
            *(r / P == rank / P ? &t.fast : &t.slow) += sum(chosen + r * per, per);
    return t;
}

dls_node_traffic dls_node_nested(const dls_node_grid *g, int rank, const int *censuses)
{
    int P = g->places, node = rank / P, stride = dls_node_census_ints(g);
    const int *own = censuses + rank * stride;
    dls_node_traffic t = {sum(own, g->nodes) - own[node], 0};
    for (int a = 0; a < g->nodes; a++)
        for (int q = 0; q < P; q++)
            if (q != rank % P)
                t.fast += censuses[(a * P + rank % P) * stride + g->nodes + node * P + q];
    return t;
}

/* expect distinct nodes */
double dls_nodes_expected(const dls_node_grid *g, int limit)
{
    int nodes = limit > 0 && limit < g->nodes ? limit : g->nodes;
    double per = (double)g->experts / g->nodes, all = per * nodes, none = 1;
    for (int i = 0; i < g->chosen; i++)
        none *= all - per - i > 0 ? (all - per - i) / (all - i) : 0;
    return nodes * (1 - none);
}
