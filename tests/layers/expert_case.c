/* tests/layers/expert_case.c: from chapters/08-mixture-of-experts-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The rig, and the naive experts. */
#include "expert_case.h"

/* open an expert rig */
static double *device(size_t count)
{
    void *p = NULL;
    OK(dls_device_alloc(&p, count, DLS_F64, DLS_MEM_OTHER));
    return p;
}

static double *random_numbers(size_t n, unsigned stream, double scale, double shift)
{
    double *all = malloc(n * sizeof *all);
    for (size_t i = 0; i < n; i++)
        all[i] = shift + scale * dls_rng_normal(99, stream, i);
    return all;
}

static void put(void *to, const double *from, size_t n)
{
    cr_assert_eq(cudaMemcpy(to, from, n * sizeof *from, cudaMemcpyHostToDevice), 0);
}

static dls_transformer_config config_of(const expert_case *c)
{
    dls_transformer_config m = dls_transformer_gpt2(5, c->T, 1, 1, c->C);
    m.mlp = c->mlp;
    m.moe = c->moe;
    return m;
}

/* The router's rows are such that an expert has all tokens, or none. */
static void pull_tokens(expert_rig *f)
{
    const expert_case *c = &f->c;
    double *row = f->values + f->params.items[f->layer->experts->router].offset
                  + (c->moe.experts > 1) * c->C;
    for (int i = 0; c->pull != PULL_NONE && i < c->C; i++)
        row[i] = c->pull == PULL_TO_ONE ? 5 : -5;
}

static void fill_rig(expert_rig *f)
{
    const expert_case *c = &f->c;
    size_t rows = (size_t)c->B * c->T * c->C;
    f->values = random_numbers(f->params.elements, 1, 0.5, 0);
    f->input = random_numbers(rows, 2, 1, c->pull == PULL_NONE ? 0 : 4);
    f->slope = random_numbers(rows, 3, 1, 0);
    pull_tokens(f);
    put(f->params.values, f->values, f->params.elements);
    put(f->x, f->input, rows);
    put(f->dy, f->slope, rows);
    cr_assert_eq(cudaMemset(f->activations, 0xff, dls_plan_bytes(&f->plan)), 0);
    cr_assert_eq(cudaDeviceSynchronize(), 0);
}

void expert_rig_open(expert_rig *f, const expert_case *c, int deferred)
{
    dls_transformer_config m = config_of(c);
    size_t rows = (size_t)c->B * c->T * c->C;
    *f = (expert_rig){.c = *c};
    OK(dls_ctx_create(&f->ctx, 0, DLS_F64));
    f->build.params = &f->params;
    f->layer = dls_block_experts(&f->build, "a", &m, 0.5, 0.3);
    OK(f->build.status);
    f->plan = (dls_plan){.max_B = c->B, .max_T = c->T, .dtype = DLS_F64,
                         .deferred = deferred};
    dls_layer_plan(f->layer, &f->plan);
    OK(dls_params_allocate(&f->params, &f->ctx));
    f->activations = device(dls_plan_bytes(&f->plan) / sizeof(double) + 1);
    f->pending = calloc(f->params.n, sizeof(int));
    f->pass = (dls_pass){.ctx = &f->ctx, .params = &f->params, .B = c->B, .T = c->T,
                         .loss_scale = 0.7, .pending = f->pending,
                         .host = calloc(1, f->plan.host)};
    dls_pass_regions(&f->pass, &f->plan, f->activations);
    f->x = device(rows);
    f->y = device(rows);
    f->dx = device(rows);
    f->dy = device(rows);
    fill_rig(f);
}

void expert_rig_close(expert_rig *f)
{
    void *all[] = {f->activations, f->x, f->y, f->dx, f->dy};
    for (int i = 0; i < 5; i++)
        dls_device_free(all[i]);
    free(f->pending);
    free(f->pass.host);
    free(f->input);
    free(f->slope);
    free(f->values);
    dls_build_free(&f->build);
    dls_params_free(&f->params);
    dls_ctx_destroy(&f->ctx);
}

/* run an expert rig */
static expert_result new_result(const expert_rig *f)
{
    size_t rows = (size_t)f->c.B * f->c.T * f->c.C;
    return (expert_result){calloc(rows, sizeof(double)), calloc(rows, sizeof(double)),
                           calloc(f->params.elements, sizeof(double))};
}

static void get(double *to, const void *from, size_t n)
{
    cr_assert_eq(cudaMemcpy(to, from, n * sizeof *to, cudaMemcpyDeviceToHost), 0);
}

/* Every gradient is NaN, and said to count as zero. */
static void mark_unwritten(expert_rig *f)
{
    size_t bytes = f->params.elements * sizeof(double);
    cr_assert_eq(cudaMemset(f->params.grads, 0xff, bytes), 0);
    cr_assert_eq(cudaDeviceSynchronize(), 0);
    for (int i = 0; i < f->params.n; i++)
        f->params.items[i].unwritten = 1;
}

expert_result expert_rig_run(expert_rig *f, int halves)
{
    const dls_layer *l = f->layer;
    size_t rows = (size_t)f->c.B * f->c.T * f->c.C;
    expert_result r = new_result(f);
    mark_unwritten(f);
    OK(l->kind->forward(l, &f->pass, f->y, f->x));
    if (halves) {
        OK(l->kind->backward_input(l, &f->pass, f->dx, f->dy, f->x, f->y));
        OK(l->kind->backward_weight(l, &f->pass, f->dy, f->x));
    } else {
        OK(dls_layer_backward(l, &f->pass, f->dx, f->dy, f->x, f->y));
    }
    OK(dls_ctx_sync(&f->ctx));
    get(r.y, f->y, rows);
    get(r.dx, f->dx, rows);
    get(r.grads, f->params.grads, f->params.elements);
    return r;
}

void expert_result_free(expert_result *r)
{
    free(r->y);
    free(r->dx);
    free(r->grads);
}

/* choose naively */
static const double *value_of(const expert_rig *f, int index)
{
    return f->values + f->params.items[index].offset;
}

/* The probabilities (E) of a token, and which k experts it chooses; no ties. */
static void choose(const expert_rig *f, const double *x, double *p, int *mask)
{
    const dls_moe *m = &f->c.moe;
    int C = f->c.C, E = m->experts;
    double sum = 0;
    /* score naively */
    for (int e = 0; e < E; e++) {
        const double *w = value_of(f, f->layer->experts->router) + e * C;
        double s = 0;
        for (int i = 0; i < C; i++)
            s += w[i] * x[i];
        p[e] = m->gate == DLS_GATE_SOFTMAX ? exp(s)
             : m->gate == DLS_GATE_SIGMOID ? 1 / (1 + exp(-s)) : s;
        sum += p[e];
    }
    for (int e = 0; e < E && m->gate == DLS_GATE_SOFTMAX; e++)
        p[e] /= sum;
    for (int e = 0; e < E; e++) {
        int better = 0;
        for (int o = 0; o < E; o++)
            better += p[o] > p[e];
        mask[e] = better < m->chosen;
    }
}

static int capacity_of(const expert_case *c)
{
    return c->moe.capacity == 0 ? c->T
        : (int)ceil(c->moe.capacity * c->moe.chosen * c->T / c->moe.experts);
}

/* pass one expert naively */
static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* The activation of one column, and its slopes: of gate or GELU, and of up. */
static double act(dls_mlp kind, double a, double b, double *da, double *db)
{
    double s = sigmoid(a), c = sqrt(2 / M_PI), u = c * (a + 0.044715 * a * a * a);
    *db = a * s;
    *da = b * (s + a * s * (1 - s));
    if (kind == DLS_MLP_SWIGLU)
        return a * s * b;
    *da = 0.5 * (1 + tanh(u)) + 0.5 * a * (1 - tanh(u) * tanh(u))
          * c * (1 + 3 * 0.044715 * a * a);
    return 0.5 * a * (1 + tanh(u));
}

/* y (C) += weight proj act(fc x); with dy: gradients as well. Returns <dy, expert(x)>. */
static double pass_expert(const expert_rig *f, int fc, int F, double weight,
                          const double *x, double *y, const double *dy, double *dx,
                          double *grads)
{
    int C = f->c.C, gated = f->c.mlp == DLS_MLP_SWIGLU;
    const double *up = value_of(f, fc), *down = value_of(f, fc + 1);
    double *dup = grads + f->params.items[fc].offset, dot = 0;
    double *ddown = grads + f->params.items[fc + 1].offset;
    for (int j = 0; j < F; j++) {
        double a = 0, b = 0, da, db, dh = 0;
        /* multiply one column naively */
        for (int i = 0; i < C; i++) {
            a += up[j * C + i] * x[i];
            b += gated ? up[(F + j) * C + i] * x[i] : 0;
        }
        double h = act(f->c.mlp, a, b, &da, &db);
        for (int i = 0; i < C; i++) {
            y[i] += weight * down[i * F + j] * h;
            dot += dy[i] * down[i * F + j] * h;
            dh += weight * dy[i] * down[i * F + j];
            ddown[i * F + j] += weight * dy[i] * h;
        }
        /* go back through one column naively */
        for (int i = 0; i < C; i++) {
            dup[j * C + i] += dh * da * x[i];
            dx[i] += dh * da * up[j * C + i];
            if (!gated)
                continue;
            dup[(F + j) * C + i] += dh * db * x[i];
            dx[i] += dh * db * up[(F + j) * C + i];
        }
    }
    return dot;
}

/* pass a token naively */
/* From the gradients of the chosen weights to those of scores, Wr and x. */
static void pass_router(const expert_rig *f, const double *p, const int *mask,
                        const double *dweight, const double *x, double *dx,
                        double *grads)
{
    const dls_moe *m = &f->c.moe;
    int C = f->c.C, E = m->experts, router = f->layer->experts->router;
    double scale = m->scale ? m->scale : 1, dp[E], sum = 0, inner = 0;
    for (int e = 0; e < E; e++)
        sum += mask[e] ? p[e] : 0;
    /* differentiate the weights naively */
    for (int e = 0; e < E; e++) {
        dp[e] = 0;
        for (int o = 0; o < E && mask[e]; o++)  // d w[o] / d p[e]
            if (mask[o])
                dp[e] += scale * dweight[o] * (!m->normalised ? o == e
                    : (o == e) / sum - p[o] / (sum * sum));
        inner += dp[e] * p[e];
    }
    for (int e = 0; e < E; e++) {
        double ds = m->gate == DLS_GATE_SOFTMAX ? p[e] * (dp[e] - inner)
                  : m->gate == DLS_GATE_SIGMOID ? dp[e] * p[e] * (1 - p[e]) : dp[e];
        for (int i = 0; i < C; i++) {
            grads[f->params.items[router].offset + e * C + i] += ds * x[i];
            dx[i] += ds * value_of(f, router)[e * C + i];
        }
    }
}

static void pass_token(const expert_rig *f, int *room, const double *x, double *y,
                       const double *dy, double *dx, double *grads)
{
    const dls_moe *m = &f->c.moe;
    int E = m->experts, mask[E], shared = f->layer->experts->weights;
    double p[E], sum = 0, dweight[E], scale = m->scale ? m->scale : 1;
    choose(f, x, p, mask);
    for (int e = 0; e < E; e++)
        sum += mask[e] ? p[e] : 0;
    for (int e = 0; e < E; e++) {
        int kept = mask[e] && room[e]-- > 0;
        double w = kept ? scale * p[e] / (m->normalised ? sum : 1) : 0;
        double dot = pass_expert(f, shared + 2 * e, m->hidden, w, x, y, dy, dx, grads);
        dweight[e] = kept ? dot : 0;
    }
    pass_router(f, p, mask, dweight, x, dx, grads);
    if (m->shared > 0)
        pass_expert(f, 0, m->shared * m->hidden, 1, x, y, dy, dx, grads);
}

/* pass all tokens naively */
expert_result expert_naive(const expert_rig *f)
{
    const expert_case *c = &f->c;
    expert_result r = new_result(f);
    for (int b = 0; b < c->B; b++) {
        int room[c->moe.experts];
        for (int e = 0; e < c->moe.experts; e++)
            room[e] = capacity_of(c);
        for (int t = 0; t < c->T; t++) {
            size_t at = (size_t)(b * c->T + t) * c->C;
            pass_token(f, room, f->input + at, r.y + at, f->slope + at, r.dx + at,
                       r.grads);
        }
    }
    return r;
}
