/* code/train/sample.c: from chapters/09-transformer-generation.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Sampling: a frozen model from one of two places, a prompt of bytes or numbers, and a
 * generator for one sequence.
 */
#include "train/state.h"
#include "train/sample.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/generate.h"
#include "model/hf.h"
#include "train/shards.h"
#include "vgpu/gpu.h"

/* define the sample state */
enum { PIECE = 64 };

typedef struct sampled {
    dls_ctx ctx;
    dls_transformer *model;
    dls_generator *generator;
    int stops[DLS_HF_STOPS], nstops;
    int *tokens, n;             /* the prompt */
    const dls_sample_options *options;
} sampled;

static dls_status make_model(sampled *s, const dls_transformer_config *config,
                             dls_dtype dtype)
{
    dls_transformer_config c = *config;
    c.frozen = 1;
    c.split_backward = 0;
    DLS_TRY(dls_ctx_create(&s->ctx, 0, dtype));
    return dls_transformer_create(&s->model, &s->ctx, &c, 1,
                                  c.context < PIECE ? c.context : PIECE);
}

/* open a checkpoint to sample */
static dls_status find_checkpoint(const char *path, dls_checkpoint *c, dls_shards *cut)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return DLS_FAIL(DLS_ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return dls_checkpoint_load(path, c);
    DLS_TRY(dls_checkpoint_find(path, c));
    DLS_TRY(dls_shards_find(path, INT64_MAX, cut));
    if (!c->file && cut->files == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: no checkpoint in this directory", path);
    return DLS_OK;
}

/* Parameters, and the biases of routers behind them. */
static dls_status put_values(sampled *s, const char *host, size_t bytes)
{
    const dls_params *set = &s->model->params;
    size_t used = set->elements * dls_dtype_size(dls_dtype_accumulator(set->dtype));
    DLS_TRY(dls_params_put(&s->model->params, host));
    if (bytes > used)
        DLS_CUDA(cudaMemcpy(s->model->balance.bias, host + used, bytes - used,
                            cudaMemcpyHostToDevice));
    return DLS_OK;
}

static dls_status check_list(const dls_checkpoint *is)
{
    dls_params list = {0};
    dls_status s = dls_state_list(&is->model, &list);
    if (s == DLS_OK)
        s = dls_checkpoint_check_layout(is, &list);
    dls_params_free(&list);
    return s;
}

static dls_status put_shards(sampled *s, dls_shards *cut)
{
    size_t n = cut->about.elements;
    size_t bytes = n * dls_dtype_size(dls_dtype_accumulator(cut->about.dtype));
    const dls_zero_slice all = {0, n, 0};
    char *host = malloc(3 * bytes);
    if (!host)
        return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for a checkpoint");
    dls_shard_state state = {.slices = &all, .n = 1, .values = host, .m = host + bytes,
                             .v = host + 2 * bytes};
    dls_status status = dls_shards_read(cut, &state);
    if (status == DLS_OK)
        status = put_values(s, host, bytes);
    free(host);
    return status;
}

static dls_status open_checkpoint(sampled *s, const char *path)
{
    dls_checkpoint c = {0};
    dls_shards cut = {.files = 0};
    DLS_TRY(find_checkpoint(path, &c, &cut));
    int whole = cut.files == 0 || (c.file && c.step > cut.about.step);
    const dls_checkpoint *is = whole ? &c : &cut.about;
    dls_status status = make_model(s, &is->model, is->dtype);
    if (status == DLS_OK)
        status = check_list(is);
    if (status == DLS_OK)
        status = whole ? dls_params_put(&s->model->params, c.values)
                       : put_shards(s, &cut);
    dls_checkpoint_free(&c);
    dls_shards_close(&cut);
    return status;
}

static dls_status open_directory(sampled *s, const char *path, dls_dtype dtype)
{
    dls_hf_config c;
    DLS_TRY(dls_hf_config_load(path, &c));
    memcpy(s->stops, c.eos, sizeof s->stops);
    s->nstops = c.n_eos;
    DLS_TRY(make_model(s, &c.model, dtype));
    return dls_hf_load(path, &c.model, &s->model->params);
}

/* read the prompt */
static dls_status read_bytes(sampled *s, const char *prompt)
{
    int V = s->model->config.vocabulary;
    if (V > 256)
        return DLS_FAIL(DLS_ERR_INPUT, "prompt: a vocabulary of %d is not one of bytes; "
                        "token numbers are expected (--ids)", V);
    for (; prompt[s->n]; s->n++)
        s->tokens[s->n] = (unsigned char)prompt[s->n];
    return DLS_OK;
}

static dls_status read_numbers(sampled *s, const char *prompt)
{
    const char *at = prompt;
    for (char *end; *(at += strspn(at, " ,\n")); at = end) {
        long v = strtol(at, &end, 10);
        if (end == at || v < 0 || v > INT_MAX)
            return DLS_FAIL(DLS_ERR_INPUT, "prompt: expected token numbers, got "
                            "\"%.20s\"", at);
        s->tokens[s->n++] = (int)v;
    }
    return DLS_OK;
}

static dls_status read_prompt(sampled *s)
{
    const char *prompt = s->options->prompt;
    if (!prompt || !*prompt)
        prompt = s->options->ids ? "0" : "\n";
    s->tokens = malloc((strlen(prompt) + 1) * sizeof *s->tokens);
    if (!s->tokens)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the prompt");
    return s->options->ids ? read_numbers(s, prompt) : read_bytes(s, prompt);
}

/* run the sample */
static dls_status pass_on(void *self, int sequence, int token)
{
    const dls_sample_options *o = ((sampled *)self)->options;
    (void)sequence;
    return o->emit(o->self, token);
}

static dls_status sample(sampled *s, const dls_sample_options *o)
{
    DLS_TRY(o->model ? open_directory(s, o->model, o->dtype)
                     : open_checkpoint(s, o->checkpoint));
    DLS_TRY(read_prompt(s));
    DLS_TRY(dls_generator_create(&s->generator, s->model, 1));
    const dls_prompt prompt = {s->tokens, s->n, 0};
    const dls_generate_options g = {
        .draw = o->draw, .seed = o->seed, .tokens = o->tokens, .slides = 1,
        .stops = s->stops, .nstops = s->nstops, .emit = pass_on, .self = s};
    return dls_generator_run(s->generator, &prompt, 1, &g);
}

dls_status dls_sample_run(const dls_sample_options *o)
{
    sampled s = {.options = o};
    DLS_TRY(dls_draw_check(&o->draw));
    dls_status status = sample(&s, o);
    free(s.tokens);
    dls_generator_free(s.generator);
    dls_transformer_free(s.model);
    dls_ctx_destroy(&s.ctx);
    return status;
}
