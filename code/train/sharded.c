/* code/train/sharded.c: from chapters/04-data-parallelism-zero-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/* The trainer's parts for ZeRO and FSDP. */
#include "train/sharded.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "train/pipelined.h"
#include "train/replicated.h"
#include "train/slices.h"
#include "train/state.h"
#include "vgpu/gpu.h"

/* read the sharding */
dls_status dls_train_read_sharding(dls_config *cfg, dls_train_config *c)
{
    int64_t size, ahead;
    dls_zero_options *z = &c->zero;
    int mode;
    DLS_TRY(dls_config_choice_or(cfg, "data_parallel", "ddp|zero1|zero2|zero3|hybrid", 0,
                                 &mode));
    c->sharded = mode > 0;
    c->hybrid = mode == 4;
    z->stage = mode == 4 ? 3 : mode;
    if (!c->sharded)
        return DLS_OK;
    DLS_TRY(dls_config_int_or(cfg, "zero.shard_size", 0, 1 << 20, 0, &size));
    DLS_TRY(dls_config_int_or(cfg, "zero.prefetch", 0, 1 << 10, 1, &ahead));
    DLS_TRY(dls_config_bool_or(cfg, "zero.keep_forward", 0, &z->keep_forward));
    DLS_TRY(dls_config_bool_or(cfg, "zero.offload", 0, &z->offload));
    DLS_TRY(dls_config_bool_or(cfg, "zero.narrow_gradients", 0, &z->narrow_gradients));
    z->shard_size = (int)size;
    z->prefetch = (int)ahead;
    z->adamw = c->adamw;
    c->model.unplaced = 1;
    return DLS_OK;
}

dls_zero_options dls_train_zero_options(const dls_train_config *c, int ranks)
{
    dls_zero_options o = c->zero;
    int node = dls_gpu_cluster()->gpus_per_node;
    if (c->hybrid && o.shard_size == 0)
        o.shard_size = ranks % node == 0 ? node : ranks;
    return o;
}

/* make the sharded parts */
dls_status dls_sharded_predict_memory(const dls_train_config *c,
                                      const dls_train_place *p, const dls_axes *axes,
                                      size_t bytes[DLS_MEM_PURPOSES])
{
    dls_zero_options o = dls_train_zero_options(c, p->holders);
    o.axes = axes;
    dls_params set = {0};
    dls_zero_sizes is = {0};
    dls_status s = dls_transformer_list(&p->model, &set);
    if (s == DLS_OK)
        s = dls_zero_predict(set.items, set.n, c->dtype, p->holders, &o, &is);
    dls_params_free(&set);
    bytes[DLS_MEM_PARAMETERS] = is.parameters;
    bytes[DLS_MEM_GRADIENTS] = is.gradients;
    bytes[DLS_MEM_OPTIMIZER] = is.optimizer;
    bytes[DLS_MEM_COMMUNICATION] = is.buffers;
    return s;
}

dls_status dls_sharded_predict_communication(const dls_train_config *c,
                                             const dls_train_place *p, dls_comm *data,
                                             const dls_axes *axes,
                                             dls_zero_scratch *out)
{
    dls_zero_options o = dls_train_zero_options(c, p->holders);
    o.axes = axes;
    dls_params set = {0};
    dls_status s = dls_transformer_list(&p->model, &set);
    if (s == DLS_OK)
        s = dls_zero_predict_scratch(set.items, set.n, c->dtype, data, &o, out);
    dls_params_free(&set);
    return s;
}

dls_status dls_sharded_create(dls_trainer *t)
{
    dls_params *set = &t->model->params;
    dls_zero_options o = dls_train_zero_options(t->config, t->place.holders);
    size_t size = dls_dtype_size(dls_dtype_accumulator(t->config->dtype));
    o.axes = t->groups.cut;
    DLS_TRY(dls_zero_create(&t->zero, &t->ctx, set, t->groups.data, &o));
    dls_transformer_announce(t->model, dls_zero_units(t->zero));
    void *host = malloc(set->elements * size);
    if (!host)
        return DLS_FAIL(DLS_ERR_MEMORY, "no host memory for %zu initial values",
                        set->elements);
    dls_params_fill(set, t->config->seed, host);
    dls_status s = dls_zero_start(t->zero, host);
    free(host);
    return s;
}

/* run a sharded step */
static dls_status pass_over(dls_trainer *t, int row)
{
    const dls_train_config *c = t->config;
    int T = t->place.T, B = dls_trainer_rows_from(t, row);
    if (B == 0 && !t->place.together)
        return dls_zero_idle_pass(t->zero);
    dls_transformer_drop(t->model, c->seed, t->step + 1, t->first_row + row);
    DLS_TRY(dls_transformer_forward(t->model, dls_batch_tokens(&t->batch, row),
                                    dls_batch_targets(&t->batch, row), B, T));
    DLS_TRY(dls_trainer_count(t, dls_transformer_losses(t->model), (size_t)B * T));
    return dls_transformer_backward(t->model, dls_trainer_loss_scale(t),
                                    dls_zero_hook(t->zero));
}

dls_status dls_sharded_step(dls_trainer *t, int64_t step)
{
    const dls_train_config *c = t->config;
    int most = (c->global_batch + t->place.replicas - 1) / t->place.replicas;
    DLS_TRY(dls_zero_begin(t->zero));
    for (int row = 0; row < most; row += c->micro_batch) {
        DLS_TRY(dls_zero_begin_pass(t->zero, row + c->micro_batch >= most));
        DLS_TRY(pass_over(t, row));
    }
    return dls_zero_step(t->zero, dls_lr_schedule_at(&c->schedule, step), step);
}

/* hold the state of a rank */
dls_status dls_trainer_hold(const dls_trainer *t, dls_held_state *h, int saved)
{
    size_t elements;
    *h = (dls_held_state){0};
    dls_status s = dls_trainer_slices(t, saved, &h->slices, &elements);
    size_t bytes = elements * dls_dtype_size(dls_dtype_accumulator(t->config->dtype));
    h->memory = s == DLS_OK ? calloc(3, bytes + 1) : NULL;
    if (s == DLS_OK && !h->memory)
        s = DLS_FAIL(DLS_ERR_MEMORY, "no host memory for a state of %zu bytes",
                     3 * bytes);
    if (s != DLS_OK) {
        dls_slices_free(&h->slices);
        return s;
    }
    h->state = (dls_shard_state){.slices = h->slices.items, .n = h->slices.n,
                                 .values = h->memory, .m = h->memory + bytes,
                                 .v = h->memory + 2 * bytes};
    return DLS_OK;
}

void dls_trainer_drop(dls_held_state *h)
{
    dls_slices_free(&h->slices);
    free(h->memory);
}

/* save and restore a rank */
static dls_status fetch_params(dls_trainer *t, const dls_shard_state *s)
{
    const dls_optimizer *o = t->optimizer;
    size_t bytes = t->model->params.elements
        * dls_dtype_size(dls_dtype_accumulator(t->config->dtype));
    if (t->pipelined)
        return dls_pipelined_fetch(t, s);
    if (t->zero)
        return dls_zero_fetch(t->zero, s->values, s->m, s->v);
    const void *from[] = {dls_optimizer_values(o), o->m, o->v};
    void *to[] = {s->values, s->m, s->v};
    DLS_TRY(dls_ctx_sync(&t->ctx));
    for (int i = 0; i < 3; i++)
        DLS_CUDA(cudaMemcpy(to[i], from[i], bytes, cudaMemcpyDeviceToHost));
    return DLS_OK;
}

/* Where the biases of routers stand, behind the parameters. */
static char *behind(const dls_trainer *t, void *values)
{
    return (char *)values + dls_trainer_elements(t)
        * dls_dtype_size(dls_dtype_accumulator(t->config->dtype));
}

dls_status dls_trainer_fetch(dls_trainer *t, const dls_shard_state *s)
{
    DLS_TRY(fetch_params(t, s));
    return dls_state_fetch(t, behind(t, s->values));
}

dls_status dls_sharded_save(dls_trainer *t)
{
    dls_held_state h;
    dls_checkpoint about = {
        .step = t->step, .dtype = t->config->dtype, .settings = t->settings,
        .elements = t->whole.elements, .layout = t->layout};
    DLS_TRY(dls_trainer_hold(t, &h, 1));
    dls_status s = dls_trainer_fetch(t, &h.state);
    if (s == DLS_OK)
        s = dls_shards_save(t->config->output, t->comm, &about, &h.state);
    dls_trainer_drop(&h);
    return s;
}

static dls_status put_state(dls_trainer *t, const dls_shard_state *s)
{
    size_t bytes = t->model->params.elements
        * dls_dtype_size(dls_dtype_accumulator(t->config->dtype));
    DLS_TRY(dls_state_put(t, behind(t, s->values)));
    if (t->pipelined)
        return dls_pipelined_put(t, s);
    if (t->zero)
        return dls_zero_put(t->zero, s->values, s->m, s->v);
    DLS_TRY(dls_optimizer_put(t->optimizer, s->values));
    DLS_CUDA(cudaMemcpy(t->optimizer->m, s->m, bytes, cudaMemcpyHostToDevice));
    DLS_CUDA(cudaMemcpy(t->optimizer->v, s->v, bytes, cudaMemcpyHostToDevice));
    return DLS_OK;
}

static dls_status check_state(const dls_trainer *t, const dls_checkpoint *c)
{
    DLS_TRY(dls_checkpoint_same("setting", c->settings, t->settings));
    return dls_checkpoint_check_layout(c, &t->whole);
}

/* *damaged := 1 on all ranks when this one or another met damage; the log says what. */
static dls_status tell_damage(dls_trainer *t, dls_status status, int *damaged)
{
    int mine = status != DLS_OK, all[t->world];
    if (mine)
        dls_log(DLS_LOG_WARN, "%s; all ranks look for the one before",
                dls_status_message());
    DLS_TRY(dls_comm_all_gather_host(t->comm, &mine, sizeof mine, all));
    for (int r = 0; r < t->world; r++)
        *damaged |= all[r];
    return DLS_OK;
}

static dls_status restore_parts(dls_trainer *t, dls_shards *s, dls_held_state *h,
                                int *damaged)
{
    DLS_TRY(tell_damage(t, dls_shards_read(s, &h->state), damaged));
    if (*damaged)
        return DLS_OK;
    DLS_TRY(put_state(t, &h->state));
    if (!t->ddp)
        return DLS_OK;
    dls_status hook = dls_replicated_restore_hook(t, s);
    return tell_damage(t, hook, damaged);
}

dls_status dls_sharded_restore(dls_trainer *t, dls_shards *s, int *damaged)
{
    dls_held_state h;
    *damaged = 0;
    DLS_TRY(check_state(t, &s->about));
    DLS_TRY(dls_trainer_hold(t, &h, 0));
    dls_status status = restore_parts(t, s, &h, damaged);
    dls_trainer_drop(&h);
    t->step = s->about.step;
    return status;
}

static void copy_slice(char *to, const char *from, const dls_zero_slice *s, size_t size)
{
    memcpy(to + s->at * size, from + s->first * size, s->count * size);
}

dls_status dls_sharded_restore_whole(dls_trainer *t, const dls_checkpoint *c)
{
    size_t size = dls_dtype_size(dls_dtype_accumulator(c->dtype));
    const void *from[] = {c->values, c->m, c->v};
    dls_held_state h;
    DLS_TRY(check_state(t, c));
    DLS_TRY(dls_trainer_hold(t, &h, 0));
    void *to[] = {h.state.values, h.state.m, h.state.v};
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < h.state.n; i++)
            copy_slice(to[k], from[k], &h.state.slices[i], size);
    dls_status s = put_state(t, &h.state);
    dls_trainer_drop(&h);
    t->step = c->step;
    return s;
}
