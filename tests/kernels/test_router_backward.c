/* tests/kernels/test_router_backward.c: from chapters/08-router-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Tests of kernels/router.h: gradients, losses, the tally. */
#include "router_case.h"

/* draw a case of the way back */
/* Routed rows, the gradient of their weights, and counts as from other ranks. */
typedef struct bcase {
    rcase c;
    dls_router_aux aux;
    double scale, *dw;
    int *batch, *sequence;      // host
} bcase;

static bcase draw(kcase *k, dls_router r, const double *s, double scale)
{
    bcase b = {.c = rcase_make(k, r, s, NULL), .scale = scale,
               .dw = kcase_random(k, (size_t)r.N * r.k, 5, -1, 1),
               .batch = (int *)kcase_zeros(k, r.E),
               .sequence = (int *)kcase_zeros(k, (size_t)r.B * r.E)};
    for (int e = 0; e < r.E; e++)
        b.batch[e] = 3 + 7 * e % 11;
    for (int i = 0; i < r.B * r.E; i++)
        b.sequence[i] = 5 * i % 7;
    rcase_route(k, &b.c);
    b.aux = (dls_router_aux){.batch = 0.3, .sequence = 0.2, .z = 0.1, .tokens = 17,
                             .in_batch = kcase_put_ints(k, b.batch, r.E),
                             .in_sequence = kcase_put_ints(k, b.sequence, r.B * r.E)};
    return b;
}

static double *go_back(kcase *k, const bcase *b)
{
    const dls_router *r = &b->c.r;
    void *ds = kcase_space(k, (size_t)r->N * r->E);
    OK(dls_router_backward(&k->ctx, r, &b->aux, b->scale, ds,
                           kcase_put_acc(k, b->dw, (size_t)r->N * r->k), b->c.scores,
                           b->c.index, b->c.place));
    return kcase_get(k, ds, (size_t)r->N * r->E);
}
/* refer to the way back */
/* dp += dw times the matrix of w by p. */
static void weights_by_matrix(const bcase *b, int i, const double *p, double *dp)
{
    const dls_router *r = &b->c.r;
    const int *of = b->c.index_of + i * r->k, *at = b->c.place_of + i * r->k;
    double sum = 0;
    for (int j = 0; j < r->k; j++)
        sum += p[of[j]];
    for (int j = 0; j < r->k; j++)
        for (int l = 0; l < r->k && at[j] >= 0; l++)
            dp[of[l]] += b->dw[i * r->k + j] * r->scale *
                         (r->normalised ? (j == l) / sum - p[of[j]] / (sum * sum)
                                        : j == l);
}

/* dp += the losses' gradient for p, by way of p / sum p for the sigmoid. */
static void losses_by_matrix(const bcase *b, int i, const double *p, double *dp)
{
    const dls_router *r = &b->c.r;
    int E = r->E, s = (r->first + i) / r->T, all = 0;
    double whole = 0, g[DLS_ROUTER_EXPERTS];
    for (int e = 0; e < E; e++) {
        all += b->batch[e];
        whole += p[e];
    }
    for (int e = 0; e < E; e++)
        g[e] = b->scale * (b->aux.batch * E * b->batch[e] / all +
                           b->aux.sequence * E * b->sequence[s * E + e] / (r->k * 17.0));
    for (int e = 0; e < E; e++)
        for (int f = 0; f < E; f++)
            dp[e] += g[f] * (r->gate == DLS_GATE_SIGMOID
                             ? (e == f) / whole - p[f] / (whole * whole) : e == f);
}
static void row_by_matrix(const bcase *b, int i, double *ds)
{
    const dls_router *r = &b->c.r;
    const double *s = b->c.s + i * r->E;
    double p[DLS_ROUTER_EXPERTS], dp[DLS_ROUTER_EXPERTS] = {0}, sum = 0;
    refer_gate(r, s, p);
    weights_by_matrix(b, i, p, dp);
    losses_by_matrix(b, i, p, dp);
    refer_gate_back(r, s, dp, ds);
    for (int e = 0; e < r->E; e++)
        sum += exp(s[e]);
    for (int e = 0; e < r->E; e++)
        ds[e] += 2 * b->scale * b->aux.z * log(sum) * exp(s[e]) / sum;
}
/* test the way back */
static void check_back(kcase *k, dls_router r, unsigned stream)
{
    double *s = kcase_random(k, (size_t)r.N * r.E, stream, -2, 2);
    double *want = kcase_zeros(k, (size_t)r.N * r.E);
    bcase b = draw(k, r, s, 0.5);
    for (int i = 0; i < r.N; i++)
        row_by_matrix(&b, i, want + i * r.E);
    expect_stored_within(k, go_back(k, &b), want, 8 * r.scale * rounding(k, 2 * r.E + 60),
                         (size_t)r.N * r.E, "dscores");
    b.aux = (dls_router_aux){0};        // no losses, no counts to read
    b.scale = 0;
    OK(dls_ctx_sync(&k->ctx));
    go_back(k, &b);
}

KERNEL_TEST(router_backward)
{
    static const int E[] = {1, 2, 5, 33, 64}, best[] = {1, 2, 3, 4, 6};
    for (int i = 0; i < 5; i++)
        for (int gate = DLS_GATE_SOFTMAX; gate <= DLS_GATE_IDENTITY; gate++)
            for (int n = 0; n < (gate == DLS_GATE_IDENTITY ? 1 : 2); n++) {
                dls_router r = {.E = E[i], .k = best[i], .gate = gate, .normalised = n,
                                .scale = 1 + 0.5 * (i % 2), .N = 9, .first = 3, .B = 2,
                                .T = 7, .capacity = i % 3};
                check_back(k, r, i);
                kcase_release(k, 0, 0);
            }
}
/* test by differences */
static double loss_of(kcase *k, void *env, const double *x, double *size)
{
    const bcase *b = env;
    const dls_router *r = &b->c.r;
    int E = r->E, length = 2 * E + DLS_TALLY_SUMS, hosts = k->hosts, devices = k->devices;
    rcase c = rcase_make(k, *r, x, NULL);
    void *tally = kcase_put_acc(k, kcase_zeros(k, length), length);
    rcase_route(k, &c);
    OK(dls_router_tally(&k->ctx, r, &b->aux, tally,
                        kcase_space_acc(k, r->N * DLS_TALLY_SUMS), c.scores, c.chosen,
                        NULL, 0));
    double *sums = kcase_get_acc(k, tally, length) + 2 * E, sum = 0;
    double terms[] = {b->aux.batch * sums[DLS_TALLY_BATCH],
                      b->aux.sequence * sums[DLS_TALLY_SEQUENCE],
                      b->aux.z * sums[DLS_TALLY_Z]};
    *size = 0;
    for (int i = 0; i < 3; i++) {
        sum += b->scale * terms[i];
        *size += b->scale * fabs(terms[i]);
    }
    for (int i = 0; i < r->N * r->k; i++)
        if (c.place_of[i] >= 0) {
            sum += b->dw[i] * c.weight_of[i];
            *size += fabs(b->dw[i] * c.weight_of[i]);
        }
    kcase_release(k, devices, hosts);
    return sum;
}
KERNEL_TEST(router_differences)
{
    for (int gate = DLS_GATE_SOFTMAX; gate <= DLS_GATE_IDENTITY; gate++)
        for (int n = 0; n < (gate == DLS_GATE_IDENTITY ? 1 : 2); n++) {
            dls_router r = {.E = 6, .k = 2, .gate = gate, .normalised = n, .scale = 1.5,
                            .N = 5, .B = 1, .T = 5, .capacity = n};
            double *s = kcase_random(k, 30, 40 + gate, -2, 2);
            bcase b = draw(k, r, s, 0.5);
            expect_gradient(k, loss_of, &b, s, 30, go_back(k, &b), 200, "dscores");
            kcase_release(k, 0, 0);
        }
}
/* test the example of the losses */
KERNEL_TEST(router_example_losses)
{
    double s[16] = {4, 3, 2, 1, 5, 1, 3, 1, 6, 2, 1, 1, 3, 5, 1, 1}, dw[8] = {0};
    static const double row[] = {0.26, 0.045, -0.17, -0.135};
    dls_router r = {.E = 4, .k = 2, .normalised = 1, .scale = 1, .N = 4, .B = 1, .T = 4};
    for (int i = 0; i < 16; i++)
        s[i] = kcase_round_acc(k, log(s[i]));
    bcase b = draw(k, r, s, 1);
    b.dw = dw;
    b.aux = (dls_router_aux){.batch = 1, .in_batch = b.c.chosen};
    expect_stored_within(k, go_back(k, &b), row, rounding(k, 40), 4, "batch");
    b.aux = (dls_router_aux){.sequence = 1, .in_sequence = b.c.chosen, .tokens = 4};
    expect_stored_within(k, go_back(k, &b), row, rounding(k, 40), 4, "sequence");
    double z[4];
    for (int e = 0; e < 4; e++)
        z[e] = 2 * log(10) * (4 - e) / 10;
    b.aux = (dls_router_aux){.z = 1};
    expect_stored_within(k, go_back(k, &b), z, 4 * rounding(k, 40), 4, "z");
}
/* test what has no place */
KERNEL_TEST(router_without_a_place)
{
    dls_router r = {.E = 4, .k = 2, .scale = 1, .N = 4, .B = 1, .T = 4, .capacity = 2};
    double *s = kcase_random(k, 16, 1, -1, 1);
    bcase b = draw(k, r, s, 0);
    double *clean = go_back(k, &b);
    for (int i = 0; i < 8; i++)
        b.dw[i] = b.c.place_of[i] < 0 ? NAN : b.dw[i];
    expect_within(go_back(k, &b), clean, 0, 16, "dscores");
}

KERNEL_TEST(router_gradient_of_the_others)
{
    dls_router r = {.E = 4, .k = 2, .scale = 1, .N = 1, .B = 1, .T = 1};
    double s[] = {log(4), log(3), log(2), log(1)}, dw[] = {1, 0};
    static const double softmax[] = {0.24, -0.12, -0.08, -0.04};
    static const double normalised[] = {12 / 49.0, -12 / 49.0, 0, 0};
    bcase b = draw(k, r, s, 0);
    b.dw = dw;
    expect_stored_within(k, go_back(k, &b), softmax, rounding(k, 40), 4, "softmax");
    b.c.r.normalised = 1;
    expect_stored_within(k, go_back(k, &b), normalised, rounding(k, 40), 4, "normalised");
}
/* test the tally */
KERNEL_TEST(router_tally_of_the_example)
{
    double s[16] = {4, 3, 2, 1, 5, 1, 3, 1, 6, 2, 1, 1, 3, 5, 1, 1}, start[16] = {0};
    double want[16] = {4, 3, 1, 1, 2, 1, 0, 0, 4, 5.6, 5.6, 4 * log(10) * log(10)};
    dls_router r = {.E = 4, .k = 2, .scale = 1, .N = 4, .B = 1, .T = 4, .capacity = 2};
    for (int i = 0; i < 16; i++) {
        want[8 + DLS_TALLY_ENTROPY] -= s[i] / 10 * log(s[i] / 10);
        s[i] = kcase_round_acc(k, log(s[i]));
    }
    start[3] = 1;               // a tally is added to
    bcase b = draw(k, r, s, 1);
    b.aux = (dls_router_aux){.in_batch = b.c.chosen, .in_sequence = b.c.chosen,
                             .tokens = 4};
    void *tally = kcase_put_acc(k, start, 16);
    OK(dls_router_tally(&k->ctx, &r, &b.aux, tally,
                        kcase_space_acc(k, 4 * DLS_TALLY_SUMS), b.c.scores, b.c.chosen,
                        NULL, 0));
    expect_within(kcase_get_acc(k, tally, 16), want, 30 * rounding(k, 60), 16, "tally");
}
