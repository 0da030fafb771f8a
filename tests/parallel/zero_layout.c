/* tests/parallel/zero_layout.c: from chapters/04-data-parallelism-zero-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* ZeRO as a layout. */
#include "zero_layout.h"

/* open zero as a layout */
static dls_status zero_open(void **self, const layout *l, dls_transformer *model,
                            dls_comm *comm, const void *values,
                            const dls_adamw_options *adamw)
{
    dls_zero_options o = *(const dls_zero_options *)l->options;
    dls_zero *z;
    o.adamw = *adamw;
    DLS_TRY(dls_zero_create(&z, model->ctx, &model->params, comm, &o));
    DLS_TRY(dls_zero_start(z, values));
    dls_transformer_announce(model, dls_zero_units(z));
    *self = z;
    return DLS_OK;
}

static void zero_close(void *self)
{
    dls_zero_destroy(self);
}

/* step zero as a layout */
dls_status zero_layout_step(dls_zero *z, const layout_rows *rows, double lr, int64_t step)
{
    DLS_TRY(dls_zero_begin(z));
    for (int i = 0; i < rows->passes; i++) {
        DLS_TRY(dls_zero_begin_pass(z, i == rows->passes - 1));
        if (layout_pass_rows(rows, i) > 0)
            DLS_TRY(layout_pass(rows, i, dls_zero_hook(z)));
        else
            DLS_TRY(dls_zero_idle_pass(z));
    }
    return dls_zero_step(z, lr, step);
}

static dls_status zero_step(void *self, const layout_rows *rows, double lr, int64_t step)
{
    DLS_TRY(zero_layout_step(self, rows, lr, step));
    return dls_zero_sync(self);
}

/* show the slices of zero */
static dls_status zero_visit(void *self, layout_see *see, void *to)
{
    dls_zero *z = self;
    dls_dtype dtype;
    double *values = calloc(dls_zero_elements(z) + 1, sizeof *values);
    EXPECT(values, "no memory");
    DLS_TRY(dls_zero_fetch(z, values, NULL, NULL));
    for (int i = 0; i < dls_zero_slices(z); i++) {
        dls_zero_slice s = dls_zero_slice_at(z, i);
        const void *grads = dls_zero_gradient(z, i, &dtype);
        DLS_TRY(see(to, s.first, s.count, grads,
                    (char *)values + s.at * dls_dtype_size(dtype)));
    }
    free(values);
    return DLS_OK;
}

layout zero_layout(const char *name, const dls_zero_options *options)
{
    return (layout){.name = name, .unplaced = 1, .options = options, .open = zero_open,
                    .step = zero_step, .visit = zero_visit, .close = zero_close};
}
