/* code/train/replicated.c: from chapters/04-data-parallelism-ddp-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* The trainer's parts for DDP. */
#include "train/replicated.h"

/* choose the rows */
/* The sequences of the last pass of a rank that has `rows` of them. */
static int last_pass(const dls_train_config *c, int rows)
{
    return rows == 0 ? 0 : (rows - 1) % c->micro_batch + 1;
}

/* 1: a tied embedding is summed in two parts. */
static int splits_rows(const dls_train_config *c, int world)
{
    int64_t tokens = 0;
    for (int r = 0; r < world; r++)
        tokens += (int64_t)last_pass(c, dls_train_rows_of(c, r, world))
            * c->model.context;
    return c->rows == DLS_ROWS_ALWAYS
        || (c->rows == DLS_ROWS_AUTO && world > 1 && tokens <= c->model.vocabulary);
}

dls_status dls_replicated_announce(dls_trainer *t)
{
    int last = last_pass(t->config, t->rows);
    return dls_ddp_touch(t->ddp, dls_batch_host_tokens(&t->batch, t->rows - last),
                         (size_t)last * (size_t)t->model->config.context);
}

/* fill in the options of ddp */
dls_ddp_options dls_replicated_options(const dls_train_config *c, int rank, int world)
{
    dls_ddp_options ddp = c->ddp;
    int rows = dls_train_rows_of(c, rank, world);
    ddp.rows_of = splits_rows(c, world);
    ddp.hook.local = rows ? (double)c->global_batch / rows : 1;
    return ddp;
}

/* predict the communication of ddp */
dls_status dls_replicated_predict_communication(const dls_train_config *c, dls_comm *comm,
                                                size_t *bytes)
{
    int rank = dls_comm_rank(comm), world = dls_comm_size(comm);
    dls_ddp_options ddp = dls_replicated_options(c, rank, world);
    dls_params set = {0};
    dls_hook_memory is = {0};
    size_t meter;
    ddp.hook.momentum = &ddp;           // anything that is there
    DLS_TRY(dls_meter_scratch(comm, (int)c->log_every, c->dtype, &meter));
    dls_status s = dls_transformer_list(&c->model, &set);
    if (s == DLS_OK)
        s = dls_ddp_predict(set.items, set.n, c->dtype, comm, &ddp, &is);
    dls_params_free(&set);
    *bytes = is.buffers + is.scratch + meter + (is.updated > meter ? is.updated : 0);
    return s;
}
