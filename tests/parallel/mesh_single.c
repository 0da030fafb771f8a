/* tests/parallel/mesh_single.c: from chapters/07-proof-layouts.md. Edit the chapter, or edit here and run "make untangle". */
/* A case of one stage: a model, with DDP and an optimizer or with ZeRO. */
#include "mesh_rank.h"

/* open a single stage */
static dls_status open_replicated(mesh_rank *r, const dls_adamw_options *adamw)
{
    dls_ddp_options ddp = {.bucket_bytes = 1000, .first_bucket_bytes = 300,
                           .axes = r->groups.cut};
    dls_params *set = &r->model->params;
    void *values = mesh_rank_fill(r, set);
    DLS_TRY(dls_optimizer_create(&r->optimizer, &r->ctx, set, adamw));
    DLS_TRY(dls_optimizer_put(r->optimizer, values));
    r->optimizer->axes = mesh_mutant_norm_axes(r->p->mutant, r->groups.cut);
    free(values);
    return dls_ddp_create(&r->ddp, &r->ctx, set->items, set->n, set->grads,
                          r->groups.data, &ddp);
}

static dls_status open_sharded(mesh_rank *r, const dls_adamw_options *adamw)
{
    const mesh_case *c = &r->p->c;
    dls_zero_options zero = {.stage = c->zero, .prefetch = c->prefetch, .adamw = *adamw,
                             .keep_forward = c->keep_forward, .axes = r->groups.cut};
    void *values = mesh_rank_fill(r, &r->model->params);
    DLS_TRY(dls_zero_create(&r->zero, &r->ctx, &r->model->params, r->groups.data, &zero));
    DLS_TRY(dls_zero_start(r->zero, values));
    free(values);
    dls_transformer_announce(r->model, dls_zero_units(r->zero));
    return DLS_OK;
}

dls_status mesh_single_open(mesh_rank *r)
{
    dls_adamw_options adamw = mesh_proof_adamw(r->p);
    DLS_TRY(mesh_rank_make(&r->model, &r->ctx, &r->place.model, r->p->c.micro,
                           r->place.T));
    dls_transformer_connect(r->model, r->groups.cut);
    r->model->pass.positions = r->positions;
    r->model->pass.T_whole = r->p->c.T;
    return (r->p->c.zero ? open_sharded : open_replicated)(r, &adamw);
}

/* step a single stage */
/* A pass over up to `micro` rows from `row` on; none: the replica has no more. */
static dls_status pass(mesh_rank *r, int row, const dls_grad_hook *hook)
{
    int left = r->rows > row ? r->rows - row : 0;
    int B = left < r->p->c.micro ? left : r->p->c.micro;
    int T = r->place.T, n = r->rows * T, at = B ? row * T : 0;
    size_t size = dls_dtype_size(r->ctx.dtype);
    if (B == 0 && r->p->c.moe.experts == 0)
        return r->zero ? dls_zero_idle_pass(r->zero) : DLS_OK;
    if (r->p->c.drops)
        dls_transformer_drop(r->model, 7, r->step, r->row + row);
    DLS_TRY(dls_transformer_forward(r->model, r->ids + at, r->ids + n + at, B, T));
    DLS_CUDA(cudaMemcpyAsync(r->losses + at * size, dls_transformer_losses(r->model),
                             (size_t)B * T * size, cudaMemcpyDeviceToDevice,
                             r->ctx.stream));
    return dls_transformer_backward(r->model, mesh_rank_scale(r), hook);
}

static dls_status step_replicated(mesh_rank *r)
{
    dls_grad_hook hook = {r->ddp, dls_ddp_grad_ready};
    DLS_TRY(dls_params_zero_grads(&r->model->params, &r->ctx));
    int all = r->p->c.moe.experts > 0 && r->p->mutant != MUTANT_NO_EMPTY_PASS;
    int rows = all ? r->most : r->rows;     // experts: also passes without rows
    for (int row = 0; row < rows; row += r->p->c.micro)
        DLS_TRY(pass(r, row, row + r->p->c.micro >= rows ? &hook : NULL));
    for (int i = r->model->params.n - 1; rows == 0 && i >= 0; i--)
        DLS_TRY(dls_ddp_grad_ready(r->ddp, i));
    DLS_TRY(dls_ddp_finish(r->ddp));
    DLS_TRY(mesh_mutant_spoil_gradients(r->p->mutant, &r->model->params, &r->ctx));
    return dls_optimizer_step(r->optimizer, mesh_proof_rate(r->p), r->step);
}

static dls_status step_sharded(mesh_rank *r)
{
    int micro = r->p->c.micro;
    DLS_TRY(dls_zero_begin(r->zero));
    for (int row = 0; row < r->most; row += micro) {
        DLS_TRY(dls_zero_begin_pass(r->zero, row + micro >= r->most));
        DLS_TRY(pass(r, row, dls_zero_hook(r->zero)));
    }
    DLS_TRY(dls_zero_step(r->zero, mesh_proof_rate(r->p), r->step));
    return dls_zero_sync(r->zero);
}

dls_status mesh_single_step(mesh_rank *r)
{
    DLS_TRY(dls_balance_clear(&r->model->balance));
    DLS_TRY((r->zero ? step_sharded : step_replicated)(r));
    return r->p->mutant == MUTANT_LOADS_APART
        ? dls_balance_step(&r->model->balance, r->model->config.moe.bias_rate)
        : dls_train_balance_settle(r->model, NULL);
}

/* show a single stage */
dls_status mesh_show_slices(mesh_rank *r, dls_zero *zero, const dls_params *set)
{
    dls_dtype dtype;
    char *values = calloc(dls_zero_elements(zero) + 1, sizeof(double));
    dls_status s = values ? dls_zero_fetch(zero, values, NULL, NULL) : DLS_ERR_MEMORY;
    for (int i = 0; s == DLS_OK && i < dls_zero_slices(zero); i++) {
        dls_zero_slice at = dls_zero_slice_at(zero, i);
        const void *grads = dls_zero_gradient(zero, i, &dtype);
        s = mesh_compare(r->p, &r->whole, set, r->step, at.first, at.count,
                         grads, values + at.at * dls_dtype_size(dtype));
    }
    free(values);
    return s;
}

dls_status mesh_single_visit(mesh_rank *r)
{
    const dls_params *set = &r->model->params;
    if (r->zero)
        DLS_TRY(mesh_show_slices(r, r->zero, set));
    else
        DLS_TRY(mesh_compare(r->p, &r->whole, set, r->step, 0, set->elements, set->grads,
                             set->values));
    DLS_TRY(mesh_compare_loads(r->p, r->step, 0, &r->model->balance));
    return mesh_compare_norm(r->p, r->step, r->zero ? dls_zero_norm(r->zero)
                                                    : r->optimizer->scalars + 1);
}

void mesh_single_close(mesh_rank *r)
{
    dls_zero_destroy(r->zero);
    dls_ddp_destroy(r->ddp);
    dls_optimizer_free(r->optimizer);
    dls_transformer_free(r->model);
}
