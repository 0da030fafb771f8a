/* tests/parallel/exact_attention.c: from chapters/07-proof-exact.md. Edit the chapter, or edit here and run "make untangle". */
/* Attention in whole numbers: cut-off products as weights. */
#include "exact_layers.h"

/* multiply heads */
/* Sum over a head's columns of a[i ...] and b[j ...], each cut off. */
static double heads_product(const exact_op *o, int a, size_t i, double most_a, int b,
                            size_t j, double most_b)
{
    double sum = 0;
    for (int c = 0; c < o->size; c++)
        sum += exact_cut(exact_get(o, a, i + c), most_a)
            * exact_cut(exact_get(o, b, j + c), most_b);
    return sum;
}

/* Where query row r and key row s of a sequence stand; NULL: in order. */
static int sees(const exact_op *o, int b, int r, int s)
{
    int q = o->ids ? o->ids[b * o->T + r] : r;
    return (o->ids_k ? o->ids_k[b * o->Tk + s] : s) <= q;
}

/* attend in whole numbers */
/* a: y (rows, heads size), q (rows, q_row), k, v (B Tk, k_row); adds to y */
static void attend(const exact_op *o, int b, int r, int h)
{
    size_t head = (size_t)(h / (o->heads / o->kv_heads)) * o->size;
    size_t q = ((size_t)b * o->T + r) * o->q_row + (size_t)h * o->size;
    size_t y = ((size_t)b * o->T + r) * o->out + (size_t)h * o->size;
    for (int s = 0; s < o->Tk; s++) {
        size_t k = ((size_t)b * o->Tk + s) * o->k_row + head;
        if (!sees(o, b, r, s))
            continue;
        double weight = exact_cut(heads_product(o, 1, q, 4, 2, k, 4), 1);
        for (int c = 0; c < o->size; c++)
            exact_add(o, 0, y + c, weight * exact_cut(exact_get(o, 3, k + c), 2));
    }
}

static void attention_forward(const exact_op *o)
{
    for (int n = 0; n < o->rows; n++)
        for (int h = 0; h < o->heads; h++)
            attend(o, n / o->T, n % o->T, h);
}

/* attend backward in whole numbers */
/* a: dq, dk, dv, dy, q, k, v; adds to the first three */
static void attend_back(const exact_op *o, int b, int r, int h)
{
    size_t head = (size_t)(h / (o->heads / o->kv_heads)) * o->size;
    size_t q = ((size_t)b * o->T + r) * o->q_row + (size_t)h * o->size;
    size_t y = ((size_t)b * o->T + r) * o->out + (size_t)h * o->size;
    for (int s = 0; s < o->Tk; s++) {
        size_t k = ((size_t)b * o->Tk + s) * o->k_row + head;
        if (!sees(o, b, r, s))
            continue;
        double weight = exact_cut(heads_product(o, 4, q, 4, 5, k, 4), 1);
        double d = exact_cut(heads_product(o, 3, y, 4, 6, k, 2), 1);
        for (int c = 0; c < o->size; c++) {
            exact_add(o, 0, q + c, d * exact_cut(exact_get(o, 5, k + c), 4));
            exact_add(o, 1, k + c, d * exact_cut(exact_get(o, 4, q + c), 4));
            exact_add(o, 2, k + c, weight * exact_cut(exact_get(o, 3, y + c), 4));
        }
    }
}

static void attention_backward(const exact_op *o)
{
    for (int n = 0; n < o->rows; n++)
        for (int h = 0; h < o->heads; h++)
            attend_back(o, n / o->T, n % o->T, h);
}

/* make the attention exact */
static exact_op shape_of(const dls_layer *l, const dls_pass *p)
{
    return (exact_op){.rows = p->B * p->T, .out = l->out, .T = p->T, .Tk = p->T,
                      .heads = l->heads, .kv_heads = l->kv_heads, .size = l->head_size,
                      .q_row = l->in, .k_row = l->in};
}

static dls_status clear(dls_pass *p, void *to, size_t count)
{
    DLS_CUDA(cudaMemsetAsync(to, 0, count * dls_dtype_size(p->ctx->dtype),
                             p->ctx->stream));
    return DLS_OK;
}

static dls_status exact_attention_forward(const dls_layer *l, dls_pass *p, void *y,
                                          const void *x)
{
    size_t size = dls_dtype_size(p->ctx->dtype);
    char *q = (char *)x, *k = q + l->out * size, *v = k + (l->in - l->out) / 2 * size;
    exact_op o = shape_of(l, p);
    o.fn = attention_forward;
    memcpy(o.a, (void *[]){y, q, k, v}, 4 * sizeof *o.a);
    DLS_TRY(clear(p, y, (size_t)o.rows * l->out));
    return exact_enqueue(p->ctx, o, "attention");
}

static dls_status exact_attention_input(const dls_layer *l, dls_pass *p, void *dx,
                                        const void *dy, const void *x, void *y)
{
    size_t size = dls_dtype_size(p->ctx->dtype);
    size_t k = l->out * size, v = k + (l->in - l->out) / 2 * size;
    char *q = (char *)x, *dq = dx;
    exact_op o = shape_of(l, p);
    (void)y;
    o.fn = attention_backward;
    memcpy(o.a, (void *[]){dq, dq + k, dq + v, (void *)dy, q, q + k, q + v},
           7 * sizeof *o.a);
    DLS_TRY(clear(p, dx, (size_t)o.rows * l->in));
    return exact_enqueue(p->ctx, o, "attention backward");
}

const dls_layer_kind exact_attention_kind = {
    .name = "exact attention", .forward = exact_attention_forward,
    .backward_input = exact_attention_input, .backward_weight = dls_layer_no_weights};
