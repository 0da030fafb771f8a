/* code/parallel/data/zero.c: from chapters/04-data-parallelism-zero.md. Edit the chapter, or edit here and run "make untangle". */
/* Making and measuring what a rank holds. Moving it: fsdp.c; updating it: zero_step.c. */
#include "parallel/data/zero.h"

#include <stdlib.h>
#include <string.h>

#include "comm/scratch.h"
#include "parallel/data/zero_private.h"
#include "parallel/expert/copies.h"
#include "vgpu/gpu.h"

/* check the options of zero */
/* Fills in what follows from the rest: a copy for each rank is stage 0, and back. */
static dls_status check_options(dls_zero_options *o, dls_dtype dtype, int world)
{
    int expert_ways = dls_copies_expert_ways(o->axes);
    if (o->stage < 0 || o->stage > 3)
        return DLS_FAIL(DLS_ERR_INPUT, "stage %d of ZeRO: expected 0 to 3", o->stage);
    if (o->stage == 0)
        o->shard_size = 1;
    if (o->shard_size == 0)
        o->shard_size = world;
    if (o->shard_size < 1 || world % o->shard_size)
        return DLS_FAIL(DLS_ERR_INPUT, "shard_size %d: expected a divisor of the %d "
                        "ranks", o->shard_size, world);
    if (o->prefetch < 0)
        return DLS_FAIL(DLS_ERR_INPUT, "prefetch %d: expected 0 or more", o->prefetch);
    if (o->narrow_gradients && dtype != DLS_BF16)
        return DLS_FAIL(DLS_ERR_INPUT, "narrow_gradients: expected a model in bf16, not "
                        "%s", dls_dtype_name(dtype));
    if (expert_ways > 0 && (o->stage == 0 || o->shard_size != world) && world > 1)
        return DLS_FAIL(DLS_ERR_INPUT, "ZeRO with experts whose copies are elsewhere: "
                        "expected stages 1 to 3 over all replicas");
    if (o->shard_size == 1 && expert_ways <= 1)
        o->stage = 0;
    if (o->lent && o->stage >= 2 && (o->offload || o->narrow_gradients
                                     || o->shard_size != world))
        return DLS_FAIL(DLS_ERR_INPUT, "lent memory: expected one copy of the state, on "
                        "the device, with wide gradients");
    return DLS_OK;
}

/* count the buffers */
typedef struct pool_shape {
    int shared[2];      // buffers for any unit but of experts, and for any of experts
    size_t largest[2];  // elements of the largest unit that shares, padded
    size_t own;         // elements of all units with a buffer of their own
} pool_shape;

static int has_own(const dls_shard_unit *u, int all)
{
    return u->params > 0 && (u->held || all);
}

/* all: 1 if every unit has its own buffer; most: how many units of the model may be whole
 * in shared ones. One with experts has three parts, two of which are not experts. */
static pool_shape shape_of(const dls_shard_unit *units, int n, int all, int most)
{
    pool_shape p = {0};
    int parted = 0;
    for (int i = 0; i < n; i++) {
        size_t whole = (size_t)units[i].ways * units[i].slice;
        int kind = units[i].expert;
        parted |= kind;
        if (has_own(&units[i], all))
            p.own += whole;
        else
            p.shared[kind]++;
        if (!has_own(&units[i], all) && whole > p.largest[kind])
            p.largest[kind] = whole;
    }
    for (int kind = 0; kind < 2; kind++) {
        int limit = kind == 0 && parted ? 2 * most : most;
        p.shared[kind] = p.shared[kind] < limit ? p.shared[kind] : limit;
    }
    return p;
}

static pool_shape value_pool(const dls_zero_options *o, const dls_shard_unit *units,
                             int n)
{
    return o->stage < 3 || o->lent ? (pool_shape){0}
        : shape_of(units, n, o->keep_forward, o->prefetch + 1);
}

static int is_direct(const dls_zero_options *o)
{
    return o->stage < 2 && !o->narrow_gradients;
}

static pool_shape grad_pool(const dls_zero_options *o, const dls_shard_unit *units,
                            int n)
{
    return is_direct(o) || o->lent ? (pool_shape){0}
        : shape_of(units, n, 0, 2);
}

/* predict the memory of zero */
static size_t pool_elements(pool_shape p)
{
    return p.own + (size_t)p.shared[0] * p.largest[0]
        + (size_t)p.shared[1] * p.largest[1];
}

static size_t wire_elements(const dls_zero_options *o, const dls_shard_unit *units, int n)
{
    size_t most = 0;
    for (int i = 0; i < n; i++)
        if ((size_t)units[i].ways * units[i].slice > most)
            most = (size_t)units[i].ways * units[i].slice;
    return o->stage >= 2 && o->narrow_gradients ? most : 0;
}

static double sent(const dls_zero_options *o, const dls_shard_unit *units, int n,
                   size_t value, size_t grad, int world)
{
    double copies = (double)world / o->shard_size, scatter = 0;
    double gathers = o->stage == 3 ? 2 : o->stage > 0 ? 1 : 0;
    size_t shard = dls_shard_elements(units, n);
    for (int i = 0; i < n; i++)
        scatter += (double)(units[i].ways - 1) * (double)units[i].slice;
    return gathers * scatter * (double)value + scatter * (double)grad
        + 2 * (copies - 1) / copies * (double)shard * (double)grad;
}

static dls_status predict(const dls_shard_unit *units, int n, dls_dtype dtype, int world,
                          const dls_zero_options *o, dls_zero_sizes *out)
{
    size_t shard = dls_shard_elements(units, n), whole = dls_shard_whole(units, n);
    size_t value = dls_dtype_size(dtype);
    size_t wide = dls_dtype_size(dls_dtype_accumulator(dtype));
    size_t grad = o->narrow_gradients ? value : wide;
    size_t state = (wide == value ? 2 : 3) * shard * wide;
    *out = (dls_zero_sizes){
        .parameters = (o->stage == 3 ? shard : whole) * value,
        .gradients = (o->stage >= 2 ? shard : whole) * grad,
        .optimizer = (o->offload ? 0 : state) + 3 * sizeof(double),
        .buffers = pool_elements(value_pool(o, units, n)) * value
            + pool_elements(grad_pool(o, units, n)) * wide
            + wire_elements(o, units, n) * grad,
        .host = o->offload ? state + shard * (grad + value) : 0,
        .sent_bytes = sent(o, units, n, value, grad, world)};
    return DLS_OK;
}

/* The units of parameters that are not to be changed; *units is the caller's. */
static dls_status plan_units(const dls_zero_options *o, const dls_param *params, int n,
                             dls_shard_unit **units, int *count)
{
    int expert_ways = dls_copies_expert_ways(o->axes);
    dls_param *parted = malloc(((size_t)n + 1) * sizeof *parted);
    *units = calloc((size_t)n + 1, sizeof **units);
    dls_status s = parted && *units ? DLS_OK
        : DLS_FAIL(DLS_ERR_MEMORY, "no memory to plan %d units", n);
    if (s == DLS_OK) {
        memcpy(parted, params, (size_t)n * sizeof *parted);
        if (expert_ways)
            dls_shard_part_experts(parted, n, NULL);
        s = dls_shard_plan(parted, n, o->shard_size, expert_ways, *units, count);
    }
    free(parted);
    return s;
}

dls_status dls_zero_predict(const dls_param *params, int n, dls_dtype dtype, int world,
                            const dls_zero_options *options, dls_zero_sizes *out)
{
    dls_zero_options o = *options;
    int count;
    DLS_TRY(check_options(&o, dtype, world));
    dls_shard_unit *units;
    dls_status s = plan_units(&o, params, n, &units, &count);
    if (s == DLS_OK)
        s = predict(units, count, dtype, world, &o, out);
    free(units);
    return s;
}

/* predict the scratch memory of zero */
/* *most := at least what a call takes on this communicator; NULL: no call. */
static dls_status take_most(size_t *most, dls_comm *comm, const char *operation,
                            size_t count, dls_dtype dtype)
{
    size_t bytes = 0;
    if (comm && count > 0)
        DLS_TRY(dls_comm_scratch_bytes(comm, operation, count, (int)dtype, &bytes));
    *most = bytes > *most ? bytes : *most;
    return DLS_OK;
}

/* shard and copies: NULL when they are groups of one. */
static dls_status weigh(const dls_zero_options *o, const dls_shard_unit *units, int n,
                        dls_dtype dtype, dls_comm *shard, dls_comm *copies,
                        dls_zero_scratch *out)
{
    dls_dtype kept = o->narrow_gradients ? dtype : dls_dtype_accumulator(dtype);
    int apart = dls_copies_expert_ways(o->axes) > 0;
    for (int u = 0; u < n; u++) {
        int other = apart && units[u].expert;
        size_t slice = units[u].slice, *most = other ? &out->experts : &out->shard;
        dls_comm *group = other ? o->axes->expert_data : shard;
        DLS_TRY(take_most(most, o->stage ? group : NULL, "all_gather", slice, dtype));
        DLS_TRY(take_most(most, group, "reduce_scatter", slice, kept));
        DLS_TRY(take_most(&out->copies, copies, "all_reduce", slice, kept));
    }
    return take_most(&out->norm, apart ? NULL : shard, "all_reduce", 1, DLS_F64);
}

static dls_status weigh_finish(const dls_zero_options *o, const dls_param *params,
                               const dls_shard_unit *units, int n, dls_dtype dtype,
                               dls_zero_scratch *out)
{
    for (int u = 0; u < n; u++)
        DLS_TRY(dls_tensor_finish_scratch(o->axes, params + units[u].param,
                                          units[u].params,
                                          (int)dls_dtype_accumulator(dtype),
                                          &out->tensor, &out->kv));
    return DLS_OK;
}

/* n ranks of comm: number `first` and each `stride`-th from it; this is number `rank`. */
static dls_status imagine(dls_comm *comm, int rank, int first, int stride, int n,
                          dls_comm **out)
{
    int member[n];
    *out = NULL;
    for (int i = 0; i < n; i++)
        member[i] = dls_comm_world_rank(comm, first + i * stride);
    return n > 1 ? dls_comm_imagine_ranks(out, rank, member, n) : DLS_OK;
}

static dls_status weigh_imagined(const dls_zero_options *o, const dls_shard_unit *units,
                                 int n, dls_dtype dtype, dls_comm *comm,
                                 dls_zero_scratch *out)
{
    int ways = o->shard_size, me = dls_comm_rank(comm), all = dls_comm_size(comm);
    dls_comm *shard, *copies = NULL;
    DLS_TRY(imagine(comm, me % ways, me / ways * ways, 1, ways, &shard));
    dls_status s = imagine(comm, me / ways, me % ways, ways, all / ways, &copies);
    if (s == DLS_OK)
        s = weigh(o, units, n, dtype, shard, copies, out);
    dls_comm_destroy(shard);
    dls_comm_destroy(copies);
    return s;
}

dls_status dls_zero_predict_scratch(const dls_param *params, int n, dls_dtype dtype,
                                    dls_comm *comm, const dls_zero_options *options,
                                    dls_zero_scratch *out)
{
    dls_zero_options o = *options;
    int count, all = dls_comm_size(comm);
    DLS_TRY(check_options(&o, dtype, all));
    *out = (dls_zero_scratch){.whole = o.shard_size == all};
    dls_shard_unit *units;
    dls_status s = plan_units(&o, params, n, &units, &count);
    if (s == DLS_OK)
        s = weigh_imagined(&o, units, count, dtype, comm, out);
    if (s == DLS_OK)
        s = weigh_finish(&o, params, units, count, dtype, out);
    free(units);
    return s;
}

static dls_status reserve(dls_zero *z)
{
    dls_zero_scratch is = {0};
    dls_comm *shard = z->ways > 1 ? z->shard : NULL;
    dls_comm *copies = z->ncopies > 1 ? z->copies : NULL;
    DLS_TRY(weigh(&z->o, z->units, z->nunits, z->ctx->dtype, shard, copies, &is));
    DLS_TRY(weigh_finish(&z->o, z->params->items, z->units, z->nunits, z->ctx->dtype,
                         &is));
    if (is.tensor)
        DLS_TRY(dls_comm_reserve(z->o.axes->tensor, is.tensor, z->stream));
    if (is.kv)
        DLS_TRY(dls_comm_reserve(z->o.axes->kv, is.kv, z->stream));
    if (copies)
        DLS_TRY(dls_comm_reserve(copies, is.copies, z->stream));
    if (is.experts)
        DLS_TRY(dls_comm_reserve(z->experts, is.experts, z->stream));
    if (!shard)
        return DLS_OK;
    DLS_TRY(dls_comm_reserve(shard, is.shard, z->stream));
    return dls_comm_reserve(shard, is.norm, z->ctx->stream);
}

/* take the pools */
static dls_status take_buffer(zero_pool *p, size_t bytes, int owner, int expert)
{
    zero_buffer *b = &p->items[p->n++];
    *b = (zero_buffer){.unit = -1, .owner = owner, .expert = expert};
    DLS_CUDA(cudaEventCreateWithFlags(&b->free, cudaEventDisableTiming));
    return dls_flat_buffer((void **)&b->memory, bytes ? bytes : 1, DLS_MEM_COMMUNICATION);
}

static dls_status take_pool(dls_zero *z, zero_pool *p, pool_shape shape, int all,
                            size_t size)
{
    int shared = shape.shared[0] + shape.shared[1];
    p->items = calloc((size_t)(z->nunits + shared) + 1, sizeof *p->items);
    if (!p->items)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a list of buffers");
    for (int i = 0; i < shared; i++) {
        int expert = i >= shape.shared[0];
        DLS_TRY(take_buffer(p, shape.largest[expert] * size, -1, expert));
    }
    for (int u = 0; u < z->nunits; u++)
        if (shape.own > 0 && has_own(&z->units[u], all))
            DLS_TRY(take_buffer(p, zero_unit_whole(z, u) * size, u,
                                z->units[u].expert));
    return DLS_OK;
}

static dls_status take_pools(dls_zero *z)
{
    size_t wire = wire_elements(&z->o, z->units, z->nunits);
    DLS_TRY(take_pool(z, &z->value_pool, value_pool(&z->o, z->units, z->nunits),
                      z->o.keep_forward, dls_dtype_size(z->ctx->dtype)));
    DLS_TRY(take_pool(z, &z->grad_pool, grad_pool(&z->o, z->units, z->nunits), 0,
                      dls_dtype_size(z->wide)));
    return wire == 0 ? DLS_OK
        : dls_flat_buffer((void **)&z->wire, wire * dls_dtype_size(z->kept),
                          DLS_MEM_COMMUNICATION);
}

/* take the memory of zero */
static dls_status take_cleared(dls_zero *z, void **p, size_t bytes,
                               dls_memory_purpose purpose)
{
    DLS_TRY(dls_flat_buffer(p, bytes, purpose));
    DLS_CUDA(cudaMemsetAsync(*p, 0, bytes, z->ctx->stream));
    return DLS_OK;
}

static dls_status take_optimizer(dls_zero *z)
{
    size_t bytes = z->elements * dls_dtype_size(z->wide);
    DLS_TRY(take_cleared(z, (void **)&z->scalars, 3 * sizeof(double),
                         DLS_MEM_OPTIMIZER));
    if (z->o.offload)
        return zero_offload_create(z);
    if (z->wide != z->ctx->dtype)
        DLS_TRY(take_cleared(z, &z->master, bytes, DLS_MEM_OPTIMIZER));
    DLS_TRY(take_cleared(z, &z->m, bytes, DLS_MEM_OPTIMIZER));
    return take_cleared(z, &z->v, bytes, DLS_MEM_OPTIMIZER);
}

static dls_status take_memory(dls_zero *z)
{
    size_t shard = z->elements, whole = dls_shard_whole(z->units, z->nunits);
    DLS_TRY(take_cleared(z, (void **)&z->values, (z->o.stage == 3 ? shard : whole)
                         * dls_dtype_size(z->ctx->dtype), DLS_MEM_PARAMETERS));
    DLS_TRY(take_cleared(z, (void **)&z->grads, (z->o.stage >= 2 ? shard : whole)
                         * dls_dtype_size(z->kept), DLS_MEM_GRADIENTS));
    DLS_TRY(take_pools(z));
    return take_optimizer(z);
}

/* find the slice of a rank */
static int is_elsewhere(const dls_zero *z, int u)
{
    return z->experts && z->units[u].expert;
}

int zero_unit_rank(const dls_zero *z, int u)
{
    return is_elsewhere(z, u) ? dls_comm_rank(z->experts) : z->rank;
}

dls_comm *zero_unit_group(const dls_zero *z, int u)
{
    return is_elsewhere(z, u) ? z->experts : z->shard;
}

size_t zero_unit_whole(const dls_zero *z, int u)
{
    return (size_t)z->units[u].ways * z->units[u].slice;
}

static char *in_whole(const dls_zero *z, char *base, int u, int rank, dls_dtype dtype)
{
    size_t at = z->units[u].whole + (size_t)rank * z->units[u].slice;
    return base + at * dls_dtype_size(dtype);
}

char *zero_whole_values(const dls_zero *z, int u)
{
    return in_whole(z, z->values, u, 0, z->ctx->dtype);
}

char *zero_value_slice(const dls_zero *z, int u)
{
    return z->o.stage == 3 ? z->values + z->units[u].at * dls_dtype_size(z->ctx->dtype)
                           : in_whole(z, z->values, u, zero_unit_rank(z, u),
                                        z->ctx->dtype);
}

char *zero_grad_slice(const dls_zero *z, int u)
{
    return z->o.stage >= 2 ? z->grads + z->units[u].at * dls_dtype_size(z->kept)
                           : in_whole(z, z->grads, u, zero_unit_rank(z, u), z->kept);
}

/* free zero */
static void free_pool(zero_pool *p)
{
    for (int i = 0; p->items && i < p->n; i++) {
        dls_device_free(p->items[i].memory);
        if (p->items[i].free)
            cudaEventDestroy(p->items[i].free);
    }
    free(p->items);
}

static void free_events(dls_zero *z)
{
    for (int u = 0; z->states && u < z->nunits; u++)
        if (z->states[u].arrived)
            cudaEventDestroy(z->states[u].arrived);
    if (z->ready)
        cudaEventDestroy(z->ready);
    if (z->done)
        cudaEventDestroy(z->done);
    if (z->stream)
        cudaStreamDestroy(z->stream);
}

void dls_zero_destroy(dls_zero *z)
{
    if (!z)
        return;
    zero_offload_destroy(z);
    free_events(z);
    free_pool(&z->value_pool);
    free_pool(&z->grad_pool);
    void *memory[] = {z->values, z->grads, z->wire, z->scalars};
    for (int i = 0; i < 4; i++)
        dls_device_free(memory[i]);
    if (!z->o.offload) {
        dls_device_free(z->master);
        dls_device_free(z->m);
        dls_device_free(z->v);
    }
    if (z->shard != z->world)
        dls_comm_destroy(z->shard);
    if (z->copies != z->world)
        dls_comm_destroy(z->copies);
    dls_spans_free(&z->sent);
    dls_spans_free(&z->waits);
    free(z->units);
    free(z->parts);
    free(z->states);
    free(z);
}

/* create zero */
static dls_status make_events(dls_zero *z)
{
    unsigned untimed = cudaEventDisableTiming;
    DLS_CUDA(cudaStreamCreateWithFlags(&z->stream, cudaStreamNonBlocking));
    DLS_CUDA(dls_gpu_name_stream(z->stream, "shards"));
    DLS_CUDA(cudaEventCreateWithFlags(&z->ready, untimed));
    DLS_CUDA(cudaEventCreateWithFlags(&z->done, untimed));
    for (int u = 0; u < z->nunits; u++)
        DLS_CUDA(cudaEventCreateWithFlags(&z->states[u].arrived, untimed));
    return DLS_OK;
}

static dls_status make_plan(dls_zero *z)
{
    size_t n = (size_t)z->params->n + 2;
    int expert_ways = dls_copies_expert_ways(z->o.axes);
    z->units = calloc(n, sizeof *z->units);
    z->states = calloc(n, sizeof *z->states);
    z->parts = expert_ways ? calloc(n, sizeof *z->parts) : NULL;
    if (!z->units || !z->states || (expert_ways && !z->parts))
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %zu units", n);
    z->experts = expert_ways ? z->o.axes->expert_data : NULL;
    z->model_units = 1 + (z->params->n ? z->params->items[z->params->n - 1].unit : -1);
    if (expert_ways)
        dls_shard_part_experts(z->params->items, z->params->n, z->parts);
    DLS_TRY(dls_shard_plan(z->params->items, z->params->n, z->ways, expert_ways, z->units,
                           &z->nunits));
    z->elements = dls_shard_elements(z->units, z->nunits);
    for (int u = 0; u < z->nunits; u++)
        z->states[u] = (zero_unit_state){.values = -1, .grads = -1, .waited = 1};
    return DLS_OK;
}

static void point_at_whole(dls_zero *z)
{
    for (int u = 0; u < z->nunits; u++) {
        if (z->o.stage < 3)
            zero_point_values(z, u, zero_whole_values(z, u));
        if (z->direct)
            zero_point_grads(z, u, in_whole(z, z->grads, u, 0, z->kept));
    }
}

static dls_status prepare(dls_zero *z)
{
    DLS_TRY(check_options(&z->o, z->ctx->dtype, dls_comm_size(z->world)));
    for (int i = 0; i < z->params->n; i++)
        if (z->params->items[i].frozen)
            return DLS_FAIL(DLS_ERR_INPUT, "%s is frozen: expected all parameters to "
                            "learn, or data_parallel: ddp", z->params->items[i].name);
    if (!z->params->unplaced)
        return DLS_FAIL(DLS_ERR_STATE, "the model has taken memory for its parameters; "
                        "ZeRO needs one that is unplaced");
    z->ways = z->o.shard_size;
    z->wide = dls_dtype_accumulator(z->ctx->dtype);
    z->kept = z->o.narrow_gradients ? z->ctx->dtype : z->wide;
    z->direct = is_direct(&z->o);
    DLS_TRY(make_plan(z));
    DLS_TRY(zero_agree(z));
    DLS_TRY(zero_form_groups(z));
    DLS_TRY(make_events(z));
    DLS_TRY(take_memory(z));
    DLS_TRY(reserve(z));
    point_at_whole(z);
    return dls_ctx_sync(z->ctx);
}

dls_status dls_zero_create(dls_zero **out, dls_ctx *ctx, dls_params *params,
                           dls_comm *comm, const dls_zero_options *options)
{
    dls_zero *z = calloc(1, sizeof *z);
    if (!z)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for sharding");
    *z = (dls_zero){.ctx = ctx, .params = params, .world = comm, .o = *options};
    dls_status s = prepare(z);
    if (s != DLS_OK) {
        dls_zero_destroy(z);
        return s;
    }
    zero_make_hooks(z);
    *out = z;
    return DLS_OK;
}
