/* tests/layers/context_case.c: from chapters/06-context-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* An attention over ranks beside its definition; see context_case.h. */
#include "context_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../comm/world.h"
#include "layers/token_order.h"
#include "tensor/bf16.h"

/* number the rows of a case */
static int length_of(const context_case *c, int b)
{
    return c->lengths ? c->lengths[b] : c->T;
}

int case_rows(const context_case *c, int n, int rank)
{
    int rows = 0;
    for (int b = 0; b < c->B; b++)
        rows += dls_token_count(c->order, length_of(c, b), n, rank);
    return rows;
}

int case_whole_rows(const context_case *c) { return case_rows(c, 1, 0); }

int case_row(const context_case *c, int n, int rank, int row)
{
    int start = 0, positions[512];
    for (int b = 0; b < c->B; start += length_of(c, b++)) {
        int count = dls_token_count(c->order, length_of(c, b), n, rank);
        if (row < count) {
            dls_token_positions(c->order, length_of(c, b), n, rank, positions);
            return start + positions[row];
        }
        row -= count;
    }
    return -1;
}

/* draw the inputs of a case */
static double drawn(const context_case *c, uint64_t stream, int row, int column)
{
    uint32_t word = dls_rng_u32(7, stream, (uint64_t)row * 4096 + column);
    if (c->exact)
        return (double)(word % 5) - 2;
    double x = word / 2147483648.0 - 1;
    return c->dtype == DLS_BF16 ? round(x * 64) / 64 : (float)x;
}

double case_input(const context_case *c, int row, int column)
{
    int value = column >= (c->H + c->Hk) * c->D;
    if (c->flat)
        return value ? 1 + (row < c->T / 8 ? 0 : 0x1p-7) : 0;
    return drawn(c, 1, row, column);
}

double case_gradient(const context_case *c, int row, int column)
{
    return drawn(c, 2, row, column);
}

/* attend by definition */
// One query of head h: weights w (keys), and what they make of the scores' gradients.
static void weigh(const context_case *c, const double *x, int start, int i, int h,
                  int seen, double *w)
{
    int width = (c->H + 2 * c->Hk) * c->D, shared = h / (c->H / c->Hk);
    const double *q = x + (size_t)(start + i) * width + h * c->D;
    double most = -INFINITY, total = 0;
    for (int j = 0; j < seen; j++) {
        const double *k = x + (size_t)(start + j) * width + (c->H + shared) * c->D;
        w[j] = 0;
        for (int d = 0; d < c->D; d++)
            w[j] += q[d] * k[d];
        w[j] *= c->exact ? 1 : 1 / sqrt(c->D);
        most = w[j] > most ? w[j] : most;
    }
    for (int j = 0; j < seen && !c->exact; j++)
        total += w[j] = exp(w[j] - most);
    for (int j = 0; j < seen && !c->exact; j++)
        w[j] /= total;
}

static void one_query(const context_case *c, const double *x, const double *dout,
                      int start, int i, int h, int seen, double *out, double *g)
{
    int D = c->D, width = (c->H + 2 * c->Hk) * D, shared = h / (c->H / c->Hk);
    double *w = calloc(seen, sizeof *w), *dw = calloc(seen, sizeof *dw), mean = 0;
    size_t own = (size_t)(start + i) * width + h * D;
    size_t o = (size_t)(start + i) * c->H * D + h * D;
    weigh(c, x, start, i, h, seen, w);
    for (int j = 0; j < seen; j++) {
        size_t v = (size_t)(start + j) * width + (c->H + c->Hk + shared) * D;
        for (int d = 0; d < D; d++) {
            out[o + d] += w[j] * x[v + d];
            dw[j] += dout[o + d] * x[v + d];
            g[v + d] += w[j] * dout[o + d];
        }
        mean += w[j] * dw[j];
    }
    /* differentiate the scores of a query */
    for (int j = 0; j < seen; j++) {
        size_t k = (size_t)(start + j) * width + (c->H + shared) * D;
        double ds = c->exact ? dw[j] : w[j] * (dw[j] - mean) / sqrt(D);
        for (int d = 0; d < D; d++) {
            g[own + d] += ds * x[k + d];
            g[k + d] += ds * x[own + d];
        }
    }
    free(w);
    free(dw);
}

void case_reference(const context_case *c, double *out, double *gradients)
{
    int rows = case_whole_rows(c), width = (c->H + 2 * c->Hk) * c->D, start = 0;
    double *x = calloc((size_t)rows * width, sizeof *x);
    double *dout = calloc((size_t)rows * c->H * c->D, sizeof *dout);
    for (int n = 0; n < rows * width; n++)
        x[n] = case_input(c, n / width, n % width);
    for (int n = 0; n < rows * c->H * c->D; n++)
        dout[n] = case_gradient(c, n / (c->H * c->D), n % (c->H * c->D));
    for (int b = 0; b < c->B; start += length_of(c, b++))
        for (int i = 0; i < length_of(c, b); i++)
            for (int h = 0; h < c->H; h++)
                one_query(c, x, dout, start, i, h, c->causal ? i + 1 : length_of(c, b),
                          out, gradients);
    free(x);
    free(dout);
}

/* attend exactly */
typedef struct exact_head { const float *q, *k, *v; int queries, keys; } exact_head;

static exact_head exact_of(const dls_attention_shape *s, int b, int h, const void *q,
                           const void *k, const void *v)
{
    int shared = h / (s->H / s->Hk);
    return (exact_head){
        (const float *)q + dls_attention_at(s->starts_q, s->q_sequence, s->q_row, b)
            + h * s->D,
        (const float *)k + dls_attention_at(s->starts_k, s->k_sequence, s->k_row, b)
            + shared * s->D,
        (const float *)v + dls_attention_at(s->starts_k, s->v_sequence, s->v_row, b)
            + shared * s->D,
        dls_attention_queries(s, b), dls_attention_keys(s, b)};
}

static float dot(const float *a, const float *b, int D)
{
    float sum = 0;
    for (int d = 0; d < D; d++)
        sum += a[d] * b[d];
    return sum;
}

static void add_scaled(float *to, float factor, const float *from, int D)
{
    for (int d = 0; d < D; d++)
        to[d] += factor * from[d];
}

// A call, on its way along a stream.
typedef struct exact_call {
    dls_attention_shape s;
    float *out, *dq, *dk, *dv;
    const float *q, *k, *v, *dout;
} exact_call;

static void exact_outputs(const exact_call *a)
{
    const dls_attention_shape *s = &a->s;
    for (int b = 0; b < s->B; b++)
        for (int h = 0; h < s->H; h++) {
            exact_head x = exact_of(s, b, h, a->q, a->k, a->v);
            float *o = a->out + h * s->D
                     + dls_attention_at(s->starts_q, s->o_sequence, s->o_row, b);
            for (int i = 0; i < x.queries; i++) {
                memset(o + i * s->o_row, 0, s->D * sizeof *o);
                for (int j = 0; j < dls_attention_seen(s, i, x.queries, x.keys); j++)
                    add_scaled(o + i * s->o_row,
                               dot(x.q + i * s->q_row, x.k + j * s->k_row, s->D),
                               x.v + j * s->v_row, s->D);
            }
        }
}

// All pairs of one head: dq, dk, dv are cleared by the caller.
static void exact_pairs(const dls_attention_shape *s, exact_head x, float *dq, float *dk,
                        float *dv, const float *dout)
{
    for (int i = 0; i < x.queries; i++)
        for (int j = 0; j < dls_attention_seen(s, i, x.queries, x.keys); j++) {
            const float *q = x.q + i * s->q_row, *k = x.k + j * s->k_row;
            float ds = dot(dout + i * s->o_row, x.v + j * s->v_row, s->D);
            add_scaled(dv + j * s->v_row, dot(q, k, s->D), dout + i * s->o_row, s->D);
            add_scaled(dq + i * s->q_row, ds, k, s->D);
            add_scaled(dk + j * s->k_row, ds, q, s->D);
        }
}

static void clear(float *x, int rows, size_t row, int D)
{
    for (int i = 0; i < rows; i++)
        memset(x + i * row, 0, D * sizeof *x);
}

static void exact_gradients(const exact_call *a)
{
    const dls_attention_shape *s = &a->s;
    for (int b = 0; b < s->B; b++)
        for (int h = 0; h < s->H; h++) {
            exact_head x = exact_of(s, b, h, a->q, a->k, a->v);
            exact_head to = exact_of(s, b, h, a->dq, a->dk, a->dv);
            const float *o = a->dout + h * s->D
                           + dls_attention_at(s->starts_q, s->o_sequence, s->o_row, b);
            clear((float *)to.q, x.queries, s->q_row, s->D);
            if (h % (s->H / s->Hk) == 0) {
                clear((float *)to.k, x.keys, s->k_row, s->D);
                clear((float *)to.v, x.keys, s->v_row, s->D);
            }
            exact_pairs(s, x, (float *)to.q, (float *)to.k, (float *)to.v, o);
        }
}

static int run_exact(void *arg, double start, double *finish)
{
    const exact_call *a = arg;
    (void)start, (void)finish;
    if (a->out)
        exact_outputs(a);
    else
        exact_gradients(a);
    return 0;
}

static dls_status enqueue_exact(dls_ctx *ctx, exact_call call)
{
    dls_gpu_op op = {.name = "exact attention", .planned = 1, .run = run_exact,
                     .destroy = free};
    exact_call *a = malloc(sizeof *a);
    DLS_TRY(dls_attention_complete(&call.s));
    *a = call;
    DLS_CUDA(dls_gpu_enqueue(ctx->stream, &op, a));
    return DLS_OK;
}

static dls_status exact_forward(dls_ctx *ctx, const dls_attention_shape *s, void *out,
                                void *lse, const void *q, const void *k, const void *v)
{
    EXPECT(!lse, "sums have no denominators");
    return enqueue_exact(ctx, (exact_call){.s = *s, .out = out, .q = q, .k = k, .v = v});
}

static dls_status exact_backward(dls_ctx *ctx, const dls_attention_shape *s, void *dq,
                                 void *dk, void *dv, void *temporary, const void *dout,
                                 const void *q, const void *k, const void *v,
                                 const void *out, const void *lse)
{
    (void)temporary, (void)out, (void)lse;
    return enqueue_exact(ctx, (exact_call){.s = *s, .dq = dq, .dk = dk, .dv = dv, .q = q,
                                           .k = k, .v = v, .dout = dout});
}

static size_t exact_temporary(const dls_attention_shape *s, dls_dtype dtype)
{
    (void)s, (void)dtype;
    return 0;
}

const dls_context_functions exact_functions = {exact_forward, exact_backward,
                                               exact_temporary, 0};

/* compare ranks with the definition */
static void put(void *to, dls_dtype dtype, size_t at, double x)
{
    if (dtype == DLS_F64)
        ((double *)to)[at] = x;
    else if (dtype == DLS_F32)
        ((float *)to)[at] = (float)x;
    else
        ((dls_bfloat16 *)to)[at] = dls_narrow_bf16((float)x);
}

static double get(const void *from, dls_dtype dtype, size_t at)
{
    return dtype == DLS_F64   ? ((const double *)from)[at]
           : dtype == DLS_F32 ? ((const float *)from)[at]
                              : dls_widen_bf16(((const dls_bfloat16 *)from)[at]);
}

// The worst difference of an array (rows, width of `row`), as a share of its largest.
static double difference(const context_case *c, int n, int rank, const void *got, int row,
                         const double *want, int from, int width, int want_row)
{
    double worst = 0, largest = 1e-30;
    for (int i = 0; i < case_whole_rows(c); i++)
        for (int j = from; j < from + width; j++)
            largest = fmax(largest, fabs(want[(size_t)i * want_row + j]));
    for (int i = 0; i < case_rows(c, n, rank); i++)
        for (int j = from; j < from + width; j++) {
            double x = get(got, c->dtype, (size_t)i * row + j);
            double y = want[(size_t)case_row(c, n, rank, i) * want_row + j];
            worst = x - y == 0 ? worst : fabs(x - y) <= worst ? worst : fabs(x - y);
            if (isnan(x))
                return INFINITY;
        }
    return worst / largest;
}

// The arrays of a rank.
typedef struct arrays { char *x, *g, *out, *dout, *kept, *temporary; } arrays;
enum { WIDER = 4 };     // elements of an output's row beyond its heads

static dls_status take_arrays(const context_case *c, const dls_context *context, int n,
                              int rank, arrays *a)
{
    int width = (c->H + 2 * c->Hk) * c->D, o = c->H * c->D, rows = case_rows(c, n, rank);
    size_t size = dls_dtype_size(c->dtype);
    DLS_TRY(test_buffer(&a->x, rows * width * size));
    DLS_TRY(test_buffer(&a->g, rows * width * size));
    DLS_TRY(test_buffer(&a->out, rows * (o + WIDER) * size));
    DLS_TRY(test_buffer(&a->dout, rows * (o + WIDER) * size));
    DLS_TRY(test_buffer(&a->kept, dls_context_kept(context, c->dtype)));
    DLS_TRY(test_buffer(&a->temporary, dls_context_temporary(context, c->dtype, 1)));
    memset(a->g, 0xff, rows * width * size);
    memset(a->temporary, 0xff, dls_context_temporary(context, c->dtype, 1));
    memset(a->kept, 0xff, dls_context_kept(context, c->dtype));
    for (int i = 0; i < rows; i++) {
        int whole = case_row(c, n, rank, i);
        for (int j = 0; j < width; j++)
            put(a->x, c->dtype, (size_t)i * width + j, case_input(c, whole, j));
        for (int j = 0; j < o; j++)
            put(a->dout, c->dtype, (size_t)i * (o + WIDER) + j,
                case_gradient(c, whole, j));
    }
    return DLS_OK;
}

static dls_status run_case(const context_case *c, const dls_context *context, arrays *a)
{
    size_t size = dls_dtype_size(c->dtype), k = (size_t)c->H * c->D * size;
    size_t v = k + (size_t)c->Hk * c->D * size;
    dls_ctx ctx;
    DLS_TRY(dls_ctx_create(&ctx, 0, c->dtype));
    DLS_TRY(dls_context_forward(&ctx, context, a->out, a->kept, a->temporary, a->x,
                                a->x + k, a->x + v));
    DLS_TRY(dls_ctx_sync(&ctx));
    memset(a->temporary, 0xff, dls_context_temporary(context, c->dtype, 1));
    DLS_TRY(dls_context_backward(&ctx, context, a->g, a->g + k, a->g + v, a->temporary,
                                 a->dout, a->x, a->x + k, a->x + v, a->out, a->kept));
    DLS_TRY(dls_ctx_sync(&ctx));
    dls_ctx_destroy(&ctx);
    return DLS_OK;
}

static void release(arrays *a)
{
    char *all[] = {a->x, a->g, a->out, a->dout, a->kept, a->temporary};
    for (int i = 0; i < 6; i++)
        cudaFree(all[i]);
}

static dls_context context_of(const context_case *c, const dls_axes *axes)
{
    size_t row = (size_t)(c->H + 2 * c->Hk) * c->D;
    return (dls_context){
        .axes = axes, .functions = c->exact ? &exact_functions : NULL,
        .shape = {.B = c->B, .Tq = c->T, .Tk = c->T, .H = c->H, .Hk = c->Hk, .D = c->D,
                  .causal = c->causal, .q_row = row, .k_row = row, .v_row = row,
                  .o_row = (size_t)c->H * c->D + WIDER, .dropout = c->dropout}};
}

static double compare_arrays(const context_case *c, int n, int rank, const arrays *a)
{
    int rows = case_whole_rows(c), o = c->H * c->D, kv = c->Hk * c->D, width = o + 2 * kv;
    double *out = calloc((size_t)rows * o + 1, sizeof *out), worst[4];
    double *g = calloc((size_t)rows * width + 1, sizeof *g);
    case_reference(c, out, g);
    worst[0] = difference(c, n, rank, a->out, o + WIDER, out, 0, o, o);
    worst[1] = difference(c, n, rank, a->g, width, g, 0, o, width);
    worst[2] = difference(c, n, rank, a->g, width, g, o, kv, width);
    worst[3] = difference(c, n, rank, a->g, width, g, o + kv, kv, width);
    free(out);
    free(g);
    return fmax(fmax(worst[0], worst[1]), fmax(worst[2], worst[3]));
}

dls_status case_compare(const context_case *c, dls_axes *axes, double *worst)
{
    int n = axes->sharding.context, rank = axes->sharding.context_rank;
    arrays a = {0};
    dls_context_documents *documents = NULL;
    dls_context context = context_of(c, axes);
    axes->sharding.way = c->way;
    axes->sharding.order = c->order;
    if (c->lengths)
        DLS_TRY(dls_context_documents_open(&documents, axes, c->causal, c->lengths,
                                           c->B));
    context.documents = documents;
    EXPECT(dls_context_rows(&context) == case_rows(c, n, rank), "rows of rank %d", rank);
    DLS_TRY(take_arrays(c, &context, n, rank, &a));
    DLS_TRY(run_case(c, &context, &a));
    *worst = compare_arrays(c, n, rank, &a);
    release(&a);
    dls_context_documents_close(documents);
    EXPECT(*worst <= c->allowed,
           "way %d %s, groups of %d of %d, causal %d, %d x %d tokens%s, %d and %d heads "
           "of %d: rank %d differs by %g", c->way, dls_token_order_name(c->order),
           c->ulysses, n, c->causal, c->B, c->T, c->lengths ? " packed" : "", c->H, c->Hk,
           c->D, rank, *worst);
    return DLS_OK;
}
