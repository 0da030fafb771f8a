/* code/train/trainer.c: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * One step of data-parallel training, and making, evaluating, saving and
 * resuming what it works on. Nothing in a step waits for the device.
 */
#include "train/trainer.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "comm/scratch.h"
#include "train/balance.h"
#include "train/checkpoint.h"
#include "train/memory.h"
#include "train/layout.h"
#include "train/pipelined.h"
#include "train/replicated.h"
#include "train/sharded.h"
#include "train/state.h"

/* report all gradients at once */
static dls_status report_all_grads(dls_trainer *t)
{
    for (int i = t->model->params.n - 1; i >= 0; i--)
        DLS_TRY(dls_ddp_grad_ready(t->ddp, i));
    return DLS_OK;
}

/* run one micro batch */
double dls_trainer_loss_scale(const dls_trainer *t)
{
    const dls_train_config *c = t->config;
    return 1.0 / ((double)c->global_batch * c->model.context);
}

dls_status dls_trainer_count(dls_trainer *t, const void *losses, size_t N)
{
    return t->place.tensor_rank == 0 && N > 0 ? dls_meter_add(&t->meter, losses, N)
                                              : DLS_OK;
}

int dls_trainer_rows_from(const dls_trainer *t, int row)
{
    int left = t->rows - row, micro = t->config->micro_batch;
    return left < 0 ? 0 : left < micro ? left : micro;
}

static dls_status one_pass(dls_trainer *t, int row)
{
    int T = t->place.T, B = dls_trainer_rows_from(t, row);
    int last = row + t->config->micro_batch >= dls_train_passes_end(t->config, &t->place);
    dls_grad_hook hook = {t->ddp, dls_ddp_grad_ready};
    dls_grad_hook partial = {t->ddp, dls_ddp_grad_partial};
    dls_transformer_drop(t->model, t->config->seed, t->step + 1, t->first_row + row);
    DLS_TRY(dls_transformer_forward(t->model, dls_batch_tokens(&t->batch, row),
                                    dls_batch_targets(&t->batch, row), B, T));
    DLS_TRY(dls_trainer_count(t, dls_transformer_losses(t->model), (size_t)B * T));
    t->model->pass.partial = last ? &partial : NULL;
    DLS_TRY(dls_transformer_backward(t->model, dls_trainer_loss_scale(t),
                                     last && t->config->overlap ? &hook : NULL));
    t->model->pass.partial = NULL;
    return last && !t->config->overlap ? report_all_grads(t) : DLS_OK;
}

/* load the windows of a step */
static dls_status load_step_windows(dls_trainer *t)
{
    int first, n;
    dls_sampler_share(&t->training, t->place.replica, t->place.replicas, &first, &n);
    DLS_TRY(dls_sampler_windows(&t->training, t->step, first, n, t->offsets));
    t->first_row = first;
    return dls_batch_load(&t->batch, dls_corpus_bytes(t->corpus), t->offsets, n);
}

/* train one step */
/* The optimizer, and what the hook does around it. */
static dls_status update(dls_trainer *t, int64_t step)
{
    dls_hook *hook = dls_ddp_hook(t->ddp);
    double lr = dls_lr_schedule_at(&t->config->schedule, step);
    int momentum = dls_hook_gives_momentum(hook);
    t->optimizer->frozen = momentum ? t->config->ddp.hook.warmup : 0;
    DLS_TRY(dls_optimizer_step(t->optimizer, lr, step));
    return dls_hook_updated(hook, &t->ctx, t->model->params.values,
                            t->optimizer->master);
}

static dls_status replicated_step(dls_trainer *t, int64_t step)
{
    DLS_TRY((t->rows > 0 ? dls_params_renew_grads : dls_params_zero_grads)(
        &t->model->params, &t->ctx));
    DLS_TRY(dls_replicated_announce(t));
    int end = dls_train_passes_end(t->config, &t->place);
    for (int row = 0; row < end; row += t->config->micro_batch)
        DLS_TRY(one_pass(t, row));
    if (end == 0) { /* a batch smaller than the world: zeros */
        DLS_TRY(dls_ddp_grad_partial(t->ddp, 0));
        DLS_TRY(report_all_grads(t));
    }
    DLS_TRY(dls_ddp_finish(t->ddp));
    return update(t, step);
}

dls_status dls_trainer_step(dls_trainer *t)
{
    int64_t step = t->step + 1;
    DLS_TRY(dls_meter_begin(&t->meter));
    DLS_TRY(load_step_windows(t));
    DLS_TRY(dls_train_balance_begin(t));
    DLS_TRY(t->pipelined ? dls_pipelined_step(t, step)
            : t->zero ? dls_sharded_step(t, step) : replicated_step(t, step));
    DLS_TRY(dls_train_balance_end(t));
    DLS_TRY(dls_meter_end(&t->meter, t->pipelined ? dls_pipelined_norm(t)
                          : t->zero ? dls_zero_norm(t->zero)
                                    : t->optimizer->scalars + 1));
    t->step = step;
    return DLS_OK;
}

/* evaluate the model */
dls_status dls_trainer_count_evaluation(dls_trainer *t, const void *losses, size_t N)
{
    return t->place.tensor_rank == 0 && N > 0
        ? dls_meter_add_evaluation(&t->meter, losses, N) : DLS_OK;
}

/* B 0: in step with ranks that have rows, since parameters may be gathered. */
static dls_status evaluate_pass(dls_trainer *t, int first, int B)
{
    int T = t->place.T;
    if (B == 0 && !t->place.together)
        return t->pipelined ? dls_pipelined_evaluate(t, 0)
            : t->zero ? dls_zero_idle_forward(t->zero) : DLS_OK;
    dls_transformer_keep(t->model);
    DLS_TRY(dls_sampler_windows(&t->validation, 0, first, B, t->offsets));
    DLS_TRY(dls_batch_load(&t->batch, dls_corpus_bytes(t->corpus), t->offsets, B));
    if (t->pipelined)
        return dls_pipelined_evaluate(t, B);
    DLS_TRY(dls_transformer_forward(t->model, dls_batch_tokens(&t->batch, 0),
                                    dls_batch_targets(&t->batch, 0), B, T));
    return dls_trainer_count_evaluation(t, dls_transformer_losses(t->model),
                                        (size_t)B * T);
}

dls_status dls_trainer_evaluate(dls_trainer *t, double *loss)
{
    int first, n, b = t->config->micro_batch;
    int most = (t->config->evaluate_windows + t->place.replicas - 1)
        / t->place.replicas;
    double sum;
    dls_sampler_share(&t->validation, t->place.replica, t->place.replicas, &first, &n);
    DLS_TRY(dls_meter_begin_evaluation(&t->meter));
    for (int i = 0; i < most; i += b)
        DLS_TRY(evaluate_pass(t, first + i, n < i ? 0 : n - i < b ? n - i : b));
    DLS_TRY(dls_meter_read_evaluation(&t->meter, t->comm, &sum));
    *loss = sum / ((double)t->config->evaluate_windows * t->config->model.context);
    return DLS_OK;
}

/* prepare a run */
/* make the samplers */
static dls_status make_samplers(dls_trainer *t)
{
    const dls_train_config *c = t->config;
    uint64_t begin, end;
    dls_corpus_part(t->corpus, DLS_PART_TRAINING, &begin, &end);
    DLS_TRY(dls_sampler_init(&t->training, c->seed, begin, end, c->model.context,
                             c->global_batch));
    if (c->evaluate_every == 0)
        return DLS_OK;
    dls_corpus_part(t->corpus, DLS_PART_VALIDATION, &begin, &end);
    if (end - begin < (uint64_t)c->model.context + 1)
        return DLS_FAIL(DLS_ERR_INPUT, "data.validation_fraction: %g of %s is %llu "
                        "bytes, less than one window of %d", c->validation_fraction,
                        c->corpus, (unsigned long long)(end - begin),
                        c->model.context + 1);
    return dls_sampler_init(&t->validation, c->seed, begin, end, c->model.context,
                            c->evaluate_windows);
}

/* open the data */
static dls_status open_data(dls_trainer *t)
{
    const dls_train_config *c = t->config;
    DLS_TRY(dls_corpus_open(c->corpus, &t->corpus));
    DLS_TRY(dls_corpus_split(t->corpus, c->validation_fraction));
    uint64_t hash = dls_hash64(dls_corpus_bytes(t->corpus), dls_corpus_size(t->corpus));
    t->settings = dls_train_settings(c, hash);
    if (!t->settings)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the settings");
    return make_samplers(t);
}

/* check the batch */
int dls_train_rows_of(const dls_train_config *c, int rank, int world)
{
    dls_sampler batch = {.batch = c->global_batch};
    int first, n;
    dls_sampler_share(&batch, rank, world, &first, &n);
    return n;
}

static dls_status check_batch(const dls_train_config *c, int world)
{
    if (c->global_batch >= world || c->ddp.hook.choice != DLS_HOOK_LOCAL_SGD)
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_INPUT, "train.global_batch: %d sequences are too few for %d "
                    "ranks that train locally; expected at least one each",
                    c->global_batch, world);
}

/* predict the memory of a rank */
static int batch_rows(const dls_train_config *c, int rows)
{
    return rows > c->micro_batch ? rows : c->micro_batch;
}

/* make the parts */
static dls_status set_initial_values(dls_trainer *t)
{
    const dls_params *set = &t->model->params;
    void *host = malloc(set->elements *
                        dls_dtype_size(dls_dtype_accumulator(set->dtype)));
    if (!host)
        return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for %zu initial values",
                        set->elements);
    dls_params_fill(set, t->config->seed, host);
    dls_status s = dls_optimizer_put(t->optimizer, host);
    free(host);
    return s;
}

static dls_status make_replicated(dls_trainer *t)
{
    const dls_train_config *c = t->config;
    DLS_TRY(dls_optimizer_create(&t->optimizer, &t->ctx, &t->model->params, &c->adamw));
    DLS_TRY(set_initial_values(t));
    dls_ddp_options ddp = dls_replicated_options(c, &t->place);
    ddp.hook.momentum = t->optimizer->m;
    ddp.hook.variance = t->optimizer->v;
    ddp.axes = t->optimizer->axes = t->groups.cut;
    return dls_ddp_create(&t->ddp, &t->ctx, t->model->params.items, t->model->params.n,
                          t->model->params.grads, t->groups.data, &ddp);
}

/* In a pipeline the whole model is a list of names: its parts have the memory. */
static dls_status make_model(dls_trainer *t)
{
    const dls_train_config *c = t->config;
    dls_transformer_config m = t->place.model;
    DLS_TRY(dls_state_list(&c->model, &t->whole));
    if (c->pipeline.schedule) {
        m.unplaced = 1;
        m.to_unit = m.layers + 2;
    }
    DLS_TRY(dls_transformer_create(&t->model, &t->ctx, &m, c->micro_batch, t->place.T));
    dls_transformer_connect(t->model, t->groups.cut);
    return DLS_OK;
}

static dls_status make_batch(dls_trainer *t, int rows)
{
    int where[t->place.T];
    DLS_TRY(dls_batch_create(&t->batch, &t->ctx, rows, t->place.T));
    if (t->place.model.sharding.context == 1)
        return DLS_OK;
    DLS_TRY(dls_train_positions(&t->place, where));
    DLS_TRY(dls_batch_place(&t->batch, where, t->config->micro_batch));
    t->model->pass.positions = t->batch.positions;
    t->model->pass.T_whole = t->config->model.context;
    return DLS_OK;
}

static dls_status reserve_experts(dls_trainer *t, const dls_axes *axes,
                                  const dls_layer_scratch *is)
{
    if (is->context)
        DLS_TRY(dls_comm_reserve(axes->context, is->context, t->ctx.stream));
    if (is->rows)
        DLS_TRY(dls_comm_reserve(axes->rows, is->rows, t->ctx.stream));
    if (is->counts)
        DLS_TRY(dls_comm_reserve(axes->counts, is->counts, t->ctx.stream));
    return is->shares ? dls_comm_reserve(axes->shares, is->shares, t->ctx.stream)
                      : DLS_OK;
}

static dls_status reserve(dls_trainer *t)
{
    const dls_train_config *c = t->config;
    const dls_axes *axes = t->groups.cut;
    dls_layer_scratch layers;
    size_t meter;
    DLS_TRY(dls_meter_scratch(t->comm, (int)c->log_every, c->dtype, &meter));
    DLS_TRY(dls_comm_reserve(t->comm, meter, t->ctx.stream));
    DLS_TRY(dls_train_layer_scratch(c, &t->place, axes, &layers));
    if (layers.tensor)
        DLS_TRY(dls_comm_reserve(axes->tensor, layers.tensor, t->ctx.stream));
    if (layers.ring)
        DLS_TRY(dls_comm_reserve(axes->ring, layers.ring, axes->stream));
    return reserve_experts(t, axes, &layers);
}

static dls_status make_parts(dls_trainer *t)
{
    const dls_train_config *c = t->config;
    int rows = batch_rows(c, t->rows), device;
    DLS_CUDA(cudaGetDevice(&device));
    DLS_TRY(dls_ctx_create(&t->ctx, device, c->dtype));
    DLS_CUDA(dls_gpu_name_stream(t->ctx.stream, "compute"));
    DLS_TRY(dls_train_groups_open(&t->groups, &t->place, t->comm));
    DLS_TRY(make_model(t));
    DLS_TRY(make_batch(t, rows));
    DLS_TRY(dls_meter_create(&t->meter, &t->ctx, (int)c->log_every));
    DLS_TRY(reserve(t));
    t->offsets = calloc((size_t)rows, sizeof *t->offsets);
    t->layout = dls_checkpoint_layout(&t->whole);
    if (!t->offsets || !t->layout)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the training loop");
    return c->pipeline.schedule ? dls_pipelined_create(t)
        : c->sharded ? dls_sharded_create(t) : make_replicated(t);
}

/* keep the state */
/* choose the checkpoint */
typedef struct found { int64_t step; int sharded; } found; // step 0: none

/* Rank 0 looks for the newest good one of both kinds, and keeps it open. */
static dls_status look_for_checkpoint(dls_trainer *t, int64_t before, dls_checkpoint *c,
                                      dls_shards *s, found *f)
{
    DLS_TRY(dls_checkpoint_find(t->config->output, c));
    DLS_TRY(dls_shards_find(t->config->output, before, s));
    int sharded = s->files > 0 && (!c->file || s->about.step > c->step);
    *f = (found){sharded ? s->about.step : c->file ? c->step : 0, sharded};
    return DLS_OK;
}

static dls_status choose_checkpoint(dls_trainer *t, int64_t before, dls_checkpoint *c,
                                    dls_shards *s, found *f)
{
    char path[PATH_MAX];
    found all[t->world];
    *f = (found){-1, 0};
    if (t->rank == 0)
        DLS_TRY(look_for_checkpoint(t, before, c, s, f));
    DLS_TRY(dls_comm_all_gather_host(t->comm, f, sizeof *f, all));
    *f = all[0];
    if (t->rank == 0 || f->step == 0)
        return DLS_OK;
    (f->sharded ? dls_shards_path : dls_checkpoint_path)(path, sizeof path,
                                                         t->config->output, f->step);
    return f->sharded ? dls_shards_open(path, s) : dls_checkpoint_load(path, c);
}

/* resume from a checkpoint */
static dls_status try_newest(dls_trainer *t, int64_t before, found *f, int *damaged)
{
    dls_checkpoint c = {0};
    dls_shards s = {0};
    dls_status status = choose_checkpoint(t, before, &c, &s, f);
    if (status == DLS_OK && f->step > 0)
        status = f->sharded ? dls_sharded_restore(t, &s, damaged)
                            : dls_sharded_restore_whole(t, &c);
    dls_checkpoint_free(&c);
    dls_shards_close(&s);
    return status;
}

static dls_status resume(dls_trainer *t)
{
    found f = {INT64_MAX, 0};
    for (int damaged = 1; damaged;) {
        damaged = 0;
        DLS_TRY(try_newest(t, f.step, &f, &damaged));
    }
    if (t->ddp)
        dls_ddp_hook(t->ddp)->step = t->step;
    return DLS_OK;
}

/* fetch the state */
static dls_status fetch_state(dls_trainer *t, char *host, size_t bytes)
{
    const void *from[] = {dls_optimizer_values(t->optimizer), t->optimizer->m,
                          t->optimizer->v};
    for (int i = 0; i < 3; i++)
        DLS_CUDA(cudaMemcpyAsync(host + (size_t)i * bytes, from[i], bytes,
                                 cudaMemcpyDeviceToHost, t->ctx.stream));
    return dls_ctx_sync(&t->ctx);
}

/* save the state */
dls_status dls_trainer_save(dls_trainer *t)
{
    dls_dtype wide = dls_dtype_accumulator(t->config->dtype);
    size_t bytes = t->model->params.elements * dls_dtype_size(wide);
    if (t->zero || t->pipelined || !t->place.plain || t->config->model.moe.bias_rate > 0)
        return dls_sharded_save(t);
    if (dls_hook_state_bytes(dls_ddp_hook(t->ddp)) > 0)
        return dls_replicated_save(t);
    if (t->rank != 0)
        return DLS_OK;
    char *host = malloc(3 * bytes);
    if (!host)
        return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for a checkpoint of %zu bytes",
                        3 * bytes);
    dls_checkpoint c = {
        .step = t->step, .dtype = t->config->dtype, .model = t->config->model,
        .elements = t->model->params.elements, .settings = t->settings,
        .layout = t->layout, .values = host, .m = host + bytes, .v = host + 2 * bytes};
    dls_status s = fetch_state(t, host, bytes);
    if (s == DLS_OK)
        s = dls_checkpoint_save(t->config->output, &c);
    free(host);
    return s;
}

/* start over */
static dls_status start_over(dls_trainer *t)
{
    if (t->rank != 0)
        return DLS_OK;
    dls_log(DLS_LOG_INFO, "starting over in %s: earlier checkpoints are removed",
            t->config->output);
    DLS_TRY(dls_shards_prune(t->config->output, 0));
    return dls_checkpoint_prune(t->config->output, 0);
}

/* free the trainer */
void dls_trainer_free(dls_trainer *t)
{
    if (!t)
        return;
    if (t->ctx.stream)
        cudaStreamSynchronize(t->ctx.stream);   // its errors were told already
    if (t->zero)
        dls_zero_sync(t->zero);
    dls_zero_destroy(t->zero);
    dls_pipelined_free(t->pipelined);
    dls_ddp_destroy(t->ddp);
    dls_meter_destroy(&t->meter);
    dls_batch_destroy(&t->batch);
    dls_optimizer_free(t->optimizer);
    dls_transformer_free(t->model);
    dls_params_free(&t->whole);
    dls_train_groups_close(&t->groups);
    dls_ctx_destroy(&t->ctx);
    dls_corpus_close(t->corpus);
    free(t->offsets);
    free(t->settings);
    free(t->layout);
    free(t);
}

/* create the trainer */
/* begin the run */
static dls_status begin_run(dls_trainer *t)
{
    DLS_TRY(dls_file_mkdirs(t->config->output));
    if (t->config->resume)
        DLS_TRY(resume(t));
    else
        DLS_TRY(start_over(t));
    if (t->zero || t->pipelined)
        return DLS_OK;          // every rank has set its own slices
    if (t->optimizer->master)
        DLS_TRY(dls_ddp_broadcast(t->ddp, t->optimizer->master,
                                  dls_dtype_accumulator(t->ctx.dtype)));
    return dls_ddp_broadcast(t->ddp, t->model->params.values, t->ctx.dtype);
}

dls_status dls_trainer_create(dls_trainer **out, const dls_train_config *config,
                              dls_comm *comm)
{
    dls_status s;
    dls_trainer *t = calloc(1, sizeof *t);
    if (!t)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a trainer");
    t->config = config;
    t->comm = comm;
    t->rank = dls_comm_rank(comm);
    t->world = dls_comm_size(comm);
    DLS_TRY_GOTO(s, dls_train_check_layout(config, t->world), fail);
    DLS_TRY_GOTO(s, check_batch(config, t->world), fail);
    DLS_TRY_GOTO(s, dls_train_place_of(config, t->rank, t->world, &t->place), fail);
    t->rows = dls_train_rows_of(config, t->place.replica, t->place.replicas);
    DLS_TRY_GOTO(s, open_data(t), fail);
    DLS_TRY_GOTO(s, make_parts(t), fail);
    DLS_TRY_GOTO(s, begin_run(t), fail);
    *out = t;
    return DLS_OK;
fail:
    dls_trainer_free(t);
    return s;
}
