/* code/train/replicated.c: from chapters/04-data-parallelism-ddp-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* The trainer's parts for DDP. */
#include "train/replicated.h"

#include <stdlib.h>

#include "base/log.h"

/* choose the rows */
/* The sequences of the last pass of a rank that has `rows` of them. */
static int last_pass(const dls_train_config *c, int rows)
{
    return rows == 0 ? 0 : (rows - 1) % c->micro_batch + 1;
}

/* 1: a tied embedding is summed in two parts. Not if it is cut, or its tokens are. */
static int splits_rows(const dls_train_config *c, const dls_train_place *p)
{
    int64_t tokens = 0;
    for (int r = 0; r < p->replicas; r++)
        tokens += (int64_t)last_pass(c, dls_train_rows_of(c, r, p->replicas))
            * c->model.context;
    return p->plain && !p->together && (c->rows == DLS_ROWS_ALWAYS
        || (c->rows == DLS_ROWS_AUTO && p->replicas > 1
            && tokens <= c->model.vocabulary));
}

dls_status dls_replicated_announce(dls_trainer *t)
{
    int last = last_pass(t->config, t->rows);
    return dls_ddp_touch(t->ddp, dls_batch_host_tokens(&t->batch, t->rows - last),
                         (size_t)last * (size_t)t->model->config.context);
}

/* fill in the options of ddp */
dls_ddp_options dls_replicated_options(const dls_train_config *c,
                                       const dls_train_place *p)
{
    dls_ddp_options ddp = c->ddp;
    int rows = dls_train_rows_of(c, p->replica, p->replicas);
    ddp.rows_of = splits_rows(c, p);
    ddp.hook.local = rows ? (double)c->global_batch / rows : 1;
    return ddp;
}

/* predict the communication of ddp */
dls_status dls_replicated_predict_communication(const dls_train_config *c,
                                                const dls_train_place *p, dls_comm *data,
                                                const dls_axes *axes,
                                                dls_hook_memory *out)
{
    dls_ddp_options ddp = dls_replicated_options(c, p);
    dls_params set = {0};
    ddp.hook.momentum = &ddp;           // anything that is there
    ddp.axes = axes;
    dls_status s = dls_transformer_list(&p->model, &set);
    if (s == DLS_OK)
        s = dls_ddp_predict(set.items, set.n, c->dtype, data, &ddp, out);
    dls_params_free(&set);
    return s;
}

/* keep the state of a run with hooks */
static dls_status fetch_whole(const dls_trainer *t, char *host, size_t bytes)
{
    const void *from[] = {dls_optimizer_values(t->optimizer), t->optimizer->m,
                          t->optimizer->v};
    for (int i = 0; i < 3; i++)
        DLS_CUDA(cudaMemcpy(host + (size_t)i * bytes, from[i], bytes,
                            cudaMemcpyDeviceToHost));
    return DLS_OK;
}

static dls_status save_parts(dls_trainer *t, char *host, size_t bytes, char *extra)
{
    const dls_zero_slice whole = {0, t->model->params.elements, 0};
    const dls_hook *hook = dls_ddp_hook(t->ddp);
    dls_checkpoint about = {
        .step = t->step, .dtype = t->config->dtype, .settings = t->settings,
        .elements = t->model->params.elements, .layout = t->layout};
    dls_shard_state mine = {.slices = &whole, .n = t->rank == 0, .values = host,
                            .m = host + bytes, .v = host + 2 * bytes, .extra = extra,
                            .extra_bytes = dls_hook_state_bytes(hook)};
    DLS_TRY(dls_ctx_sync(&t->ctx));
    DLS_TRY(dls_hook_fetch(hook, extra));
    if (t->rank == 0)
        DLS_TRY(fetch_whole(t, host, bytes));
    return dls_shards_save(t->config->output, t->comm, &about, &mine);
}

dls_status dls_replicated_save(dls_trainer *t)
{
    size_t bytes = t->model->params.elements
        * dls_dtype_size(dls_dtype_accumulator(t->config->dtype));
    char *host = malloc(t->rank == 0 ? 3 * bytes : 1);
    char *extra = malloc(dls_hook_state_bytes(dls_ddp_hook(t->ddp)));
    dls_status s = host && extra ? save_parts(t, host, bytes, extra)
        : DLS_FAIL(DLS_ERR_MEMORY, "no host memory for a checkpoint");
    free(host);
    free(extra);
    return s;
}

static dls_status read_extras(dls_trainer *t, dls_shards *s, char **states,
                              size_t *bytes)
{
    const dls_hook *h = dls_ddp_hook(t->ddp);
    int same = s->files == t->world;
    for (int i = 0; i < s->files; i++) {
        bytes[i] = dls_hook_state_bytes(h);
        if (!same || i == t->rank)
            DLS_TRY(dls_shards_extra(s, i, &states[i], &bytes[i]));
    }
    if (!same && t->rank == 0)
        dls_log(DLS_LOG_WARN, "hook %s: %d ranks share what %d had kept",
                dls_hook_name(h->options.choice), t->world, s->files);
    return DLS_OK;
}

dls_status dls_replicated_restore_hook(dls_trainer *t, dls_shards *s)
{
    dls_hook *hook = dls_ddp_hook(t->ddp);
    if (dls_hook_state_bytes(hook) == 0)
        return DLS_OK;
    char **states = calloc((size_t)s->files, sizeof *states);
    size_t *bytes = calloc((size_t)s->files, sizeof *bytes);
    dls_status status = states && bytes ? read_extras(t, s, states, bytes)
        : DLS_FAIL(DLS_ERR_MEMORY, "no memory for the state of a hook");
    if (status == DLS_OK)
        status = dls_hook_put(hook, (const char *const *)states, bytes, s->files);
    for (int i = 0; states && i < s->files; i++)
        free(states[i]);
    free(states);
    free(bytes);
    return status;
}
