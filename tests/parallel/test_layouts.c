/* tests/parallel/test_layouts.c: from chapters/04-data-parallelism-layouts.md. Edit the chapter, or edit here and run "make untangle". */
/* The judge of layouts, judged: the exact model is exact, faults are found. */
#include "layouts.h"

#include "base/rng.h"
#include "exact_model.h"
#include "kernels/kernels.h"
#include "parallel/data/ddp.h"

/* test that the exact model is exact */
enum { ROWS = 6, IDS = ROWS * EXACT_T };

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

/* Gradients and losses of one step, in the given type. Returns how many numbers. */
static size_t exact_numbers(dls_dtype dtype, double *out)
{
    dls_ctx ctx;
    dls_transformer *t;
    int ids[IDS], *device;
    OK(dls_ctx_create(&ctx, 0, dtype));
    OK(exact_model_create(&t, &ctx, 0, ROWS));
    exact_model_fill(&t->params, out);
    OK(dls_params_put(&t->params, out));
    for (int i = 0; i < IDS; i++)
        ids[i] = (int)(dls_rng_u32(5, 1, (uint64_t)i) % EXACT_V);
    OK(dls_device_alloc((void **)&device, IDS, DLS_F32, DLS_MEM_OTHER));
    cudaMemcpy(device, ids, sizeof ids, cudaMemcpyHostToDevice);
    OK(dls_transformer_forward(t, device, device, ROWS, EXACT_T));
    OK(dls_transformer_backward(t, 1, NULL));
    OK(dls_ctx_sync(&ctx));
    size_t n = t->params.elements, size = dls_dtype_size(dtype);
    static double room[4096];
    cudaMemcpy(room, t->params.grads, n * size, cudaMemcpyDeviceToHost);
    cudaMemcpy((char *)room + n * size, dls_transformer_losses(t), IDS * size,
               cudaMemcpyDeviceToHost);
    for (size_t i = 0; i < n + IDS; i++)
        out[i] = dtype == DLS_F64 ? room[i] : ((float *)room)[i];
    return n + IDS;
}

Test(layouts, the_exact_model_is_exact_and_alive)
{
    static double narrow[4096], wide[4096];
    size_t n = exact_numbers(DLS_F32, narrow), zeros = 0;
    cr_assert_eq(exact_numbers(DLS_F64, wide), n);
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        cr_assert_eq(narrow[i], wide[i], "number %zu: %.17g and %.17g", i, narrow[i],
                     wide[i]);
        cr_assert_eq(2 * narrow[i], floor(2 * narrow[i]), "number %zu: %.17g", i,
                     narrow[i]); // losses are halves
        zeros += narrow[i] == 0;
        most = fmax(most, fabs(narrow[i]));
    }
    cr_expect_lt(zeros, n / 2, "%zu of %zu numbers are zero", zeros, n);
    cr_assert_lt(most, 1 << 20, "the largest number is %g", most);
}

/* describe ddp as a layout */
typedef struct ddp_layout {
    dls_transformer *model;
    dls_optimizer *optimizer;
    dls_ddp *ddp;
    int fault;
} ddp_layout;

static dls_status ddp_open(void **self, const layout *l, dls_transformer *model,
                           dls_comm *comm, const void *values,
                           const dls_adamw_options *adamw)
{
    ddp_layout *d = calloc(1, sizeof *d);
    EXPECT(d, "no memory");
    *d = (ddp_layout){.model = model, .fault = l->options ? *(const int *)l->options : 0};
    DLS_TRY(dls_optimizer_create(&d->optimizer, model->ctx, &model->params, adamw));
    DLS_TRY(dls_optimizer_put(d->optimizer, values));
    DLS_TRY(dls_ddp_create(&d->ddp, model->ctx, model->params.items, model->params.n,
                           model->params.grads, comm,
                           &(dls_ddp_options){.bucket_bytes = 1000,
                                              .first_bucket_bytes = 300}));
    *self = d;
    return DLS_OK;
}

static void ddp_close(void *self)
{
    ddp_layout *d = self;
    dls_ddp_destroy(d->ddp);
    dls_optimizer_free(d->optimizer);
    free(d);
}

static dls_status spoil(ddp_layout *d);

static dls_status ddp_step(void *self, const layout_rows *rows, double lr, int64_t step)
{
    ddp_layout *d = self;
    dls_params *set = &d->model->params;
    dls_grad_hook hook = {d->ddp, dls_ddp_grad_ready};
    int last = rows->passes - 1, empty = layout_pass_rows(rows, last) == 0;
    DLS_TRY(dls_params_zero_grads(set, d->model->ctx));
    for (int i = 0; i <= last; i++)
        DLS_TRY(layout_pass(rows, i, i == last ? &hook : NULL));
    for (int i = set->n - 1; empty && i >= 0; i--)
        DLS_TRY(dls_ddp_grad_ready(d->ddp, i));
    DLS_TRY(dls_ddp_finish(d->ddp));
    DLS_TRY(spoil(d));
    return dls_optimizer_step(d->optimizer, lr, step);
}

static dls_status ddp_visit(void *self, layout_see *see, void *to)
{
    const dls_params *set = &((ddp_layout *)self)->model->params;
    return see(to, 0, set->elements, set->grads, set->values);
}

/* test ddp as a layout */
#define DDP {.name = "ddp", .open = ddp_open, .step = ddp_step, .visit = ddp_visit, \
             .close = ddp_close}

Test(layouts, ddp_equals_one_device)
{
    const layout ddp = DDP;
    for (int n = 1; n <= 5; n++) {
        expect_layout(n, &ddp, .exact = 1, .rows = 7, .micro = 2, .steps = 1, .clip = 8);
        expect_layout(n, &ddp, .exact = 0, .rows = 7, .micro = 2, .steps = 3, .clip = 1);
    }
    expect_layout(3, &ddp, .exact = 1, .rows = 2, .micro = 1, .steps = 1);
}

/* test that faults are found */
enum { FINE, DOUBLED, AVERAGED, NEAR };

static dls_status spoil(ddp_layout *d)
{
    const dls_params *set = &d->model->params;
    const dls_param *bias = dls_params_find(set, "ln_f.bias");
    dls_ctx *ctx = d->model->ctx;
    if (d->fault == DOUBLED)
        return dls_add(ctx, bias->grad, bias->grad, bias->grad, 1);
    if (d->fault == AVERAGED)
        return dls_scale(ctx, set->grads, 0.5, set->elements);
    if (d->fault == NEAR)
        return dls_scale(ctx, bias->grad, 1 + 1e-6, 3);
    return DLS_OK;
}

Test(layouts, faults_are_found)
{
    for (int exact = 0; exact <= 1; exact++)
        for (int fault = DOUBLED; fault <= NEAR; fault++) {
            layout bad = DDP;
            bad.options = &fault;
            layout_proof proof = {&bad, .exact = exact, .rows = 4, .micro = 2,
                                  .steps = 1};
            cr_assert_eq(dls_run_ranks(2, layout_prove, &proof), DLS_ERR_STATE);
            cr_assert(strstr(dls_status_message(), "ddp, step 1: gradient "), "%s",
                      dls_status_message());
        }
}
