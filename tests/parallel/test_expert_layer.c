/* tests/parallel/test_expert_layer.c: from chapters/08-expert-proof-layer.md. Edit the chapter, or edit here and run "make untangle". */
/* An expert layer over ranks equals the layer on one device. */
#include "base/rng.h"
#include "expert_rig.h"
#include "mesh_case.h"

/* compare numbers of a layer */
static dls_status equal(const expert_case *c, const char *what, size_t i, double is,
                        double should)
{
    double most = c->exact ? 0 : 1e-10 * fabs(should) + 1e-12;
    EXPECT(fabs(is - should) <= most, "%s[%zu] is %.17g instead of %.17g", what, i, is,
           should);
    return DLS_OK;
}

static dls_status compare_rows(const expert_side *cut, const expert_side *whole,
                               const char *what, const void *is, const void *should)
{
    size_t n = (size_t)cut->rows * ER_C, from = (size_t)cut->first * ER_C;
    size_t size = dls_dtype_size(cut->ctx.dtype);
    double a[n + 1], b[n + 1];
    DLS_TRY(expert_fetch(cut, a, is, n));
    DLS_TRY(expert_fetch(whole, b, (const char *)should + from * size, n));
    for (size_t i = 0; i < n; i++)
        DLS_TRY(equal(cut->c, what, from + i, a[i], b[i]));
    return DLS_OK;
}

/* add up shares of a layer */
/* all (whole->params.elements) := this rank's shares where they belong. */
static dls_status place_shares(const expert_side *cut, const expert_side *whole,
                               double *all)
{
    double *part = calloc(cut->params.elements, sizeof *part);
    EXPECT(part, "no memory");
    DLS_TRY(expert_fetch(cut, part, cut->params.grads, cut->params.elements));
    for (int i = 0; i < cut->params.n; i++) {
        const dls_param *p = &cut->params.items[i];
        const dls_param *of = dls_params_find(&whole->params, p->name);
        EXPECT(of, "one device has no %s", p->name);
        for (size_t k = 0; k < p->count; k++)
            all[of->offset + dls_param_global(p, k, NULL, NULL)] += part[p->offset + k];
    }
    free(part);
    return DLS_OK;
}

static dls_status sum_over(const expert_side *cut, double *all, size_t n)
{
    int ranks = dls_comm_size(cut->world);
    double *each = malloc(ranks * n * sizeof *each);
    EXPECT(each, "no memory");
    DLS_TRY(dls_comm_all_gather_host(cut->world, all, n * sizeof *all, each));
    for (size_t i = 0; i < n; i++) {
        all[i] = 0;
        for (int r = 0; r < ranks; r++)
            all[i] += each[r * n + i];
    }
    free(each);
    return DLS_OK;
}

/* prove a case of a layer */
static dls_status compare_gradients(const expert_side *cut, const expert_side *whole)
{
    size_t n = whole->params.elements;
    double *all = calloc(2 * n, sizeof *all), *should = all + n;
    EXPECT(all, "no memory");
    DLS_TRY(place_shares(cut, whole, all));
    DLS_TRY(sum_over(cut, all, n));
    DLS_TRY(expert_fetch(whole, should, whole->params.grads, n));
    for (int i = 0; i < whole->params.n; i++) {
        const dls_param *p = &whole->params.items[i];
        for (size_t k = 0; k < p->count; k++)
            DLS_TRY(equal(cut->c, p->name, k, all[p->offset + k], should[p->offset + k]));
    }
    free(all);
    return DLS_OK;
}

static dls_status compare_tallies(const expert_side *cut, const expert_side *whole)
{
    const expert_case *c = cut->c;
    int E = c->moe.experts, n = c->exact ? 2 * E + 1 : (int)dls_tally_length(E);
    double is[n], should[n], chosen = 0;
    DLS_TRY(expert_fetch(cut, is, cut->balance.tally, (size_t)n));
    DLS_TRY(expert_fetch(whole, should, whole->balance.tally, (size_t)n));
    DLS_TRY(sum_over(cut, is, (size_t)n));
    for (int i = 0; i < n; i++)
        DLS_TRY(equal(c, "tally", (size_t)i, is[i], should[i]));
    for (int e = 0; e < E; e++)
        chosen += should[e];
    EXPECT(chosen == whole->rows * c->moe.chosen, "%g rows chosen", chosen);
    return DLS_OK;
}

static dls_status prove(const expert_case *c, dls_comm *world)
{
    expert_side cut, whole;
    DLS_TRY(expert_open(&whole, c, NULL));
    DLS_TRY(expert_open(&cut, c, world));
    for (int run = 0; run < 2; run++) {
        DLS_TRY(expert_run(&whole));
        DLS_TRY(expert_run(&cut));
        DLS_TRY(compare_rows(&cut, &whole, "y", cut.y, whole.y));
        DLS_TRY(compare_rows(&cut, &whole, "dx", cut.dx, whole.dx));
        DLS_TRY(compare_gradients(&cut, &whole));
        DLS_TRY(compare_tallies(&cut, &whole));
    }
    expert_close(&cut);
    expert_close(&whole);
    return DLS_OK;
}

/* draw cases of a layer */
enum { MOST_CASES = 256 };

typedef struct layer_cases { expert_case list[MOST_CASES]; int n, at; } layer_cases;

static int number(int seed, int i, int n)
{
    return (int)(dls_rng_u32(23, (uint64_t)seed, (uint64_t)i) % (unsigned)n);
}

static void draw_rows(expert_case *c, int seed)
{
    int tp = c->mesh.size[DLS_AXIS_TP], dp = c->mesh.size[DLS_AXIS_DP];
    c->sequence = tp > 1 && number(seed, 0, 2);
    c->T = c->sequence ? tp * (1 + (tp == 2) + number(seed, 1, 2))
         : 3 + number(seed, 1, 3);
    for (int i = 0; i < dp; i++)
        c->B[i] = dp > 4 ? number(seed, 2 + i, 2) : number(seed, 2 + i, 4);
    c->B[number(seed, 40, dp)] = 2;
}

static void draw_case(expert_case *c, int tp, int dp, int ep, int etp, int exact)
{
    int seed = ((tp * 17 + dp) * 17 + ep) * 17 + etp;
    mesh_case m = {.llama = number(seed, 41, 3) > 0};
    m.mesh = (dls_mesh){
        .size = {[DLS_AXIS_TP] = tp, [DLS_AXIS_CP] = 1, [DLS_AXIS_PP] = 1,
                 [DLS_AXIS_DP] = dp},
        .order = {DLS_AXIS_TP, DLS_AXIS_CP, DLS_AXIS_PP, DLS_AXIS_DP}};
    *c = (expert_case){.exact = exact, .gated = m.llama, .split = number(seed, 42, 2)};
    c->mesh = m.mesh;
    draw_rows(c, seed);
    for (int i = 0; i < dp; i++)
        m.rows = m.micro += c->B[i];
    m.T = c->T;
    m.split_rows = c->sequence;
    mesh_case_draw_experts(&m, ep, etp, 0);
    c->mesh = m.mesh;
    c->T = m.T;
    c->dispatch = m.dispatch;
    c->moe = exact ? mesh_exact_experts(&m) : m.moe;
}

static void draw_cases(layer_cases *out, int world, int exact)
{
    out->n = 0;
    for (int tp = 1; tp <= world; tp++)
        for (int ep = 1; world % tp == 0 && ep <= MESH_MOST_EP; ep++)
            for (int etp = 1; etp <= MESH_MOST_ETP; etp++)
                if (world % (ep * etp) == 0 && out->n < MOST_CASES)
                    draw_case(&out->list[out->n++], tp, world / tp, ep, etp, exact);
}

/* test the layer of experts */
/* A rank may be in 32 communicators, and a case takes up to eight. */
enum { AT_ONCE = 3 };

static dls_status prove_some(int rank, void *arg)
{
    const layer_cases *cases = arg;
    dls_comm *world;
    DLS_TRY(test_world(NULL, &world));
    for (int i = cases->at; i < cases->n && i < cases->at + AT_ONCE; i++) {
        const expert_case *c = &cases->list[i];
        dls_status s = prove(c, world);
        if (s != DLS_OK)
            return DLS_FAIL(s, "rank %d, case %d: tp%d dp%d ep%d etp%d E%d k%d F%d T%d%s "
                            "capacity %g%s: %s", rank, i, c->mesh.size[DLS_AXIS_TP],
                            c->mesh.size[DLS_AXIS_DP], c->mesh.ep, c->mesh.etp,
                            c->moe.experts, c->moe.chosen, c->moe.hidden, c->T,
                            c->sequence ? " sp" : "", c->moe.capacity,
                            c->moe.padded ? " padded" : "", dls_status_message());
    }
    dls_comm_destroy(world);
    return DLS_OK;
}

static void prove_worlds(int from, int to, int exact)
{
    static layer_cases cases;
    for (int world = from; world <= to; world++) {
        draw_cases(&cases, world, exact);
        for (cases.at = 0; cases.at < cases.n; cases.at += AT_ONCE)
            expect_ranks(world, prove_some, &cases);
    }
}

Test(expert_layer, in_whole_numbers_to_6_ranks) { prove_worlds(1, 6, 1); }
Test(expert_layer, in_whole_numbers_on_8_ranks) { prove_worlds(8, 8, 1); }
Test(expert_layer, in_double_precision_to_6_ranks) { prove_worlds(1, 6, 0); }
Test(expert_layer, in_double_precision_on_8_ranks) { prove_worlds(8, 8, 0); }

static void prove_over_nodes(int nodes, int places, int exact)
{
    static const int layouts[][2] = {{1, 8}, {2, 8}, {1, 4}, {4, 4}, {1, 3}};  // tp, ep
    static layer_cases cases;
    int world = nodes * places;
    cases.n = cases.at = 0;
    setenv("DLS_CLUSTER", test_cluster(nodes, places), 1);
    for (int i = 0; i < 5; i++) {
        int tp = layouts[i][0], ep = layouts[i][1];
        if (world % tp || world % ep || (ep < world && ep % places))
            continue;
        expert_case *c = &cases.list[cases.n++];
        draw_case(c, tp, world / tp, ep, 1, exact);
        c->dispatch = DLS_DISPATCH_NODES;
        c->moe.padded = 0;
    }
    for (; cases.at < cases.n; cases.at += AT_ONCE)
        expect_ranks(world, prove_some, &cases);
}

Test(expert_layer, over_two_nodes_of_four)
{
    prove_over_nodes(2, 4, 1);
    prove_over_nodes(2, 4, 0);
}

Test(expert_layer, over_four_nodes_of_two)
{
    prove_over_nodes(4, 2, 1);
    prove_over_nodes(4, 2, 0);
}

Test(expert_layer, over_three_nodes_of_one)
{
    prove_over_nodes(3, 1, 1);
    prove_over_nodes(3, 1, 0);
}
