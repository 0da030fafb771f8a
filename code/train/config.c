/* code/train/config.c: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The settings of a run: read from the configuration with ranges, and written
 * down again as the text that a checkpoint keeps.
 */
#include <stdio.h>

#include "train/train.h"

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
    dls_schedule *s = &c->schedule;
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
static dls_status read_parallel(dls_config *cfg, dls_train_config *c)
{
    int64_t bucket, first;
    int choice;
    DLS_TRY(dls_config_int_or(cfg, "ddp.bucket_bytes", 1, INT64_C(1) << 40, 25 << 20,
                              &bucket));
    DLS_TRY(dls_config_int_or(cfg, "ddp.first_bucket_bytes", 1, INT64_C(1) << 40,
                              bucket < 1 << 20 ? bucket : 1 << 20, &first));
    DLS_TRY(dls_config_bool_or(cfg, "ddp.overlap", 1, &c->overlap));
    DLS_TRY(dls_config_string_or(cfg, "cluster", NULL, &c->cluster));
    DLS_TRY(dls_config_string_or(cfg, "output", "run", &c->output));
    DLS_TRY(dls_config_choice_or(cfg, "resume", "never|auto", 1, &choice));
    c->bucket_bytes = (size_t)bucket;
    c->first_bucket_bytes = (size_t)first;
    c->resume = choice;
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
    return dls_config_check_unused(cfg);
}

/* write down the settings */
char *dls_train_settings(const dls_train_config *c, uint64_t corpus_hash)
{
    const dls_adamw_options *w = &c->adamw;
    char *text = NULL, model[DLS_MODEL_SETTINGS];
    dls_transformer_settings(&c->model, model);
    int n = asprintf(
        &text,
        "%sdata.corpus_hash=%016llx\ndata.validation_fraction=%.17g\n"
        "train.steps=%lld\ntrain.global_batch=%d\ntrain.learning_rate=%.17g\n"
        "train.minimum_learning_rate=%.17g\ntrain.warmup_steps=%lld\n"
        "train.weight_decay=%.17g\ntrain.beta1=%.17g\ntrain.beta2=%.17g\n"
        "train.epsilon=%.17g\ntrain.clip=%.17g\ntrain.seed=%llu\ntrain.dtype=%s\n",
        model, (unsigned long long)corpus_hash, c->validation_fraction,
        (long long)c->steps, c->global_batch, c->schedule.maximum, c->schedule.minimum,
        (long long)c->schedule.warmup, w->weight_decay, w->beta1, w->beta2, w->epsilon,
        w->clip, (unsigned long long)c->seed, dls_dtype_name(c->dtype));
    return n < 0 ? NULL : text;
}
