/* tests/parallel/test_ddp_rows.c: from chapters/04-data-parallelism-ddp-rows.md. Edit the chapter, or edit here and run "make untangle". */
/* A tied embedding summed in two parts, as a layout. */
#include "layouts.h"

#include "parallel/data/ddp.h"

/* ddp with rows as a layout */
typedef struct rows_layout {
    dls_transformer *model;
    dls_optimizer *optimizer;
    dls_ddp *ddp;
    int wrong;          // 1: rank 1 keeps its rows to itself
} rows_layout;

static dls_status rows_open(void **self, const layout *l, dls_transformer *model,
                            dls_comm *comm, const void *values,
                            const dls_adamw_options *adamw)
{
    rows_layout *d = calloc(1, sizeof *d);
    EXPECT(d, "no memory");
    *d = (rows_layout){.model = model};
    d->wrong = l->options != NULL && dls_comm_rank(comm) == 1;
    DLS_TRY(dls_optimizer_create(&d->optimizer, model->ctx, &model->params, adamw));
    DLS_TRY(dls_optimizer_put(d->optimizer, values));
    DLS_TRY(dls_ddp_create(&d->ddp, model->ctx, model->params.items, model->params.n,
                           model->params.grads, comm,
                           &(dls_ddp_options){.bucket_bytes = 1000, .rows_of = 1,
                                              .first_bucket_bytes = 300}));
    *self = d;
    return DLS_OK;
}

static void rows_close(void *self)
{
    rows_layout *d = self;
    dls_ddp_destroy(d->ddp);
    dls_optimizer_free(d->optimizer);
    free(d);
}

static dls_status touch(rows_layout *d, const layout_rows *rows)
{
    int last = rows->passes - 1, n = layout_pass_rows(rows, last) * rows->T, ids[n + 1];
    DLS_CUDA(cudaMemcpy(ids, rows->tokens + last * rows->micro * rows->T,
                        (size_t)n * sizeof *ids, cudaMemcpyDeviceToHost));
    return dls_ddp_touch(d->ddp, ids, d->wrong ? 0 : (size_t)n);
}

static dls_status rows_step(void *self, const layout_rows *rows, double lr, int64_t step)
{
    rows_layout *d = self;
    dls_params *set = &d->model->params;
    dls_grad_hook hook = {d->ddp, dls_ddp_grad_ready};
    dls_grad_hook partial = {d->ddp, dls_ddp_grad_partial};
    int last = rows->passes - 1, empty = layout_pass_rows(rows, last) == 0;
    DLS_TRY(touch(d, rows));
    d->model->pass.partial = &partial;
    DLS_TRY(dls_params_zero_grads(set, d->model->ctx));
    for (int i = 0; i <= last; i++)
        DLS_TRY(layout_pass(rows, i, i == last ? &hook : NULL));
    if (empty)
        DLS_TRY(dls_ddp_grad_partial(d->ddp, 0));
    for (int i = set->n - 1; empty && i >= 0; i--)
        DLS_TRY(dls_ddp_grad_ready(d->ddp, i));
    DLS_TRY(dls_ddp_finish(d->ddp));
    return dls_optimizer_step(d->optimizer, lr, step);
}

static dls_status rows_visit(void *self, layout_see *see, void *to)
{
    const dls_params *set = &((rows_layout *)self)->model->params;
    return see(to, 0, set->elements, set->grads, set->values);
}

/* test shared rows */
#define ROWS_LAYOUT {.name = "rows", .open = rows_open, .step = rows_step, \
                     .visit = rows_visit, .close = rows_close}

Test(rows, a_tied_embedding_in_two_parts_equals_one_device)
{
    const layout rows = ROWS_LAYOUT;
    for (int n = 1; n <= 5; n++) {
        expect_layout(n, &rows, .exact = 1, .rows = 7, .micro = 2, .steps = 1, .clip = 8);
        expect_layout(n, &rows, .exact = 0, .rows = 7, .micro = 1, .steps = 3, .clip = 1);
    }
}

Test(rows, rows_that_a_rank_forgets_are_found)
{
    layout bad = ROWS_LAYOUT;
    bad.options = &bad;
    layout_proof proof = {&bad, .exact = 1, .rows = 4, .micro = 2, .steps = 1};
    cr_assert_eq(dls_run_ranks(2, layout_prove, &proof), DLS_ERR_STATE);
    cr_assert(strstr(dls_status_message(), "rows, step 1: gradient "), "%s",
              dls_status_message());
}
