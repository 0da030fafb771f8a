/* tests/kernels/router_case.c: from chapters/08-router-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* See router_case.h. */
#include "router_case.h"

/* run a router under test */
int *kcase_get_ints(kcase *k, const int *device, size_t n)
{
    int *to = (int *)kcase_zeros(k, n / 2 + 1);
    OK(dls_ctx_sync(&k->ctx));
    OK(cudaMemcpy(to, device, n * sizeof *to, cudaMemcpyDeviceToHost));
    return to;
}

static int *junk(kcase *k, size_t n)
{
    int *x = (int *)kcase_zeros(k, n / 2 + 1);
    for (size_t i = 0; i < n; i++)
        x[i] = 1 << 30;
    return kcase_put_ints(k, x, n);
}

rcase rcase_make(kcase *k, dls_router r, const double *s, const double *b)
{
    size_t choices = (size_t)r.N * r.k;
    rcase c = {.r = r, .scores = kcase_put_acc(k, s, (size_t)r.N * r.E),
               .bias = b ? kcase_put_acc(k, b, r.E) : NULL,
               .weight = kcase_space_acc(k, choices), .index = junk(k, choices),
               .place = junk(k, choices), .counts = junk(k, r.E),
               .chosen = junk(k, (size_t)r.B * r.E + 1), .s = (double *)s,
               .b = (double *)b};
    return c;
}
void rcase_route(kcase *k, rcase *c)
{
    size_t choices = (size_t)c->r.N * c->r.k;
    OK(dls_router_check(&c->r));
    OK(dls_router_choose(&k->ctx, &c->r, c->index, c->weight, c->chosen, c->scores,
                         c->bias));
    OK(dls_router_place(&k->ctx, &c->r, c->place, c->counts, c->index, c->chosen,
                        c->before, c->earlier));
    c->index_of = kcase_get_ints(k, c->index, choices);
    c->place_of = kcase_get_ints(k, c->place, choices);
    c->counts_of = kcase_get_ints(k, c->counts, c->r.E);
    c->chosen_of = kcase_get_ints(k, c->chosen, (size_t)c->r.B * c->r.E + 1);
    c->weight_of = kcase_get_acc(k, c->weight, choices);
}
/* refer to sorted experts */
void refer_gate(const dls_router *r, const double *s, double *p)
{
    double sum = 0;
    for (int e = 0; e < r->E; e++)
        sum += exp(s[e]);
    for (int e = 0; e < r->E; e++)
        p[e] = r->gate == DLS_GATE_SOFTMAX ? exp(s[e]) / sum
             : r->gate == DLS_GATE_SIGMOID ? 1 / (1 + exp(-s[e])) : s[e];
}

typedef struct ranked { double key; int e; } ranked;

static int by_key(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->key != y->key ? (x->key < y->key) - (x->key > y->key) : x->e - y->e;
}

void refer_choice(const dls_router *r, const double *s, const double *b, int *index)
{
    ranked e[DLS_ROUTER_EXPERTS], g[DLS_ROUTER_GROUPS], in[DLS_ROUTER_EXPERTS];
    double p[DLS_ROUTER_EXPERTS];
    int n = 0, size = r->group_limit ? r->E / r->groups : r->E;
    refer_gate(r, s, p);
    for (int i = 0; i < r->E; i++)
        e[i] = (ranked){b || r->group_limit ? p[i] + (b ? b[i] : 0) : s[i], i};
    for (int i = 0; i < r->E / size; i++) {
        memcpy(in, e + i * size, size * sizeof *in);
        qsort(in, size, sizeof *in, by_key);
        g[i] = (ranked){in[0].key + (size > 1 ? in[1].key : 0), i};
    }
    qsort(g, r->E / size, sizeof *g, by_key);
    for (int i = 0; i < (r->group_limit ? r->group_limit : 1); i++, n += size)
        memcpy(in + n, e + g[i].e * size, size * sizeof *in);
    qsort(in, n, sizeof *in, by_key);
    for (int j = 0; j < r->k; j++)
        index[j] = in[j].e;
}
/* refer to a matrix */
void refer_weights(const dls_router *r, const double *s, const int *index, double *w)
{
    double p[DLS_ROUTER_EXPERTS], sum = 0;
    refer_gate(r, s, p);
    for (int j = 0; j < r->k; j++)
        sum += p[index[j]];
    for (int j = 0; j < r->k; j++)
        w[j] = r->scale * p[index[j]] / (r->normalised ? sum : 1);
}

void refer_gate_back(const dls_router *r, const double *s, const double *dp, double *ds)
{
    double p[DLS_ROUTER_EXPERTS];
    refer_gate(r, s, p);
    for (int j = 0; j < r->E; j++) {
        ds[j] = 0;
        for (int i = 0; i < r->E; i++)
            ds[j] += dp[i] * (r->gate == DLS_GATE_SOFTMAX ? p[i] * ((i == j) - p[j])
                              : r->gate == DLS_GATE_SIGMOID ? (i == j) * p[i] * (1 - p[i])
                              : i == j);
    }
}
