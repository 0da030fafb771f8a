/* code/train/sample.c: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Sampling: the model sees the last `context` tokens, gives the scores of the
 * next one, and one uniform number per position decides. The whole window is
 * computed again for each token; a cache of keys and values is chapter 16's.
 */
#include "train/sample.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/rng.h"
#include "train/checkpoint.h"
#include "vgpu/gpu.h"

/* define the sampler state */
enum { SAMPLE_STREAM = 0x73616d70 };    // "samp": a stream of its own

typedef struct sampler_state {
    dls_ctx ctx;
    dls_transformer *model;
    int *tokens, n;             /* prompt and what was drawn, host */
    int *device;                /* (context) the tokens the model sees */
    double *logits;             /* (V) host */
} sampler_state;

/* sort the candidates */
typedef struct candidate { double logit; int token; } candidate;

static int likelier(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->token - y->token;
}

/* draw a token */
int dls_sample_token(const double *logits, int V, double temperature, int top_k,
                     double uniform)
{
    candidate list[V];
    int n = top_k > 0 && top_k < V ? top_k : V;
    for (int i = 0; i < V; i++)
        list[i] = (candidate){logits[i], i};
    qsort(list, (size_t)V, sizeof *list, likelier);
    if (temperature <= 0)
        return list[0].token;
    double sum = 0, highest = list[0].logit;
    for (int i = 0; i < n; i++)
        sum += list[i].logit = exp((list[i].logit - highest) / temperature);
    double left = uniform * sum;
    for (int i = 0; i + 1 < n; i++)
        if ((left -= list[i].logit) < 0)
            return list[i].token;
    return list[n - 1].token;
}

/* generate tokens */
static dls_status next_token(sampler_state *s, const dls_sample_options *o, int i,
                             int *token)
{
    int T = s->n < s->model->config.context ? s->n : s->model->config.context;
    DLS_CUDA(cudaMemcpyAsync(s->device, s->tokens + s->n - T, (size_t)T * sizeof(int),
                             cudaMemcpyHostToDevice, s->ctx.stream));
    DLS_TRY(dls_transformer_logits(s->model, s->device, T, s->logits));
    for (int v = 0; v < s->model->config.vocabulary; v++)
        if (!isfinite(s->logits[v]))
            return DLS_FAIL(DLS_ERR_STATE, "the model's scores are not finite");
    *token = dls_sample_token(s->logits, s->model->config.vocabulary, o->temperature,
                              o->top_k, dls_rng_uniform(o->seed, SAMPLE_STREAM, i));
    return DLS_OK;
}

static dls_status generate(sampler_state *s, const dls_sample_options *o)
{
    for (int i = 0; i < o->tokens; i++) {
        int token = 0;
        DLS_TRY(next_token(s, o, i, &token));
        s->tokens[s->n++] = token;
        DLS_TRY(o->emit(o->self, token));
    }
    return DLS_OK;
}

/* load the sampled model */
static dls_status load_any(const char *path, dls_checkpoint *c)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return DLS_FAIL(DLS_ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return dls_checkpoint_load(path, c);
    DLS_TRY(dls_checkpoint_find(path, c));
    if (!c->file)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: no checkpoint in this directory", path);
    return DLS_OK;
}

static dls_status open_model(sampler_state *s, const dls_checkpoint *c)
{
    if (c->model.vocabulary > 256)
        return DLS_FAIL(DLS_ERR_INPUT, "a vocabulary of %d is not one of bytes",
                        c->model.vocabulary);
    DLS_TRY(dls_ctx_create(&s->ctx, 0, c->dtype));
    DLS_TRY(dls_transformer_create(&s->model, &s->ctx, &c->model, 1, c->model.context));
    DLS_TRY(dls_checkpoint_check_layout(c, &s->model->params));
    DLS_TRY(dls_params_put(&s->model->params, c->values));
    DLS_CUDA(cudaMalloc((void **)&s->device, c->model.context * sizeof(int)));
    return DLS_OK;
}

/* run the sampler */
static dls_status read_prompt(sampler_state *s, const dls_sample_options *o)
{
    const char *prompt = o->prompt && *o->prompt ? o->prompt : "\n";
    size_t n = strlen(prompt);
    s->tokens = malloc((n + (size_t)o->tokens) * sizeof *s->tokens);
    s->logits = malloc((size_t)s->model->config.vocabulary * sizeof *s->logits);
    if (!s->tokens || !s->logits)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d tokens", o->tokens);
    for (size_t i = 0; i < n; i++) {
        int byte = (unsigned char)prompt[i];
        if (byte >= s->model->config.vocabulary)
            return DLS_FAIL(DLS_ERR_INPUT, "prompt: byte %d at %zu is not in the model's "
                            "vocabulary of %d", byte, i, s->model->config.vocabulary);
        s->tokens[s->n++] = byte;
    }
    return DLS_OK;
}

dls_status dls_sample_run(const dls_sample_options *o)
{
    dls_checkpoint c = {0};
    sampler_state s = {0};
    dls_status status;
    if (o->tokens < 0 || o->tokens > 1 << 24 || !(o->temperature >= 0) || o->top_k < 0)
        return DLS_FAIL(DLS_ERR_INPUT, "sampling: %d tokens at temperature %g, top-k %d: "
                        "none of them may be negative", o->tokens, o->temperature,
                        o->top_k);
    DLS_TRY(load_any(o->checkpoint, &c));
    DLS_TRY_GOTO(status, open_model(&s, &c), done);
    DLS_TRY_GOTO(status, read_prompt(&s, o), done);
    status = generate(&s, o);
done:
    free(s.tokens);
    free(s.logits);
    dls_device_free(s.device);
    dls_transformer_free(s.model);
    dls_ctx_destroy(&s.ctx);
    dls_checkpoint_free(&c);
    return status;
}
