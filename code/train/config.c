/* code/train/config.c: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The settings of a run: read from the configuration with ranges, and written
 * down again as the text that a checkpoint keeps.
 */
#include <stdio.h>

#include "train/layout.h"
#include "train/pipelined.h"

/* read the batch settings */
static dls_status read_run(dls_config *cfg, dls_train_config *c)
{
    int64_t global, micro, seed;
    int choice;
    DLS_TRY(dls_config_string(cfg, "data.corpus", &c->corpus));
    DLS_TRY(dls_config_real_or(cfg, "data.validation_fraction", 0, 0.5, 0.1,
                               &c->validation_fraction));
    DLS_TRY(dls_config_int(cfg, "train.steps", 1, INT64_C(1) << 40, &c->steps));
    DLS_TRY(dls_config_int(cfg, "train.global_batch", 1, 1 << 20, &global));
    DLS_TRY(dls_config_int_or(cfg, "train.micro_batch", 1, 1 << 16, global, &micro));
    DLS_TRY(dls_config_int_or(cfg, "train.seed", 0, INT64_MAX, 1, &seed));
    DLS_TRY(dls_config_choice_or(cfg, "train.dtype", "f32|f64|bf16", 0, &choice));
    c->global_batch = (int)global;
    c->micro_batch = (int)micro;
    c->seed = (uint64_t)seed;
    c->dtype = (dls_dtype[]){DLS_F32, DLS_F64, DLS_BF16}[choice];
    return DLS_OK;
}

/* read the optimizer settings */
static dls_status read_optimizer(dls_config *cfg, dls_train_config *c)
{
    dls_adamw_options *w = &c->adamw;
    dls_lr_schedule *s = &c->schedule;
    const int64_t far = INT64_C(1) << 40;
    DLS_TRY(dls_config_real(cfg, "train.learning_rate", 0, 10, &s->maximum));
    DLS_TRY(dls_config_real_or(cfg, "train.minimum_learning_rate", 0, s->maximum,
                               s->maximum / 10, &s->minimum));
    DLS_TRY(dls_config_int_or(cfg, "train.warmup_steps", 0, far, 0, &s->warmup));
    s->steps = c->steps;
    DLS_TRY(dls_config_real_or(cfg, "train.weight_decay", 0, 1, 0.1, &w->weight_decay));
    DLS_TRY(dls_config_real_or(cfg, "train.beta1", 0, 0.99999, 0.9, &w->beta1));
    DLS_TRY(dls_config_real_or(cfg, "train.beta2", 0, 0.99999, 0.95, &w->beta2));
    DLS_TRY(dls_config_real_or(cfg, "train.epsilon", 1e-30, 1, 1e-8, &w->epsilon));
    return dls_config_real_or(cfg, "train.clip", 0, 1e30, 1, &w->clip);
}

/* read the intervals */
static dls_status read_trace_steps(dls_config *cfg, dls_train_config *c)
{
    const int64_t far = INT64_C(1) << 40;
    int n;
    DLS_TRY(dls_config_count(cfg, "train.trace_steps", &n));
    if (n == 0)
        return DLS_OK;
    if (n != 2)
        return dls_config_fail(cfg, "train.trace_steps", "expected [first, last], got "
                               "%d numbers", n);
    DLS_TRY(dls_config_int(cfg, "train.trace_steps.0", 1, far, &c->trace_from));
    return dls_config_int(cfg, "train.trace_steps.1", c->trace_from, far, &c->trace_to);
}

static dls_status read_intervals(dls_config *cfg, dls_train_config *c)
{
    const int64_t far = INT64_C(1) << 40;
    int64_t windows;
    DLS_TRY(dls_config_int_or(cfg, "train.log_every", 1, 1 << 16, 10, &c->log_every));
    DLS_TRY(dls_config_int_or(cfg, "train.evaluate_every", 0, far, 0,
                              &c->evaluate_every));
    DLS_TRY(dls_config_int_or(cfg, "train.evaluate_windows", 1, 1 << 20, 64, &windows));
    DLS_TRY(dls_config_int_or(cfg, "train.checkpoint_every", 0, far, 0,
                              &c->checkpoint_every));
    c->evaluate_windows = (int)windows;
    return read_trace_steps(cfg, c);
}

/* read the parallel settings */
/* read the hook */
/* Refuses KEY unless one of the hooks in the bit set `for_hooks` was chosen. */
static dls_status belongs(dls_config *cfg, const dls_train_config *c, const char *key,
                          const char *name, unsigned for_hooks)
{
    dls_hook_choice hook = c->ddp.hook.choice;
    if (!dls_config_has(cfg, key) || for_hooks >> hook & 1)
        return DLS_OK;
    return dls_config_fail(cfg, key, "expected only with ddp.hook: %s, got hook %s", name,
                           dls_hook_name(hook));
}

static dls_status check_keys(dls_config *cfg, const dls_train_config *c)
{
    const unsigned one_bit = 1u << DLS_HOOK_ONE_BIT_ADAM, low = 1u << DLS_HOOK_POWERSGD;
    const unsigned top = 1u << DLS_HOOK_TOP_K, local = 1u << DLS_HOOK_LOCAL_SGD;
    DLS_TRY(belongs(cfg, c, "ddp.reduce_dtype", "none", 1u << DLS_HOOK_NONE));
    DLS_TRY(belongs(cfg, c, "ddp.rank", "powersgd", low));
    DLS_TRY(belongs(cfg, c, "ddp.keep", "top_k", top));
    DLS_TRY(belongs(cfg, c, "ddp.ramp_steps", "top_k", top));
    DLS_TRY(belongs(cfg, c, "ddp.period", "local_sgd", local));
    return belongs(cfg, c, "ddp.warmup_steps", "powersgd, top_k, one_bit_adam, local_sgd",
                   one_bit | low | top | local);
}

static dls_status check_period(dls_config *cfg, const dls_train_config *c)
{
    const char *const names[] = {"train.steps", "train.evaluate_every",
                                 "train.checkpoint_every"};
    const int64_t every[] = {c->steps, c->evaluate_every, c->checkpoint_every};
    const dls_hook_options *h = &c->ddp.hook;
    for (int i = 0; i < 3 && h->choice == DLS_HOOK_LOCAL_SGD; i++)
        if (every[i] > h->warmup && (every[i] - h->warmup) % h->period != 0)
            return dls_config_fail(cfg, "ddp.period", "expected a divisor of %s less "
                                   "ddp.warmup_steps (%lld), got %lld", names[i],
                                   (long long)(every[i] - h->warmup),
                                   (long long)h->period);
    return DLS_OK;
}

static dls_status read_hook_choice(dls_config *cfg, dls_train_config *c)
{
    const int types[] = {DLS_F32, DLS_F64, DLS_BF16, DLS_COMM_F16};
    dls_hook_options *h = &c->ddp.hook;
    int choice;
    DLS_TRY(dls_config_choice_or(cfg, "ddp.hook", "none|bf16|fp16|powersgd|top_k|"
                                 "one_bit_adam|local_sgd", 0, &choice));
    h->choice = (dls_hook_choice)choice;
    DLS_TRY(check_keys(cfg, c));
    h->sums_in = dls_config_has(cfg, "ddp.reduce_dtype");
    DLS_TRY(dls_config_choice_or(cfg, "ddp.reduce_dtype", "f32|f64|bf16|fp16", 0,
                                 &choice));
    h->reduce_type = types[choice];
    return DLS_OK;
}

static dls_status read_hook(dls_config *cfg, dls_train_config *c)
{
    dls_hook_options *h = &c->ddp.hook;
    int64_t rank;
    DLS_TRY(read_hook_choice(cfg, c));
    int64_t warm = h->choice == DLS_HOOK_ONE_BIT_ADAM ? (c->steps + 4) / 5 : 0;
    DLS_TRY(dls_config_int_or(cfg, "ddp.rank", 1, 32, 4, &rank));
    DLS_TRY(dls_config_real_or(cfg, "ddp.keep", 1e-6, 1, 0.01, &h->keep));
    DLS_TRY(dls_config_int_or(cfg, "ddp.ramp_steps", 0, INT64_C(1) << 40, 0, &h->ramp));
    DLS_TRY(dls_config_int_or(cfg, "ddp.period", 1, INT64_C(1) << 40, 4, &h->period));
    DLS_TRY(dls_config_int_or(cfg, "ddp.warmup_steps",
                              h->choice == DLS_HOOK_ONE_BIT_ADAM, INT64_C(1) << 40, warm,
                              &h->warmup));
    h->rank = (int)rank;
    h->beta1 = c->adamw.beta1;
    h->seed = c->seed;
    return check_period(cfg, c);
}

/* read the rows */
static dls_status read_rows(dls_config *cfg, dls_train_config *c)
{
    int choice;
    int able = c->model.tied_head && c->overlap && c->ddp.hook.choice == DLS_HOOK_NONE
        && !c->ddp.hook.sums_in;
    DLS_TRY(dls_config_choice_or(cfg, "ddp.rows", "auto|never|always", 0, &choice));
    c->rows = able ? choice : DLS_ROWS_NEVER;
    if (choice == DLS_ROWS_ALWAYS && !able)
        return dls_config_fail(cfg, "ddp.rows", "expected always only with a tied head, "
                               "ddp.overlap and plain sums");
    return DLS_OK;
}

static dls_status read_parallel(dls_config *cfg, dls_train_config *c)
{
    int64_t bucket, first;
    int choice;
    DLS_TRY(read_hook(cfg, c));
    DLS_TRY(dls_config_int_or(cfg, "ddp.bucket_bytes", 1, INT64_C(1) << 40, 25 << 20,
                              &bucket));
    DLS_TRY(dls_config_int_or(cfg, "ddp.first_bucket_bytes", 1, INT64_C(1) << 40,
                              bucket < 1 << 20 ? bucket : 1 << 20, &first));
    DLS_TRY(dls_config_bool_or(cfg, "ddp.overlap", 1, &c->overlap));
    DLS_TRY(dls_config_string_or(cfg, "cluster", NULL, &c->cluster));
    DLS_TRY(dls_config_string_or(cfg, "output", "run", &c->output));
    DLS_TRY(dls_config_choice_or(cfg, "resume", "never|auto", 1, &choice));
    c->ddp.bucket_bytes = (size_t)bucket;
    c->ddp.first_bucket_bytes = (size_t)first;
    c->resume = choice;
    DLS_TRY(read_rows(cfg, c));
    DLS_TRY(dls_config_bool_or(cfg, "ddp.find_unused", 0, &c->ddp.find_unused));
    DLS_TRY(dls_config_bool_or(cfg, "ddp.reorder", 0, &c->ddp.reorder));
    return DLS_OK;
}

/* load the training configuration */
dls_status dls_train_config_load(dls_config *cfg, dls_train_config *c)
{
    *c = (dls_train_config){0};
    DLS_TRY(dls_transformer_config_load(&c->model, cfg));
    DLS_TRY(read_run(cfg, c));
    DLS_TRY(read_optimizer(cfg, c));
    DLS_TRY(read_intervals(cfg, c));
    DLS_TRY(read_parallel(cfg, c));
    DLS_TRY(dls_train_read_layout(cfg, c));
    DLS_TRY(dls_train_read_sharding(cfg, c));
    DLS_TRY(dls_train_read_pipeline(cfg, c));
    return dls_config_check_unused(cfg);
}

/* write down the settings */
enum { HOOK_SETTINGS = 256 };

static void hook_settings(const dls_hook_options *h, char text[HOOK_SETTINGS])
{
    text[0] = '\0';
    if (h->choice != DLS_HOOK_NONE || h->sums_in)
        snprintf(text, HOOK_SETTINGS, "ddp.hook=%s\nddp.reduce_dtype=%s\nddp.rank=%d\n"
                 "ddp.keep=%.17g\nddp.ramp_steps=%lld\nddp.period=%lld\n"
                 "ddp.warmup_steps=%lld\n",
                 dls_hook_name(h->choice),
                 h->sums_in ? dls_comm_type_name(h->reduce_type) : "-", h->rank, h->keep,
                 (long long)h->ramp, (long long)h->period, (long long)h->warmup);
}

char *dls_train_settings(const dls_train_config *c, uint64_t corpus_hash)
{
    const dls_adamw_options *w = &c->adamw;
    char *text = NULL, model[DLS_MODEL_SETTINGS], hook[HOOK_SETTINGS];
    dls_transformer_settings(&c->model, model);
    hook_settings(&c->ddp.hook, hook);
    int n = asprintf(
        &text,
        "%sdata.corpus_hash=%016llx\ndata.validation_fraction=%.17g\n"
        "train.steps=%lld\ntrain.global_batch=%d\ntrain.learning_rate=%.17g\n"
        "train.minimum_learning_rate=%.17g\ntrain.warmup_steps=%lld\n"
        "train.weight_decay=%.17g\ntrain.beta1=%.17g\ntrain.beta2=%.17g\n"
        "train.epsilon=%.17g\ntrain.clip=%.17g\ntrain.seed=%llu\ntrain.dtype=%s\n%s",
        model, (unsigned long long)corpus_hash, c->validation_fraction,
        (long long)c->steps, c->global_batch, c->schedule.maximum, c->schedule.minimum,
        (long long)c->schedule.warmup, w->weight_decay, w->beta1, w->beta2, w->epsilon,
        w->clip, (unsigned long long)c->seed, dls_dtype_name(c->dtype), hook);
    return n < 0 ? NULL : text;
}
