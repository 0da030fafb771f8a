/* code/layers/tensor.c: from chapters/06-tensor-parallelism-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* Column- and row-parallel products, and what stands in front of and behind them. */
#include "layers/tensor.h"

#include "kernels/kernels.h"
#include "layers/internal.h"
#include "layers/sliced.h"

/* find the units of a rank */
static int ranks(const dls_sharding *s)
{
    return s->tensor > 1 ? s->tensor : 1;
}

dls_piece dls_tensor_units(const dls_sharding *s, int n)
{
    size_t t = (size_t)ranks(s), r = (size_t)s->tensor_rank, units = (size_t)n;
    size_t begin = r * units / t;
    if (units < t)
        return (dls_piece){begin, 1, (int)(r % (t / units)), (int)(t / units)};
    return (dls_piece){begin, (r + 1) * units / t - begin, 0, 1};
}

/* cut a parameter */
int dls_tensor_cut(const dls_build *b, dls_param *story, int cut,
                   const dls_section *section, int sections)
{
    size_t begin = 0, local = 0;
    for (int i = 0; i < sections; i++) {
        size_t width = (size_t)section[i].width;
        dls_piece piece = dls_tensor_units(&b->sharding, section[i].units);
        piece.begin = begin + piece.begin * width;
        piece.count *= width;
        story->piece[i] = piece;
        begin += (size_t)section[i].units * width;
        local += piece.count;
    }
    story->cut = cut;
    story->pieces = ranks(&b->sharding) > 1 ? sections : 0;
    return (int)local;
}

/* gather and sum */
dls_status dls_tensor_comm(const dls_pass *p, dls_comm **out)
{
    *out = p->axes ? p->axes->tensor : NULL;
    return *out ? DLS_OK
        : DLS_FAIL(DLS_ERR_STATE, "a model cut over ranks runs without their "
                   "communicator: see dls_transformer_connect");
}

dls_status dls_tensor_check_rows(int B, int T, int t)
{
    int N = B * T, near = (N + t / 2) / t * t;
    return N % t == 0 ? DLS_OK
        : DLS_FAIL(DLS_ERR_INPUT, "micro-batch %d x %d: expected rows for %d slices, got "
                   "%d; the nearest number is %d", B, T, t, N, near > t ? near : t);
}

static dls_status slice_rows(const dls_pass *p, dls_comm *comm, size_t *rows)
{
    int t = dls_comm_size(comm);
    *rows = (size_t)(p->B * p->T / t);
    return dls_tensor_check_rows(p->B, p->T, t);
}

dls_status dls_tensor_gather(const dls_pass *p, int sliced, int columns,
                             const void **whole, const void *x)
{
    dls_comm *comm;
    size_t rows;
    *whole = x;
    if (!sliced)
        return DLS_OK;
    DLS_TRY(dls_tensor_comm(p, &comm));
    DLS_TRY(slice_rows(p, comm, &rows));
    *whole = p->temporary;
    return dls_comm_all_gather(comm, x, p->temporary, rows * columns, p->ctx->dtype,
                               p->ctx->stream);
}

void *dls_tensor_share(const dls_pass *p, int sliced, void *sum)
{
    return sliced ? p->temporary : sum;
}

dls_status dls_tensor_sum(const dls_pass *p, int sliced, int columns, void *sum,
                          void *share)
{
    size_t rows = (size_t)p->B * p->T;
    dls_comm *comm;
    DLS_TRY(dls_tensor_comm(p, &comm));
    if (!sliced)
        return dls_comm_all_reduce(comm, sum, rows * columns, p->ctx->dtype, DLS_SUM,
                                   p->ctx->stream);
    DLS_TRY(slice_rows(p, comm, &rows));
    return dls_comm_reduce_scatter(comm, share, sum, rows * columns, p->ctx->dtype,
                                   DLS_SUM, p->ctx->stream);
}

void dls_tensor_room(dls_plan *plan, int sliced, int columns)
{
    size_t rows = (size_t)plan->max_B * plan->max_T;
    if (sliced)
        dls_plan_temporary(plan, rows * columns * dls_dtype_size(plan->dtype));
}

/* multiply by columns */
static dls_status column_forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    if (!y || l->gathers)
        return !y ? DLS_OK : dls_column_gathered(l, p, y, x);
    return dls_linear_forward(p->ctx, y, x, dls_pass_value(p, l->weight),
                              l->bias < 0 ? NULL : dls_pass_value(p, l->bias),
                              p->B * p->T, l->in, l->out);
}

static dls_status column_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                        const void *dy, const void *x, void *y)
{
    (void)x, (void)y;
    if (l->gathers)
        return dls_column_scattered(l, p, dx, dy);
    DLS_TRY(dls_linear_backward_input(p->ctx, dx, dy, dls_pass_value(p, l->weight),
                                      p->B * p->T, l->in, l->out));
    return dls_tensor_sum(p, 0, l->in, dx, dx);
}

dls_status dls_column_weight(const dls_layer *l, dls_pass *p, const void *dy,
                             const void *whole_x)
{
    void *dbias = l->bias < 0 ? NULL : dls_pass_grad(p, l->bias);
    DLS_TRY(dls_linear_backward_weight(p->ctx, dls_pass_keep(p, l->weight),
                                       dls_pass_grad(p, l->weight), dbias, dy, whole_x,
                                       p->B * p->T, l->in, l->out));
    DLS_TRY(dls_pass_added(p, l->weight));
    return dbias ? dls_pass_added(p, l->bias) : DLS_OK;
}

static dls_status column_backward_weight(const dls_layer *l, dls_pass *p, const void *dy,
                                         const void *x)
{
    DLS_TRY(dls_tensor_gather(p, l->gathers, l->in, &x, x));
    return dls_column_weight(l, p, dy, x);
}

static void column_plan(dls_layer *l, dls_plan *plan)
{
    dls_column_room(l, plan);
}

static const dls_layer_kind column_kind = {
    .name = "column linear",
    .plan = column_plan,
    .forward = column_forward,
    .backward_input = column_backward_input,
    .backward_weight = column_backward_weight,
    .backward = dls_column_backward,
};

/* multiply by rows */
static dls_status row_forward(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    if (!y)
        return DLS_OK;
    if (l->slices > 1) {
        DLS_TRY(dls_row_scattered(l, p, y, x));
    } else {
        DLS_TRY(dls_linear_forward(p->ctx, y, x, dls_pass_value(p, l->weight), NULL,
                                   p->B * p->T, l->in, l->out));
        DLS_TRY(dls_tensor_sum(p, 0, l->out, y, y));
    }
    return l->bias < 0 ? DLS_OK
        : dls_bias_add(p->ctx, y, dls_pass_value(p, l->bias), dls_pass_rows(l, p),
                       l->out);
}

static dls_status row_backward_input(const dls_layer *l, dls_pass *p, void *dx,
                                     const void *dy, const void *x, void *y)
{
    (void)x, (void)y;
    if (l->slices > 1)
        return dls_row_gathered(l, p, dx, dy, NULL);
    return dls_linear_backward_input(p->ctx, dx, dy, dls_pass_value(p, l->weight),
                                     p->B * p->T, l->in, l->out);
}

dls_status dls_row_weight(const dls_layer *l, dls_pass *p, const void *dy,
                          const void *whole_dy, const void *x)
{
    DLS_TRY(dls_linear_backward_weight(p->ctx, dls_pass_keep(p, l->weight),
                                       dls_pass_grad(p, l->weight), NULL, whole_dy, x,
                                       p->B * p->T, l->in, l->out));
    DLS_TRY(dls_pass_added(p, l->weight));
    if (l->bias < 0)
        return DLS_OK;
    DLS_TRY(dls_bias_backward(p->ctx, dls_pass_grad(p, l->bias), dy, dls_pass_rows(l, p),
                              l->out));
    return dls_pass_added(p, l->bias);
}

static dls_status row_backward_weight(const dls_layer *l, dls_pass *p, const void *dy,
                                      const void *x)
{
    const void *whole;
    DLS_TRY(dls_tensor_gather(p, l->slices > 1, l->out, &whole, dy));
    return dls_row_weight(l, p, dy, whole, x);
}

static void row_plan(dls_layer *l, dls_plan *plan)
{
    dls_tensor_room(plan, l->slices > 1, l->out);
}

static const dls_layer_kind row_kind = {
    .name = "row linear",
    .plan = row_plan,
    .forward = row_forward,
    .backward_input = row_backward_input,
    .backward_weight = row_backward_weight,
    .backward = dls_row_backward,
};

/* make a cut product */
static dls_layer *make_cut(dls_build *b, const dls_layer_kind *kind, const char *name,
                           int in, int out, const dls_param *weight,
                           const dls_param *bias)
{
    dls_layer *l = dls_layer_make(b, kind, in, out);
    if (!l)
        return NULL;
    l->cut = 1;
    l->overlaps = b->sharding.chunks > 1;
    l->ignores_x = 1;
    l->weight = dls_layer_param(b, name, "weight", *weight);
    if (bias)
        l->bias = dls_layer_param(b, name, "bias", *bias);
    return l;
}

static dls_param weight_of(int in, int out, double std)
{
    return (dls_param){.ndim = 2, .shape = {(size_t)out, (size_t)in},
                       .init = DLS_INIT_NORMAL, .init_scale = std, .decay = 1,
                       .overwritten = 1};
}

dls_layer *dls_column_linear(dls_build *b, const char *name, int in,
                             const dls_section *section, int sections, int bias,
                             double std)
{
    int out = 0;
    for (int i = 0; i < sections; i++)
        out += section[i].units * section[i].width;
    if (ranks(&b->sharding) == 1)
        return dls_linear(b, name, in, out, bias, std);
    dls_param weight = weight_of(in, out, std), shift = {.ndim = 1, .shape = {out}};
    int local = dls_tensor_cut(b, &weight, 0, section, sections);
    dls_tensor_cut(b, &shift, 0, section, sections);
    dls_layer *l = make_cut(b, &column_kind, name, in, local, &weight,
                            bias ? &shift : NULL);
    if (l)
        l->gathers = b->sharding.sequence;
    return l;
}

dls_layer *dls_row_linear(dls_build *b, const char *name, dls_section in, int out,
                          int bias, double std)
{
    int columns = in.units * in.width;
    if (ranks(&b->sharding) == 1)
        return dls_linear(b, name, columns, out, bias, std);
    dls_param weight = weight_of(columns, out, std), shift = {.ndim = 1, .shape = {out}};
    int local = dls_tensor_cut(b, &weight, 1, &in, 1);
    return make_cut(b, &row_kind, name, local, out, &weight, bias ? &shift : NULL);
}
