/* code/model/generate.c: from chapters/09-transformer-generation.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Prefill takes one prompt at a time, in pieces; decode takes all sequences together, one
 * token each. The host waits once per token, for the scores.
 */
#include "model/generate.h"

#include <stdlib.h>
#include <string.h>

#include "model/stored.h"
#include "vgpu/gpu.h"

/* hold a sequence */
typedef struct sequence {
    int *tokens, n;             /* prompt and what was drawn */
    int start;                  /* the token at position 0 of the cache */
    uint32_t id;
    int drawn, done;
    char *seen;                 /* [V] 1: occurred */
} sequence;

struct dls_generator {
    dls_transformer *model;
    dls_cache cache;
    int room;                   /* sequences */
    int *device, *host;         /* [3][span]: tokens, positions, lengths */
    int span;                   /* the context or the room, whichever is more */
    void *raw;                  /* (room, V) the model's type, host */
    double *logits;             /* (V) */
    dls_candidate *candidates;  /* (V) */
    sequence *list;             /* [room] */
};

/* take the cache */
static dls_status take_cache(dls_generator *g)
{
    const dls_transformer_config *c = &g->model->config;
    size_t row = 2 * (size_t)c->kv_heads * c->head_size;
    g->cache = (dls_cache){.sequences = g->room, .length = c->context};
    size_t count = row * c->context * g->room * c->layers;
    return dls_device_alloc(&g->cache.rows, count, g->model->ctx->dtype,
                            DLS_MEM_ACTIVATIONS);
}

static dls_status take_rooms(dls_generator *g)
{
    size_t V = g->model->config.vocabulary, size = dls_dtype_size(g->model->ctx->dtype);
    DLS_TRY(take_cache(g));
    DLS_TRY(dls_device_alloc((void **)&g->device, 3 * (size_t)g->span, DLS_F32,
                             DLS_MEM_OTHER));
    g->host = malloc(3 * (size_t)g->span * sizeof *g->host);
    g->raw = malloc(g->room * V * size);
    g->logits = malloc(V * sizeof *g->logits);
    g->candidates = malloc(V * sizeof *g->candidates);
    g->list = calloc((size_t)g->room, sizeof *g->list);
    if (!g->host || !g->raw || !g->logits || !g->candidates || !g->list)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d sequences", g->room);
    return DLS_OK;
}

/* make a generator */
dls_status dls_generator_create(dls_generator **out, dls_transformer *model,
                                int sequences)
{
    if (sequences < 1 || sequences > model->plan.max_B)
        return DLS_FAIL(DLS_ERR_INPUT, "%d sequences at once: the model was made for %d",
                        sequences, model->plan.max_B);
    dls_generator *g = calloc(1, sizeof *g);
    if (!g)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a generator");
    g->model = model;
    g->room = sequences;
    g->span = model->config.context > sequences ? model->config.context : sequences;
    dls_status s = take_rooms(g);
    if (s != DLS_OK) {
        dls_generator_free(g);
        return s;
    }
    *out = g;
    return DLS_OK;
}

void dls_generator_free(dls_generator *g)
{
    if (!g)
        return;
    dls_device_free(g->cache.rows);
    dls_device_free(g->device);
    free(g->host);
    free(g->raw);
    free(g->logits);
    free(g->candidates);
    free(g->list);
    free(g);
}

/* send the integers */
static dls_status send(dls_generator *g, int n)
{
    for (int i = 0; i < 3; i++)         // the rows are g->span apart
        DLS_CUDA(cudaMemcpyAsync(g->device + i * g->span, g->host + i * g->span,
                                 (size_t)n * sizeof(int), cudaMemcpyHostToDevice,
                                 g->model->ctx->stream));
    return DLS_OK;
}

static dls_status fetch(dls_generator *g, int B)
{
    size_t V = g->model->config.vocabulary, size = dls_dtype_size(g->model->ctx->dtype);
    DLS_CUDA(cudaMemcpyAsync(g->raw, dls_transformer_scores(g->model), B * V * size,
                             cudaMemcpyDeviceToHost, g->model->ctx->stream));
    return dls_ctx_sync(g->model->ctx);
}

/* prefill a sequence */
static dls_status prefill(dls_generator *g, int index)
{
    sequence *s = &g->list[index];
    int n = s->n - s->start, step = g->model->plan.max_T, pieces = (n + step - 1) / step;
    int *tokens = g->host, *positions = tokens + g->span, *filled = positions + g->span;
    for (int i = 0; i < n; i++) {
        tokens[i] = s->tokens[s->start + i];
        positions[i] = i;
        filled[i] = (i + 1) * step < n ? (i + 1) * step : n;
    }
    DLS_TRY(send(g, n));
    dls_cache c = g->cache;
    c.first = index;
    for (int i = 0; i < pieces; i++) {
        c.quiet = i + 1 < pieces;
        c.longest = filled[i];
        c.filled = g->device + 2 * g->span + i;
        DLS_TRY(dls_transformer_continue(g->model, g->device + i * step,
                                         g->device + g->span + i * step, &c, 1,
                                         filled[i] - i * step));
    }
    return fetch(g, 1);
}

/* decode the sequences */
static dls_status decode(dls_generator *g, int B)
{
    int *tokens = g->host, *positions = tokens + g->span, *filled = positions + g->span;
    dls_cache c = g->cache;
    for (int b = 0; b < B; b++) {
        const sequence *s = &g->list[b];
        int last = s->done ? s->start : s->n - 1;
        tokens[b] = s->tokens[last];
        positions[b] = last - s->start;
        filled[b] = positions[b] + 1;
        c.longest = filled[b] > c.longest ? filled[b] : c.longest;
    }
    c.filled = g->device + 2 * g->span;
    DLS_TRY(send(g, B));
    DLS_TRY(dls_transformer_continue(g->model, g->device, g->device + g->span, &c, B, 1));
    return fetch(g, B);
}

/* draw for a sequence */
static int is_stop(const dls_generate_options *o, int token)
{
    for (int i = 0; i < o->nstops; i++)
        if (o->stops[i] == token)
            return 1;
    return 0;
}

/* Draws from row `row` of the scores that were fetched. */
static dls_status draw_next(dls_generator *g, int index, int row,
                            const dls_generate_options *o)
{
    sequence *s = &g->list[index];
    int V = g->model->config.vocabulary, token;
    dls_dtype dtype = g->model->ctx->dtype;
    const char *raw = g->raw;
    dls_stored_read(dls_stored_type_of(dtype), raw + row * dls_dtype_size(dtype) * V,
                    (size_t)V, DLS_F64, g->logits);
    double u = dls_draw_uniform(o->seed, s->id, (uint64_t)s->drawn);
    DLS_TRY(dls_draw_token(&o->draw, u, g->logits, V, s->seen, g->candidates,
                             &token));
    s->tokens[s->n++] = token;
    s->seen[token] = 1;
    s->drawn++;
    s->done = s->drawn >= o->tokens || is_stop(o, token);
    return o->emit(o->self, index, token);
}

/* forget the older half */
/* A sequence that is longer than the context begins anew with its newer half. */
static dls_status slide(dls_generator *g, int index, const dls_generate_options *o)
{
    sequence *s = &g->list[index];
    int context = g->model->config.context, kept = context > 1 ? context / 2 : 1;
    while (!s->done && s->n - s->start > context) {
        s->start = s->n - kept;
        DLS_TRY(prefill(g, index));
        DLS_TRY(draw_next(g, index, 0, o));
    }
    return DLS_OK;
}

/* check the prompts */
static dls_status check_prompt(const dls_generator *g, const dls_prompt *p, int index,
                               const dls_generate_options *o)
{
    int V = g->model->config.vocabulary, context = g->model->config.context;
    if (p->n < 1)
        return DLS_FAIL(DLS_ERR_INPUT, "prompt %d: expected at least one token", index);
    for (int i = 0; i < p->n; i++)
        if (p->tokens[i] < 0 || p->tokens[i] >= V)
            return DLS_FAIL(DLS_ERR_INPUT, "prompt %d: token %d at %d is not in the "
                            "model's vocabulary of %d", index, p->tokens[i], i, V);
    if (!o->slides && (int64_t)p->n + o->tokens > (int64_t)context + 1)
        return DLS_FAIL(DLS_ERR_INPUT, "prompt %d: %d tokens and %d to draw do not fit "
                        "the context of %d", index, p->n, o->tokens, context);
    return DLS_OK;
}

static dls_status check_run(const dls_generator *g, const dls_prompt *prompts, int n,
                            const dls_generate_options *o)
{
    DLS_TRY(dls_draw_check(&o->draw));
    if (n < 1 || n > g->room || o->tokens < 0 || o->tokens > 1 << 24)
        return DLS_FAIL(DLS_ERR_INPUT, "%d prompts and %d tokens to draw: expected 1 to "
                        "%d and 0 to %d", n, o->tokens, g->room, 1 << 24);
    for (int i = 0; i < n; i++)
        DLS_TRY(check_prompt(g, &prompts[i], i, o));
    return DLS_OK;
}

/* begin a sequence */
static dls_status begin_sequence(dls_generator *g, int index, const dls_prompt *p,
                                 const dls_generate_options *o)
{
    sequence *s = &g->list[index];
    int context = g->model->config.context;
    *s = (sequence){.n = p->n, .id = p->id, .done = o->tokens == 0};
    s->tokens = malloc(((size_t)p->n + o->tokens) * sizeof *s->tokens);
    s->seen = calloc((size_t)g->model->config.vocabulary, 1);
    if (!s->tokens || !s->seen)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d tokens", p->n + o->tokens);
    memcpy(s->tokens, p->tokens, (size_t)p->n * sizeof *s->tokens);
    for (int i = 0; i < p->n; i++)
        s->seen[p->tokens[i]] = 1;
    s->start = p->n > context ? p->n - context : 0;
    if (s->done)
        return DLS_OK;
    DLS_TRY(prefill(g, index));
    return draw_next(g, index, 0, o);
}

/* run the generator */
static int unfinished(const dls_generator *g, int n)
{
    int left = 0;
    for (int i = 0; i < n; i++)
        left += !g->list[i].done;
    return left;
}

static dls_status run_batch(dls_generator *g, const dls_prompt *prompts, int n,
                            const dls_generate_options *o)
{
    for (int i = 0; i < n; i++)
        DLS_TRY(begin_sequence(g, i, &prompts[i], o));
    while (unfinished(g, n) > 0) {
        for (int i = 0; i < n; i++)
            DLS_TRY(slide(g, i, o));
        if (unfinished(g, n) == 0)
            break;
        DLS_TRY(decode(g, n));
        for (int i = 0; i < n; i++)
            if (!g->list[i].done)
                DLS_TRY(draw_next(g, i, i, o));
    }
    return DLS_OK;
}

dls_status dls_generator_run(dls_generator *g, const dls_prompt *prompts, int n,
                             const dls_generate_options *o)
{
    DLS_TRY(check_run(g, prompts, n, o));
    dls_status s = run_batch(g, prompts, n, o);
    for (int i = 0; i < n; i++) {
        free(g->list[i].tokens);
        free(g->list[i].seen);
        g->list[i] = (sequence){0};
    }
    return s;
}
