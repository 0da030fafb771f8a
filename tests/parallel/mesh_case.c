/* tests/parallel/mesh_case.c: from chapters/07-proof-cases.md. Edit the chapter, or edit here and run "make untangle". */
/* Drawing a case, and what the program says to it. */
#include "mesh_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "train/layout.h"

/* draw a number */
typedef struct dice { uint64_t stream, at; } dice;

/* 0 ... n - 1. */
static int draw(dice *d, int n)
{
    return (int)(dls_rng_u32(17, d->stream, d->at++) % (unsigned)n);
}

static int larger(int a, int b)
{
    return a > b ? a : b;
}

/* draw the model of a case */
static void draw_heads(mesh_case *c, dice *d)
{
    int tp = c->mesh.size[DLS_AXIS_TP], cp = c->mesh.size[DLS_AXIS_CP];
    int dealt = c->way == DLS_CONTEXT_ULYSSES ? cp : larger(1, c->ulysses), fits[64];
    int n = 0;
    c->heads = tp * dealt * (tp * dealt <= 8 ? 1 + draw(d, 2) : 1);
    for (int k = 1; k <= c->heads; k++)
        if (c->heads % k == 0 && (k % tp == 0 || tp % k == 0))
            fits[n++] = k;
    c->kv_heads = c->llama ? fits[draw(d, n)] : c->heads;
}

static void draw_length(mesh_case *c, dice *d)
{
    int tp = c->mesh.size[DLS_AXIS_TP], cp = c->mesh.size[DLS_AXIS_CP];
    int unit = c->split_rows ? tp : 1;
    int local = unit * larger(1, (5 + draw(d, 2)) / (cp * unit));
    c->T = cp * local;
}

/* draw the pipeline of a case */
static int synchronous(const dls_schedule_entry *e)
{
    return e->step_every == 0 && strcmp(e->name, "forward-only") != 0;
}

static const char *draw_schedule(dice *d)
{
    const dls_schedule_entry *e;
    int n = 0;
    while (dls_schedule_at(n))
        n++;
    do
        e = dls_schedule_at(draw(d, n));
    while (!synchronous(e));
    return e->name;
}

static void draw_pipeline(mesh_case *c, dice *d)
{
    int pp = c->mesh.size[DLS_AXIS_PP], stages = pp;
    c->microbatches = 1 + draw(d, 3);
    c->schedule = pp > 1 ? draw_schedule(d) : NULL;
    if (c->schedule) {
        const dls_schedule_entry *e = dls_schedule_find(c->schedule);
        c->chunks = e->chunks ? e->chunks : pp <= 8 ? 2 : 1;
        c->microbatches = pp + draw(d, 2) * (pp <= 4);
        if (strncmp(c->schedule, "dualpipe", 8) == 0)
            c->microbatches = 2 * pp;
        stages *= c->chunks;
    }
    c->layers = larger(2, stages - 2) + (stages < 8 && draw(d, 2));
}

/* draw a case */
static void draw_rows(mesh_case *c, dice *d)
{
    int dp = c->mesh.size[DLS_AXIS_DP];
    int room = dp * c->microbatches, two = 2 * room * c->T <= MESH_TOKENS;
    c->micro = two ? 1 + draw(d, 2) : 1;
    room *= c->micro;
    c->rows = larger(1, room - draw(d, dp + 1));
}

static void draw_order(dls_mesh *m, dice *d)
{
    const dls_axis usual[] = {DLS_AXIS_TP, DLS_AXIS_CP, DLS_AXIS_PP, DLS_AXIS_DP};
    memcpy(m->order, usual, sizeof usual);
    for (int i = DLS_AXES - 1; i > 0 && draw(d, 2); i--) {
        int k = draw(d, i + 1);
        dls_axis kept = m->order[i];
        m->order[i] = m->order[k];
        m->order[k] = kept;
    }
}

void mesh_case_draw(mesh_case *c, const int size[DLS_AXES], int llama, int attempt)
{
    dice d = {((uint64_t)size[0] << 24) + (size[1] << 18) + (size[2] << 12)
              + (size[3] << 6) + llama, 100 * (uint64_t)attempt};
    int tp = size[DLS_AXIS_TP] > 1, cp = size[DLS_AXIS_CP];
    *c = (mesh_case){.mesh = {.ep = 1, .etp = 1}, .llama = llama};
    memcpy(c->mesh.size, size, sizeof c->mesh.size);
    draw_order(&c->mesh, &d);
    c->untied = draw(&d, 2);
    c->drops = draw(&d, 3);
    c->zero = draw(&d, 4);
    c->prefetch = draw(&d, 3);
    c->keep_forward = draw(&d, 2);
    c->recompute = (dls_recompute)draw(&d, 3);
    c->split_rows = tp && draw(&d, 2);
    c->overlap = tp ? 1 + draw(&d, 2) : 0;
    if (cp > 1) {
        c->way = (dls_context_way)draw(&d, 3);
        c->order = (dls_token_order)draw(&d, DLS_TOKEN_ORDERS);
        c->ulysses = c->way == DLS_CONTEXT_RING && cp % 2 == 0 && cp > 2 && draw(&d, 2)
            ? 2 : 0;
    }
    draw_heads(c, &d);
    draw_length(c, &d);
    draw_pipeline(c, &d);
    draw_rows(c, &d);
}

/* configure the model of a case */
dls_transformer_config mesh_case_config(const mesh_case *c, int exact)
{
    int tp = c->mesh.size[DLS_AXIS_TP], F = tp * ((9 + tp) / tp);
    dls_transformer_config m = c->llama
        ? dls_transformer_llama(MESH_V, c->T, c->layers, c->heads, c->kv_heads,
                                2 * c->heads, F)
        : dls_transformer_gpt2(MESH_V, c->T, c->layers, c->heads, 3 * c->heads);
    double p = exact ? 0.5 : 0.25;
    m.channels = MESH_C;
    m.hidden = F;
    m.tied_head = !c->untied;
    m.recompute = c->recompute;
    m.embedding_dropout = m.residual_dropout = c->drops ? p : 0;
    m.attention_dropout = c->drops == 2 && !exact ? p : 0;
    m.moe = exact ? mesh_exact_experts(c) : c->moe;
    return m;
}

/* ask whether a case can be */
dls_train_config mesh_case_settings(const mesh_case *c, int exact)
{
    dls_sharding sharding = {
        .tensor = c->mesh.size[DLS_AXIS_TP], .sequence = c->split_rows,
        .chunks = c->overlap, .context = c->mesh.size[DLS_AXIS_CP], .way = c->way,
        .order = c->order, .ulysses = larger(1, c->ulysses), .dispatch = c->dispatch};
    return (dls_train_config){
        .model = mesh_case_config(c, exact), .global_batch = c->rows,
        .micro_batch = c->micro, .mesh = c->mesh, .sharding = sharding,
        .pipeline = {.schedule = c->schedule, .chunks = c->chunks,
                     .microbatches = c->schedule ? c->microbatches : 0}};
}

dls_status mesh_case_check(const mesh_case *c)
{
    dls_train_config t = mesh_case_settings(c, 0);
    DLS_TRY(dls_transformer_config_check(&t.model));
    return dls_train_check_shape(&t, dls_mesh_world(&c->mesh));
}

/* write a case */
static const char *const ways[] = {"ring", "ulysses", "gather"};
static const char *const dropouts[] = {"", " dropout", " dropout+attention"};

void mesh_case_text(const mesh_case *c, char text[MESH_TEXT])
{
    const int *size = c->mesh.size;
    char order[DLS_ORDER_TEXT];
    dls_mesh_order_text(&c->mesh, order);
    int n = snprintf(text, MESH_TEXT, "dp%d pp%d tp%d cp%d (%s) %s%s H%d/%d L%d T%d "
                     "rows %d by %d zero%d recompute%d%s", size[DLS_AXIS_DP],
                     size[DLS_AXIS_PP], size[DLS_AXIS_TP], size[DLS_AXIS_CP], order,
                     c->llama ? "llama" : "gpt", c->untied ? "" : " tied", c->heads,
                     c->kv_heads, c->layers, c->T, c->rows, c->micro, c->zero,
                     c->recompute, dropouts[c->drops]);
    if (size[DLS_AXIS_TP] > 1)
        n += snprintf(text + n, MESH_TEXT - n, " %s overlap%d",
                      c->split_rows ? "sp" : "no-sp", c->overlap);
    if (size[DLS_AXIS_CP] > 1)
        n += snprintf(text + n, MESH_TEXT - n, " %s%d %s", ways[c->way], c->ulysses,
                      dls_token_order_name(c->order));
    if (c->schedule)
        n += snprintf(text + n, MESH_TEXT - n, " %s v%d m%d", c->schedule, c->chunks,
                      c->microbatches);
    if (c->moe.experts)
        mesh_case_text_experts(c, text + n, MESH_TEXT - n);
}
