/* code/parallel/tensor/mlp_2d.c: from chapters/06-tensor-2d-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* Layers on a grid: products by SUMMA, the rest where the blocks are. */
#include "parallel/tensor/mlp_2d.h"

#include "kernels/bias.h"
#include "kernels/gelu.h"
#include "layers/param.h"
#include "tensor/memory.h"
#include "vgpu/gpu.h"

/* run a linear layer on a grid */
static int rows_here(const dls_summa *s)
{
    return dls_cut_size(s->M, s->grid->q, s->grid->row);
}

static int outputs_here(const dls_linear_2d *l, const dls_summa *s)
{
    return dls_cut_size(l->N, s->grid->q, s->grid->column);
}

/* The sides of the weight as it lies. */
static void measure(const dls_linear_2d *l, dls_summa *s)
{
    s->K = l->turned ? l->N : l->K;
    s->N = l->turned ? l->K : l->N;
}

dls_status dls_linear_2d_forward(const dls_linear_2d *l, dls_summa s, void *y,
                                 const void *x)
{
    measure(l, &s);
    DLS_TRY((l->turned ? dls_summa_input : dls_summa_forward)(&s, y, x, l->weight));
    return dls_bias_add(s.ctx, y, l->bias, rows_here(&s), outputs_here(l, &s));
}

dls_status dls_linear_2d_backward_input(const dls_linear_2d *l, dls_summa s, void *dx,
                                        const void *dy)
{
    measure(l, &s);
    return (l->turned ? dls_summa_forward : dls_summa_input)(&s, dx, dy, l->weight);
}

dls_status dls_linear_2d_backward_weight(const dls_linear_2d *l, dls_summa s,
                                         const void *x, const void *dy)
{
    measure(l, &s);
    DLS_TRY(dls_bias_backward(s.ctx, l->dbias, dy, rows_here(&s), outputs_here(l, &s)));
    return l->turned ? dls_summa_weight(&s, l->dweight, dy, x)
                     : dls_summa_weight(&s, l->dweight, x, dy);
}

/* open an mlp on a grid */
static size_t weight_count(const dls_grid *g, int K, int N)
{
    return (size_t)dls_cut_size(K, g->q, g->row)
        * (size_t)dls_cut_size(N, g->q, g->column);
}

/* Points the layer at the values and gradients from `at` on, which moves behind them. */
static void point(const dls_mlp_2d *m, dls_linear_2d *l, int K, int N, int turned,
                  size_t *at)
{
    size_t size = dls_dtype_size(m->ctx->dtype);
    size_t wide = dls_dtype_size(dls_dtype_accumulator(m->ctx->dtype));
    size_t weight = *at, bias = weight + weight_count(m->grid, turned ? N : K,
                                                      turned ? K : N);
    *l = (dls_linear_2d){K, N, turned, (char *)m->values + weight * size,
                         (char *)m->values + bias * size,
                         (char *)m->grads + weight * wide,
                         (char *)m->grads + bias * wide};
    *at = bias + (size_t)dls_cut_size(N, m->grid->q, m->grid->column);
}

static dls_status take(void **p, size_t elements, dls_dtype dtype,
                       dls_memory_purpose purpose)
{
    return dls_flat_buffer(p, elements * dls_dtype_size(dtype) + 1, purpose);
}

static dls_status take_memory(dls_mlp_2d *m, int channels, int hidden, int turned)
{
    const dls_grid *g = m->grid;
    dls_dtype dtype = m->ctx->dtype, wide = dls_dtype_accumulator(dtype);
    size_t inner = (size_t)dls_cut_size(m->M, g->q, g->row)
        * (size_t)dls_cut_size(hidden, g->q, g->column);
    size_t up = dls_summa_room(g, m->M, channels, hidden, dtype);
    size_t down = turned ? up : dls_summa_room(g, m->M, hidden, channels, dtype);
    DLS_TRY(take(&m->values, m->elements, dtype, DLS_MEM_PARAMETERS));
    DLS_TRY(take(&m->grads, m->elements, wide, DLS_MEM_GRADIENTS));
    DLS_CUDA(cudaMemset(m->grads, 0, m->elements * dls_dtype_size(wide)));
    DLS_TRY(take(&m->u, inner, dtype, DLS_MEM_ACTIVATIONS));
    DLS_TRY(take(&m->a, inner, dtype, DLS_MEM_ACTIVATIONS));
    DLS_TRY(take(&m->da, inner, dtype, DLS_MEM_ACTIVATIONS));
    return dls_flat_buffer(&m->room, up > down ? up : down, DLS_MEM_COMMUNICATION);
}

/* Points both layers; returns the elements of a rank. */
static size_t point_both(dls_mlp_2d *m, int channels, int hidden, int turned)
{
    size_t at = 0;
    point(m, &m->fc, channels, hidden, 0, &at);
    point(m, &m->proj, hidden, channels, turned, &at);
    return at;
}

dls_status dls_mlp_2d_open(dls_mlp_2d *m, dls_ctx *ctx, dls_grid *grid, int rows,
                           int channels, int hidden, int turned)
{
    *m = (dls_mlp_2d){.ctx = ctx, .grid = grid,
                      .M = dls_cut_size(rows, grid->d, grid->layer)};
    m->elements = point_both(m, channels, hidden, turned);
    DLS_TRY(take_memory(m, channels, hidden, turned));
    point_both(m, channels, hidden, turned);
    return DLS_OK;
}

void dls_mlp_2d_close(dls_mlp_2d *m)
{
    void *memory[] = {m->values, m->grads, m->u, m->a, m->da, m->room};
    for (int i = 0; i < 6; i++)
        dls_device_free(memory[i]);
    *m = (dls_mlp_2d){0};
}

/* run an mlp on a grid */
static dls_summa products(const dls_mlp_2d *m)
{
    return (dls_summa){.ctx = m->ctx, .grid = m->grid, .M = m->M, .room = m->room};
}

static size_t inner_count(const dls_mlp_2d *m)
{
    return (size_t)dls_cut_size(m->M, m->grid->q, m->grid->row)
        * (size_t)dls_cut_size(m->fc.N, m->grid->q, m->grid->column);
}

dls_status dls_mlp_2d_forward(dls_mlp_2d *m, void *y, const void *x)
{
    DLS_TRY(dls_linear_2d_forward(&m->fc, products(m), m->u, x));
    DLS_TRY(dls_gelu_forward(m->ctx, m->a, m->u, inner_count(m)));
    return dls_linear_2d_forward(&m->proj, products(m), y, m->a);
}

dls_status dls_mlp_2d_backward(dls_mlp_2d *m, void *dx, const void *dy, const void *x)
{
    DLS_TRY(dls_linear_2d_backward_input(&m->proj, products(m), m->da, dy));
    DLS_TRY(dls_linear_2d_backward_weight(&m->proj, products(m), m->a, dy));
    DLS_TRY(dls_gelu_backward(m->ctx, m->da, m->da, m->u, inner_count(m)));
    DLS_TRY(dls_linear_2d_backward_input(&m->fc, products(m), dx, m->da));
    return dls_linear_2d_backward_weight(&m->fc, products(m), x, m->da);
}

/* finish the gradients of a grid */
static dls_status sum_bias(const dls_mlp_2d *m, const dls_linear_2d *l)
{
    const dls_grid *g = m->grid;
    size_t n = (size_t)dls_cut_size(l->N, g->q, g->column);
    return g->in_column && n
        ? dls_comm_all_reduce(g->in_column, l->dbias, n,
                              dls_dtype_accumulator(m->ctx->dtype), DLS_SUM,
                              m->ctx->stream) : DLS_OK;
}

dls_status dls_mlp_2d_finish(dls_mlp_2d *m)
{
    DLS_TRY(sum_bias(m, &m->fc));
    DLS_TRY(sum_bias(m, &m->proj));
    return dls_grid_sum_depth(m->grid, m->grads, m->elements,
                              dls_dtype_accumulator(m->ctx->dtype), m->ctx->stream);
}
