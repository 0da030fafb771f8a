/* code/parallel/data/ddp_plan.c: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* The buckets of DDP, in arrays; and the memory that follows from them. */
#include <stdlib.h>

#include "comm/scratch.h"
#include "parallel/data/ddp_private.h"
#include "parallel/expert/copies.h"

/* cut off the rows */
/* Makes a bucket of its own out of the first parameter of the last bucket. */
static void cut_off(dls_ddp *d)
{
    dls_bucket *last = &d->buckets[d->nbuckets - 1];
    const dls_param *p = &d->params[last->param];
    if (last->params == 1)
        return;
    d->buckets[d->nbuckets++] = (dls_bucket){last->first, p->count, last->param, 1};
    last->count -= p[1].offset - last->first;
    last->first = p[1].offset;
    last->param++;
    last->params--;
}

/* Reverses the last two buckets. */
static void swap_last(dls_ddp *d)
{
    dls_bucket *b = &d->buckets[d->nbuckets - 2], other = b[0];
    b[0] = b[1];
    b[1] = other;
}

static dls_status make_rows_bucket(dls_ddp *d)
{
    const dls_param *p = d->params;
    if (d->options.rows_of == 0)
        return DLS_OK;
    if (d->options.rows_of != 1 || p->ndim != 2 || p->frozen || p->pieces > 0 ||
        d->options.hook.choice != DLS_HOOK_NONE || d->options.hook.sums_in)
        return DLS_FAIL(DLS_ERR_INPUT, "rows_of: expected the first parameter, a whole "
                        "matrix, and hook none");
    int positions = d->nparams > 1 && p[1].ndim == 2 && p[1].shape[1] == p->shape[1];
    cut_off(d);                                     // block with positions, rows
    if (positions && d->buckets[d->nbuckets - 1].params == 1 && d->nbuckets > 1 &&
        d->buckets[d->nbuckets - 2].param == 1 &&
        d->buckets[d->nbuckets - 2].params > 1) {
        swap_last(d);
        cut_off(d);                                 // rows, block, positions
        dls_bucket *b = &d->buckets[d->nbuckets - 3], rows = b[0];
        b[0] = b[1];
        b[1] = b[2];
        b[2] = rows;
    }
    return DLS_OK;
}

/* make the plan of ddp */
void ddp_free_plan(dls_ddp *d)
{
    void *arrays[] = {d->buckets, d->states, d->order,  d->bucket_of, d->reported,
                      d->told,    d->used,   d->arrived, d->arrived_used};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        free(arrays[i]);
    free(d);
}

static dls_status make_room(dls_ddp *d)
{
    size_t n = (size_t)(d->nparams > 0 ? d->nparams : 1);
    int **ints[] = {&d->order, &d->bucket_of, &d->arrived};
    char **marks[] = {&d->reported, &d->used, &d->arrived_used};
    d->buckets = calloc(n, sizeof *d->buckets);
    d->states = calloc(n, sizeof *d->states);
    d->told = calloc(n, sizeof *d->told);
    int there = d->buckets && d->states && d->told;
    for (int i = 0; i < 3; i++) {
        *ints[i] = calloc(n, sizeof(int));
        *marks[i] = calloc(n, 1);
        there = there && *ints[i] && *marks[i];
    }
    return there ? DLS_OK : DLS_FAIL(DLS_ERR_MEMORY, "no memory for a bucket plan");
}

static void tell_bucket(dls_ddp *d, int b)
{
    const dls_bucket *bucket = &d->buckets[b];
    char *grads = d->grads;
    if (grads)
        grads += bucket->first * dls_dtype_size(d->dtype);
    d->told[b] = (dls_hook_bucket){d->params + bucket->param, bucket->params,
                                   bucket->first, bucket->count, grads};
}

/* The parameters as large as on the rank of the tensor axis that has most of each. */
static dls_status level_params(const dls_ddp *d, dls_param **out)
{
    const dls_axes *axes = d->options.axes;
    dls_param *p = malloc(((size_t)d->nparams + 1) * sizeof *p);
    if (!p)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a bucket plan");
    for (int i = 0; i < d->nparams; i++) {
        p[i] = d->params[i];
        if (axes)
            p[i].count = dls_tensor_most(&p[i], p[i].expert
                                         ? axes->sharding.expert_tensor
                                         : axes->sharding.tensor);
        if (axes)
            p[i].offset = i ? p[i - 1].offset + p[i - 1].count : 0;
    }
    *out = p;
    return DLS_OK;
}

/* The same parameters in the same buckets, on all ranks of the tensor axis. */
static dls_status plan_buckets(dls_ddp *d)
{
    const dls_ddp_options *o = &d->options;
    dls_param *level;
    DLS_TRY(level_params(d, &level));
    dls_status s = dls_bucket_plan(level, d->nparams, dls_dtype_size(d->dtype),
                                   o->first_bucket_bytes, o->bucket_bytes, d->buckets,
                                   &d->nbuckets);
    free(level);
    for (int i = 0; s == DLS_OK && i < d->nbuckets; i++) {
        dls_bucket *b = &d->buckets[i];
        const dls_param *last = &d->params[b->param + b->params - 1];
        b->first = d->params[b->param].offset;
        b->count = last->offset + last->count - b->first;
    }
    return s;
}

dls_status ddp_make_plan(dls_ddp *d)
{
    DLS_TRY(make_room(d));
    DLS_TRY(plan_buckets(d));
    DLS_TRY(make_rows_bucket(d));
    for (int b = 0; b < d->nbuckets; b++) {
        tell_bucket(d, b);
        d->order[b] = b;
        for (int i = 0; i < d->buckets[b].params; i++)
            d->bucket_of[d->buckets[b].param + i] = b;
    }
    return DLS_OK;
}

/* predict the memory of ddp */
static dls_status add_rows(const dls_ddp *d, dls_hook_memory *m)
{
    size_t buffers, scratch;
    const size_t *shape = d->params->shape;
    if (d->options.rows_of == 0)
        return DLS_OK;
    DLS_TRY(dls_rows_predict(d->comm, d->dtype, shape[0], shape[1], &buffers, &scratch));
    m->buffers += buffers;
    m->scratch = scratch > m->scratch ? scratch : m->scratch;
    return DLS_OK;
}

static dls_status finish_scratch(const dls_ddp *d, size_t *tensor, size_t *kv)
{
    *tensor = *kv = 0;
    for (int b = 0; b < d->nbuckets; b++)
        DLS_TRY(dls_tensor_finish_scratch(
            d->options.axes, d->params + d->buckets[b].param, d->buckets[b].params,
            (int)d->dtype, tensor, kv));
    return DLS_OK;
}


static dls_status expert_scratch(const dls_ddp *d, size_t *experts)
{
    size_t data = 0;
    *experts = 0;
    for (int b = 0; b < d->nbuckets; b++)
        DLS_TRY(dls_copies_scratch(d->options.axes, d->comm,
                                   d->params + d->buckets[b].param, d->buckets[b].params,
                                   (int)d->dtype, &data, experts));
    return DLS_OK;
}

dls_status ddp_reserve(dls_ddp *d)
{
    const dls_axes *axes = d->options.axes;
    dls_hook_memory m;
    size_t tensor, kv, experts;
    DLS_TRY(finish_scratch(d, &tensor, &kv));
    DLS_TRY(expert_scratch(d, &experts));
    if (experts)
        DLS_TRY(dls_comm_reserve(axes->expert_data, experts, d->wire.stream));
    if (tensor)
        DLS_TRY(dls_comm_reserve(axes->tensor, tensor, d->wire.stream));
    if (kv)
        DLS_TRY(dls_comm_reserve(axes->kv, kv, d->wire.stream));
    DLS_TRY(dls_hook_needs(d->hook, &m));
    DLS_TRY(add_rows(d, &m));
    DLS_TRY(dls_comm_reserve(d->comm, m.scratch, d->wire.stream));
    return dls_comm_reserve(d->comm, m.updated, d->ctx->stream);
}

static dls_status weigh(dls_ddp *d, dls_hook_memory *out)
{
    size_t tensor, kv, experts;
    DLS_TRY(ddp_make_plan(d));
    DLS_TRY(dls_hook_predict(&d->options.hook, d->comm, d->dtype, d->told, d->nbuckets,
                             out));
    DLS_TRY(finish_scratch(d, &tensor, &kv));
    DLS_TRY(expert_scratch(d, &experts));
    out->buffers += tensor + kv + experts;
    return add_rows(d, out);
}

dls_status dls_ddp_predict(const dls_param *params, int n, dls_dtype dtype,
                           dls_comm *comm, const dls_ddp_options *options,
                           dls_hook_memory *out)
{
    dls_ddp *d = calloc(1, sizeof *d);
    if (!d)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a plan");
    *d = (dls_ddp){.comm = comm, .options = *options, .params = params, .nparams = n};
    d->dtype = options->narrow_grads ? dtype : dls_dtype_accumulator(dtype);
    dls_status s = weigh(d, out);
    ddp_free_plan(d);
    return s;
}
