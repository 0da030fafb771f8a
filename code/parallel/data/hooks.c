/* code/parallel/data/hooks.c: from chapters/04-data-parallelism-hooks.md. Edit the chapter, or edit here and run "make untangle". */
/* Creating hooks; the plain sum, and sums in another type. */
#include "parallel/data/hooks.h"

#include <stdlib.h>
#include <string.h>

#include "comm/scratch.h"
#include "kernels/wire.h"
#include "vgpu/gpu.h"

/* share among the kinds */
dls_status dls_hook_all_reduce(dls_hook *h, void *buf, size_t count, int dtype)
{
    return dls_comm_all_reduce(h->comm, buf, count, dtype, DLS_SUM, h->wire->stream);
}

void dls_hook_tell(const dls_hook_told *told, const char *operation, size_t count,
                   int dtype)
{
    if (count > 0)
        told->fn(told->self, operation, count, dtype);
}

dls_status dls_hook_buffer(dls_hook *h, void **buf, size_t bytes)
{
    h->bytes += bytes ? bytes : 1;
    if (h->weighed)
        return DLS_OK;
    DLS_TRY(dls_flat_buffer(buf, bytes ? bytes : 1, DLS_MEM_COMMUNICATION));
    DLS_CUDA(cudaMemsetAsync(*buf, 0, bytes ? bytes : 1, h->wire->stream));
    return DLS_OK;
}

int dls_hook_warms_up(const dls_hook *h)
{
    return h->step < h->options.warmup;
}

/* sum plainly */
static dls_status plain_sum(dls_hook *h, int bucket)
{
    const dls_hook_bucket *b = &h->buckets[bucket];
    return dls_hook_all_reduce(h, b->grads, b->count, h->wire->dtype);
}

static void plain_calls(const dls_hook *h, int bucket, const dls_hook_told *told)
{
    if (bucket >= 0)
        dls_hook_tell(told, "all_reduce", h->buckets[bucket].count, (int)h->wire->dtype);
}

const dls_hook_kind dls_hook_none = {
    .name = "none", .sum = plain_sum, .calls = plain_calls};

/* sum in another type */
typedef struct cast_state { void *wire; } cast_state;

static dls_status prepare_cast(dls_hook *h)
{
    cast_state *s = h->state;
    size_t largest = 0;
    for (int b = 0; b < h->nbuckets; b++)
        if (h->buckets[b].count > largest)
            largest = h->buckets[b].count;
    return dls_hook_buffer(h, &s->wire,
                           largest * dls_comm_type_size(h->options.reduce_type));
}

static void release_cast(dls_hook *h)
{
    dls_device_free(((cast_state *)h->state)->wire);
}

static dls_wire_type wire_type(int type)
{
    return type == DLS_F64 ? DLS_WIRE_F64 : type == DLS_F32 ? DLS_WIRE_F32
           : type == DLS_BF16 ? DLS_WIRE_BF16 : DLS_WIRE_F16;
}

static dls_status cast_sum(dls_hook *h, int bucket)
{
    const dls_hook_bucket *b = &h->buckets[bucket];
    cast_state *s = h->state;
    int type = h->options.reduce_type;
    double scale = type == DLS_COMM_F16 ? 1024 : 1; // 2^10: above fp16's least numbers
    DLS_TRY(dls_to_wire(h->wire, s->wire, wire_type(type), b->grads, b->count, scale));
    DLS_TRY(dls_hook_all_reduce(h, s->wire, b->count, type));
    return dls_from_wire(h->wire, b->grads, s->wire, wire_type(type), b->count,
                         1 / scale);
}

static void cast_calls(const dls_hook *h, int bucket, const dls_hook_told *told)
{
    if (bucket >= 0)
        dls_hook_tell(told, "all_reduce", h->buckets[bucket].count,
                      h->options.reduce_type);
}

const dls_hook_kind dls_hook_cast = {
    .name = "cast", .state_bytes = sizeof(cast_state), .prepare = prepare_cast,
    .sum = cast_sum, .calls = cast_calls, .release = release_cast};

/* create a hook */
const char *dls_hook_name(dls_hook_choice choice)
{
    static const char *const names[DLS_HOOKS] = {
        "none", "bf16", "fp16", "powersgd", "top_k", "one_bit_adam", "local_sgd"};
    return choice >= 0 && choice < DLS_HOOKS ? names[choice] : "?";
}

static const dls_hook_kind *kind_of(dls_hook_options *o)
{
    static const dls_hook_kind *const kinds[DLS_HOOKS] = {
        &dls_hook_none, &dls_hook_cast, &dls_hook_cast, &dls_hook_powersgd,
        &dls_hook_top_k, &dls_hook_one_bit_adam, &dls_hook_local_sgd};
    if (o->choice == DLS_HOOK_BF16)
        o->reduce_type = DLS_BF16;
    if (o->choice == DLS_HOOK_FP16)
        o->reduce_type = DLS_COMM_F16;
    if (o->choice == DLS_HOOK_NONE && o->sums_in)
        return &dls_hook_cast;
    return kinds[o->choice];
}

static dls_status check_options(const dls_hook_options *o, dls_dtype dtype)
{
    const char *name = dls_hook_name(o->choice);
    if (o->choice < 0 || o->choice >= DLS_HOOKS)
        return DLS_FAIL(DLS_ERR_INPUT, "communication hook %d: there is none", o->choice);
    if (o->choice > DLS_HOOK_FP16 && dtype == DLS_BF16)
        return DLS_FAIL(DLS_ERR_INPUT, "hook %s: expected gradients in f32 or f64, which "
                        "its errors are kept in", name);
    if (o->choice == DLS_HOOK_POWERSGD && (o->rank < 1 || o->rank > 32))
        return DLS_FAIL(DLS_ERR_INPUT, "hook %s: rank %d; expected 1 to 32", name,
                        o->rank);
    if (o->choice == DLS_HOOK_TOP_K && (!(o->keep > 0 && o->keep <= 1) || o->ramp < 0))
        return DLS_FAIL(DLS_ERR_INPUT, "hook %s: keeps %g after %lld steps; expected "
                        "more than 0 and at most 1, after 0 or more", name, o->keep,
                        (long long)o->ramp);
    if (o->choice == DLS_HOOK_ONE_BIT_ADAM && (!o->momentum || o->warmup < 1))
        return DLS_FAIL(DLS_ERR_INPUT, "hook %s: expected the optimizer's momentum and "
                        "at least one step of warm-up", name);
    if (o->choice == DLS_HOOK_LOCAL_SGD && (o->period < 1 || !(o->local > 0)))
        return DLS_FAIL(DLS_ERR_INPUT, "hook %s: expected a period of at least one step "
                        "and a positive scale", name);
    return DLS_OK;
}

void dls_hook_free(dls_hook *h)
{
    if (!h)
        return;
    if (h->state && h->kind->release)
        h->kind->release(h);
    dls_device_free(h->error);
    dls_device_free(h->owned);
    free(h->state);
    free(h);
}

static dls_status make(dls_hook **out, const dls_hook_options *options, dls_comm *comm,
                       dls_ctx *wire, const dls_hook_bucket *buckets, int nbuckets,
                       int weighed)
{
    DLS_TRY(check_options(options, wire->dtype));
    dls_hook *h = calloc(1, sizeof *h);
    if (!h)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a communication hook");
    *h = (dls_hook){.options = *options, .comm = comm, .wire = wire, .buckets = buckets,
                    .nbuckets = nbuckets, .weighed = weighed};
    h->kind = kind_of(&h->options);
    h->state = calloc(1, h->kind->state_bytes + 1);
    dls_status s = h->state ? DLS_OK : DLS_FAIL(DLS_ERR_MEMORY, "no memory for a hook");
    if (s == DLS_OK && h->kind->prepare)
        s = h->kind->prepare(h);
    if (s != DLS_OK)
        dls_hook_free(h);
    else
        *out = h;
    return s;
}

dls_status dls_hook_create(dls_hook **out, const dls_hook_options *options,
                           dls_comm *comm, dls_ctx *wire,
                           const dls_hook_bucket *buckets, int nbuckets)
{
    return make(out, options, comm, wire, buckets, nbuckets, 0);
}

/* call a hook */
dls_status dls_hook_sum(dls_hook *h, int bucket)
{
    if (dls_comm_size(h->comm) == 1 && h->options.choice != DLS_HOOK_ONE_BIT_ADAM)
        return DLS_OK;
    return h->kind->sum(h, bucket);
}

void dls_hook_step_over(dls_hook *h)
{
    h->step++;
}

dls_status dls_hook_updated(dls_hook *h, dls_ctx *ctx, void *values, void *master)
{
    if (dls_comm_size(h->comm) == 1 || !h->kind->updated)
        return DLS_OK;
    return h->kind->updated(h, ctx, values, master);
}

int dls_hook_gives_momentum(const dls_hook *h)
{
    return h->options.choice == DLS_HOOK_ONE_BIT_ADAM && h->step > h->options.warmup;
}

/* know what is sent */
typedef struct bill { uint64_t ranks, bytes; } bill;

/* Every rank's block goes to all others; a sum is there and back. */
static void add_bytes(void *self, const char *operation, size_t count, int dtype)
{
    bill *b = self;
    uint64_t block = count * dls_comm_type_size(dtype);
    b->bytes += (b->ranks - 1) * block * (strcmp(operation, "all_reduce") ? b->ranks : 2);
}

uint64_t dls_hook_wire_bytes(const dls_hook *h)
{
    bill b = {(uint64_t)dls_comm_size(h->comm), 0};
    for (int i = -1; i < h->nbuckets; i++)
        h->kind->calls(h, i, &(dls_hook_told){&b, add_bytes});
    return b.bytes;
}

/* know what a hook takes */
typedef struct scale {
    dls_comm *comm;
    int within;         // 1: smaller counts will come, too
    dls_status status;
    size_t most;
} scale;

static void weigh_call(void *self, const char *operation, size_t count, int dtype)
{
    scale *s = self;
    size_t bytes;
    if (s->status == DLS_OK)
        s->status = (s->within ? dls_comm_scratch_within : dls_comm_scratch_bytes)(
            s->comm, operation, count, dtype, &bytes);
    if (s->status == DLS_OK && bytes > s->most)
        s->most = bytes;
}

dls_status dls_hook_needs(const dls_hook *h, dls_hook_memory *out)
{
    const int64_t o = h->options.warmup, period = h->options.period;
    const int64_t steps[] = {0, o, o + (period > 1 ? period - 1 : 0)};
    scale wire = {.comm = h->comm, .within = h->options.ramp > 0}, other = wire;
    dls_hook as = *h;
    for (int i = 0; i < 3; i++) {
        as.step = steps[i];
        for (int b = 0; b < h->nbuckets; b++)
            h->kind->calls(&as, b, &(dls_hook_told){&wire, weigh_call});
        h->kind->calls(&as, -1, &(dls_hook_told){&other, weigh_call});
    }
    *out = (dls_hook_memory){h->bytes, wire.most, other.most};
    return wire.status != DLS_OK ? wire.status : other.status;
}

dls_status dls_hook_predict(const dls_hook_options *options, dls_comm *comm,
                            dls_dtype dtype, const dls_hook_bucket *buckets,
                            int nbuckets, dls_hook_memory *out)
{
    dls_ctx wire = {.dtype = dtype};
    dls_hook *h;
    DLS_TRY(make(&h, options, comm, &wire, buckets, nbuckets, 1));
    dls_status s = dls_hook_needs(h, out);
    dls_hook_free(h);
    return s;
}
