/* code/parallel/data/hook_powersgd.c: from chapters/04-data-parallelism-hooks-lossy.md. Edit the chapter, or edit here and run "make untangle". */
/* PowerSGD: Vogels, Karimireddy and Jaggi 2019, algorithm 1, with error feedback.
 *
 *   left  (bucket)  | P of matrix 0 | P of matrix 1 | ... | vectors as they are |
 *   right (bucket)  | Q of matrix 0 | Q of matrix 1 | ... |
 *
 * One all-reduce of each per bucket. Sums over ranks throughout, no means. */
#include "parallel/data/hooks.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "kernels/elementwise.h"
#include "kernels/orthogonal.h"
#include "vgpu/gpu.h"

/* lay out the factors */
typedef struct piece { // one parameter
    size_t at;         // its first element in the flat gradients
    size_t count;
    int rows, columns; // 0, 0: travels as it is
    size_t left, right; // elements from the start of the buffers
} piece;

typedef struct powersgd_state {
    piece *pieces;               // of all buckets, in their order
    int *first_piece;            // (nbuckets + 1)
    size_t *left, *right;        // (nbuckets + 1) where a bucket's part begins
    char *p, *q, *fresh;         // device
} powersgd_state;

static piece describe(const dls_param *param, int rank)
{
    size_t rows = dls_param_extent(param, 0), columns = rows ? param->count / rows : 0;
    piece x = {.at = param->offset, .count = param->count};
    if (param->ndim >= 2 && (size_t)rank * (rows + columns) < rows * columns) {
        x.rows = (int)rows;
        x.columns = (int)columns;
    }
    return x;
}

static dls_status lay_out(dls_hook *h)
{
    powersgd_state *s = h->state;
    size_t r = (size_t)h->options.rank, n = (size_t)h->nbuckets, parameters = 0;
    for (int b = 0; b < h->nbuckets; b++)
        parameters += (size_t)h->buckets[b].nparams;
    s->pieces = calloc(parameters, sizeof *s->pieces);
    s->first_piece = calloc(n + 1, sizeof *s->first_piece);
    s->left = calloc(n + 1, sizeof *s->left);
    s->right = calloc(n + 1, sizeof *s->right);
    if (!s->pieces || !s->first_piece || !s->left || !s->right)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for PowerSGD");
    int k = 0;
    size_t left = 0, right = 0;
    for (int b = 0; b < h->nbuckets; b++) {
        for (int i = 0; i < h->buckets[b].nparams; i++, k++) {
            piece *x = &s->pieces[k];
            *x = describe(&h->buckets[b].params[i], h->options.rank);
            x->left = left;
            x->right = right;
            left += x->rows ? r * (size_t)x->rows : x->count;
            right += r * (size_t)x->columns;
        }
        s->first_piece[b + 1] = k;
        s->left[b + 1] = left;
        s->right[b + 1] = right;
    }
    return DLS_OK;
}

/* prepare powersgd */
static dls_status fill_fresh(dls_hook *h, size_t count)
{
    powersgd_state *s = h->state;
    size_t size = dls_dtype_size(h->wire->dtype);
    char *host = malloc(count * size + 1);
    if (!host)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for PowerSGD");
    for (size_t i = 0; i < count; i++) {
        double x = dls_rng_normal(h->options.seed, 0x70736764, i);
        if (h->wire->dtype == DLS_F64)
            ((double *)host)[i] = x;
        else
            ((float *)host)[i] = (float)x;
    }
    cudaError_t e = cudaMemcpy(s->fresh, host, count * size, cudaMemcpyHostToDevice);
    free(host);
    DLS_CUDA(e);
    return DLS_OK;
}

static dls_status prepare_powersgd(dls_hook *h)
{
    powersgd_state *s = h->state;
    DLS_TRY(lay_out(h));
    size_t size = dls_dtype_size(h->wire->dtype), right = s->right[h->nbuckets];
    size_t elements = h->buckets[0].first + h->buckets[0].count;
    DLS_TRY(dls_hook_buffer(h, (void **)&h->error, elements * size));
    DLS_TRY(dls_hook_buffer(h, (void **)&s->p, s->left[h->nbuckets] * size));
    DLS_TRY(dls_hook_buffer(h, (void **)&s->q, right * size));
    DLS_TRY(dls_hook_buffer(h, (void **)&s->fresh, right * size));
    if (h->weighed)
        return DLS_OK;
    DLS_TRY(dls_ctx_sync(h->wire)); // zeroed before the host writes
    return fill_fresh(h, right);
}

static void release_powersgd(dls_hook *h)
{
    powersgd_state *s = h->state;
    void *device[] = {s->p, s->q, s->fresh};
    for (int i = 0; i < 3; i++)
        dls_device_free(device[i]);
    void *host[] = {s->pieces, s->first_piece, s->left, s->right};
    for (int i = 0; i < 4; i++)
        free(host[i]);
}

/* sum a low rank */
static char *at(const dls_hook *h, void *base, size_t element)
{
    return (char *)base + element * dls_dtype_size(h->wire->dtype);
}

/* P = M Q, or the vector itself. */
static dls_status make_left(dls_hook *h, const piece *x)
{
    powersgd_state *s = h->state;
    int r = h->options.rank;
    void *m = at(h, h->error, x->at), *p = at(h, s->p, x->left);
    void *q = at(h, s->q, x->right);
    if (!x->rows) {
        size_t bytes = x->count * dls_dtype_size(h->wire->dtype);
        DLS_CUDA(cudaMemcpyAsync(p, m, bytes, cudaMemcpyDeviceToDevice, h->wire->stream));
        DLS_CUDA(cudaMemsetAsync(m, 0, bytes, h->wire->stream));
        return DLS_OK;
    }
    DLS_TRY(dls_refill_columns(h->wire, q, at(h, s->fresh, x->right), x->columns, r));
    return dls_gemm(h->wire, 0, 0, x->rows, r, x->columns, 1, m, q, 0, p);
}

/* P orthonormal, Q = M' P, M -= P Q': the new error. */
static dls_status make_right(dls_hook *h, const piece *x)
{
    powersgd_state *s = h->state;
    int r = h->options.rank;
    void *m = at(h, h->error, x->at), *p = at(h, s->p, x->left);
    void *q = at(h, s->q, x->right);
    if (!x->rows)
        return DLS_OK;
    DLS_TRY(dls_orthogonalise(h->wire, p, x->rows, r));
    DLS_TRY(dls_gemm(h->wire, 1, 0, x->columns, r, x->rows, 1, m, p, 0, q));
    return dls_gemm(h->wire, 0, 1, x->rows, x->columns, r, -1, p, q, 1, m);
}

/* The gradient := P Q', or the summed vector. */
static dls_status put_together(dls_hook *h, const dls_hook_bucket *b, const piece *x)
{
    powersgd_state *s = h->state;
    int r = h->options.rank;
    void *g = at(h, b->grads, x->at - b->first), *p = at(h, s->p, x->left);
    if (x->rows)
        return dls_gemm(h->wire, 0, 1, x->rows, x->columns, r, 1, p,
                        at(h, s->q, x->right), 0, g);
    DLS_CUDA(cudaMemcpyAsync(g, p, x->count * dls_dtype_size(h->wire->dtype),
                             cudaMemcpyDeviceToDevice, h->wire->stream));
    return DLS_OK;
}

static dls_status low_rank_sum(dls_hook *h, int bucket)
{
    const dls_hook_bucket *b = &h->buckets[bucket];
    powersgd_state *s = h->state;
    void *m = at(h, h->error, b->first);
    if (dls_hook_warms_up(h))
        return dls_hook_none.sum(h, bucket);
    const piece *from = s->pieces + s->first_piece[bucket];
    const piece *to = s->pieces + s->first_piece[bucket + 1];
    DLS_TRY(dls_add(h->wire, m, m, b->grads, b->count));
    for (const piece *x = from; x < to; x++)
        DLS_TRY(make_left(h, x));
    DLS_TRY(dls_hook_all_reduce(h, at(h, s->p, s->left[bucket]),
                                s->left[bucket + 1] - s->left[bucket], h->wire->dtype));
    for (const piece *x = from; x < to; x++)
        DLS_TRY(make_right(h, x));
    DLS_TRY(dls_hook_all_reduce(h, at(h, s->q, s->right[bucket]),
                                s->right[bucket + 1] - s->right[bucket],
                                h->wire->dtype));
    for (const piece *x = from; x < to; x++)
        DLS_TRY(put_together(h, b, x));
    return DLS_OK;
}

static void low_rank_calls(const dls_hook *h, int bucket, const dls_hook_told *told)
{
    const powersgd_state *s = h->state;
    int dtype = (int)h->wire->dtype;
    if (dls_hook_warms_up(h))
        return dls_hook_none.calls(h, bucket, told);
    if (bucket < 0)
        return;
    dls_hook_tell(told, "all_reduce", s->left[bucket + 1] - s->left[bucket], dtype);
    dls_hook_tell(told, "all_reduce", s->right[bucket + 1] - s->right[bucket], dtype);
}

/* keep the state of powersgd */
static int low_rank_kept(const dls_hook *h, int world, dls_hook_kept *kept)
{
    const powersgd_state *s = h->state;
    size_t size = dls_dtype_size(h->wire->dtype);
    size_t elements = h->buckets[0].first + h->buckets[0].count;
    (void)world;
    kept[0] = (dls_hook_kept){h->error, elements * size};
    kept[1] = (dls_hook_kept){s->q, s->right[h->nbuckets] * size};
    return 2;
}

static void low_rank_join(const dls_hook *h, char *joined, const char *const *states,
                          int n)
{
    dls_hook_kept kept[DLS_HOOK_KEPT];
    low_rank_kept(h, n, kept);
    dls_hook_join_errors(h, joined, states, n);
    memcpy(joined + kept[0].bytes, states[0] + kept[0].bytes, kept[1].bytes);
}

const dls_hook_kind dls_hook_powersgd = {
    .name = "powersgd", .state_bytes = sizeof(powersgd_state),
    .prepare = prepare_powersgd, .sum = low_rank_sum, .calls = low_rank_calls,
    .release = release_powersgd, .kept = low_rank_kept, .join = low_rank_join};
