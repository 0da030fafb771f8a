/* code/parallel/pipeline/stage.c: from chapters/05-pipeline-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* The passes of a stage, and its slots: blocks of device memory that are taken and given
 * back in the order of the stream, so that the host need not wait for the device.
 */
#include "parallel/pipeline/stage.h"

#include <stdlib.h>

#include "tensor/memory.h"
#include "vgpu/gpu.h"
#include "vgpu/trace.h"

/* tell what an action adds */
ptrdiff_t dls_stage_adds(const dls_stage_bytes *b, const dls_action *a)
{
    switch (a->kind) {
    case DLS_DO_F: return (ptrdiff_t)(b->stash + b->early);
    case DLS_DO_I: return (ptrdiff_t)b->gradients - (ptrdiff_t)b->early;
    case DLS_DO_W: return -(ptrdiff_t)(b->stash + b->gradients);
    case DLS_DO_B: return -(ptrdiff_t)(b->stash + b->early);
    default: return 0;
    }
}

/* take and give memory */
/* Of a cut model, what travels between ranks lies in these blocks: they come from memory
 * that may, and go round. One stream uses them, so that its order keeps users apart. */
static dls_status take_round(dls_stage *s, size_t bytes, void **block)
{
    dls_stage_block *free = NULL;
    for (dls_stage_block *b = s->blocks; b; b = b->next)
        if (!b->taken && b->bytes == bytes)
            free = b;
    if (!free && bytes > 0) {
        free = calloc(1, sizeof *free);
        if (!free)
            return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a list of blocks");
        *free = (dls_stage_block){.bytes = bytes, .next = s->blocks};
        s->blocks = free;
        DLS_TRY(dls_flat_buffer(&free->memory, bytes, DLS_MEM_ACTIVATIONS));
    }
    if (free)
        free->taken = 1;
    *block = free ? free->memory : NULL;
    return DLS_OK;
}

static void give_round(dls_stage *s, void *block)
{
    for (dls_stage_block *b = s->blocks; b; b = b->next)
        if (b->memory == block)
            b->taken = 0;
}

static dls_status take(dls_stage *s, size_t bytes, void **block)
{
    if (s->cut)
        return take_round(s, bytes, block);
    dls_memory_purpose before = dls_gpu_memory_purpose(DLS_MEM_ACTIVATIONS);
    cudaError_t e = cudaMallocAsync(block, bytes, s->model->ctx->stream);
    dls_gpu_memory_purpose(before);
    if (e == cudaErrorMemoryAllocation)
        return DLS_FAIL(DLS_ERR_MEMORY, "%zu bytes for a micro-batch of units %d ... %d "
                        "do not fit on the device", bytes, s->model->config.from_unit,
                        s->model->config.to_unit - 1);
    DLS_CUDA(e);
    return DLS_OK;
}

static dls_status give(dls_stage *s, void **block)
{
    if (*block && s->cut)
        give_round(s, *block);
    else if (*block)
        DLS_CUDA(cudaFreeAsync(*block, s->model->ctx->stream));
    *block = NULL;
    return DLS_OK;
}

dls_status dls_stage_forget(dls_stage *s, int slot)
{
    dls_stage_slot *k = &s->slot[slot];
    DLS_TRY(give(s, &k->stash));
    DLS_TRY(give(s, &k->early));
    return give(s, &k->gradients);
}

static dls_status expect(const dls_stage *s, int slot, int taken)
{
    if (slot < 0 || slot >= s->slots)
        return DLS_FAIL(DLS_ERR_STATE, "micro-batch %d of a stage with %d slots", slot,
                        s->slots);
    if ((s->slot[slot].stash != NULL) != taken)
        return DLS_FAIL(DLS_ERR_STATE, "micro-batch %d of units %d ... %d: %s", slot,
                        s->model->config.from_unit, s->model->config.to_unit - 1,
                        taken ? "no forward pass before this" : "forward twice");
    return DLS_OK;
}

/* run a stage forward */
static size_t row_bytes(const dls_stage *s, int rows)
{
    rows /= dls_sharding_slices(&s->model->config.sharding);
    size_t size = dls_dtype_size(s->model->ctx->dtype);
    return (size_t)rows * s->model->config.channels * size;
}

static dls_status keep_rows(dls_stage *s, const dls_pass *p, void *to, const void *from)
{
    DLS_CUDA(cudaMemcpyAsync(to, from, row_bytes(s, p->B * p->T),
                             cudaMemcpyDeviceToDevice, s->model->ctx->stream));
    return DLS_OK;
}

/* Room for rows at the start of a block, rounded as the plan's. */
static size_t rows_room(const dls_stage *s)
{
    const dls_plan *plan = &s->model->plan;
    return (row_bytes(s, plan->max_B * plan->max_T) + 127) / 128 * 128;
}

/* Room for x in the stash, or in the early block if nobody reads it after I. */
static size_t x_room(const dls_stage *s, int early)
{
    return !s->first && early == s->model->top->spares_x ? rows_room(s) : 0;
}

static size_t host_room(const dls_stage *s)
{
    return (s->model->plan.host + 63) / 64 * 64;
}

static void use_working(const dls_stage *s, dls_pass *p, void *working)
{
    p->scratch = working;
    p->temporary = (char *)working + s->model->plan.scratch;
}

static void fill_pass(const dls_stage *s, dls_stage_slot *k, const dls_stage_input *in)
{
    dls_pass *p = &k->pass;
    *p = s->model->pass;
    p->B = in->B;
    p->T = in->T;
    p->tokens = in->tokens;
    p->targets = in->targets;
    p->loss_scale = in->loss_scale;
    p->drops = in->drops;
    p->seed = in->seed;
    p->first_sequence = in->first_sequence;
    p->params = in->params ? in->params : p->params;
    p->stash = (char *)k->stash + x_room(s, 0);
    p->early = (char *)k->early + x_room(s, 1);
    k->x = x_room(s, 1) ? k->early : k->stash;
    p->host = s->host + (k - s->slot) * host_room(s);
    use_working(s, p, s->working);
}

dls_status dls_stage_reserve(dls_stage *s, int slot)
{
    DLS_TRY(expect(s, slot, 0));
    dls_stage_slot *k = &s->slot[slot];
    DLS_TRY(take(s, s->bytes.stash, &k->stash));
    k->reserved = 1;
    return take(s, s->bytes.early, &k->early);
}

dls_status dls_stage_forward(dls_stage *s, int slot, const dls_stage_input *in, void *y,
                             const void *x)
{
    const dls_plan *plan = &s->model->plan;
    dls_layer *top = s->model->top;
    DLS_TRY(expect(s, slot, slot >= 0 && slot < s->slots && s->slot[slot].reserved));
    int least = s->model->config.moe.experts > 0 ? 0 : 1;
    if (in->B < least || in->T < 1 || in->B > plan->max_B || in->T > plan->max_T)
        return DLS_FAIL(DLS_ERR_INPUT, "micro-batch %d x %d: planned for %d x %d", in->B,
                        in->T, plan->max_B, plan->max_T);
    dls_stage_slot *k = &s->slot[slot];
    if (!k->reserved)
        DLS_TRY(dls_stage_reserve(s, slot));
    k->reserved = 0;
    fill_pass(s, k, in);
    if (!s->first)
        DLS_TRY(keep_rows(s, &k->pass, k->x, x));
    return top->kind->forward(top, &k->pass, y, k->x);
}

/* run a stage backward */
static void use_gradients(const dls_stage *s, dls_pass *p, void *block)
{
    use_working(s, p, s->beside ? s->beside : s->working);
    p->gradients = (char *)block + (s->last || !s->deferred ? 0 : rows_room(s));
}

dls_status dls_stage_backward_input(dls_stage *s, int slot, void *dx, const void *dy)
{
    dls_layer *top = s->model->top;
    DLS_TRY(expect(s, slot, 1));
    dls_stage_slot *k = &s->slot[slot];
    if (!s->deferred || k->gradients)
        return DLS_FAIL(DLS_ERR_STATE, "micro-batch %d: %s", slot, s->deferred
                        ? "I twice" : "the stage was not planned for a split backward");
    k->gradients = s->spare;
    s->spare = NULL;
    use_gradients(s, &k->pass, k->gradients);
    if (!s->last)
        DLS_TRY(keep_rows(s, &k->pass, k->gradients, dy));
    DLS_TRY(top->kind->backward_input(top, &k->pass, dx, k->gradients, k->x, NULL));
    DLS_TRY(give(s, &k->early));
    return take(s, s->bytes.gradients, &s->spare);
}

dls_status dls_stage_backward_weight(dls_stage *s, int slot)
{
    dls_layer *top = s->model->top;
    DLS_TRY(expect(s, slot, 1));
    dls_stage_slot *k = &s->slot[slot];
    if (!k->gradients)
        return DLS_FAIL(DLS_ERR_STATE, "micro-batch %d: W before I", slot);
    DLS_TRY(top->kind->backward_weight(top, &k->pass, k->gradients, k->x));
    return dls_stage_forget(s, slot);
}

dls_status dls_stage_backward(dls_stage *s, int slot, void *dx, const void *dy)
{
    DLS_TRY(expect(s, slot, 1));
    dls_stage_slot *k = &s->slot[slot];
    if (k->gradients)
        return DLS_FAIL(DLS_ERR_STATE, "micro-batch %d: B after I", slot);
    use_gradients(s, &k->pass, s->spare);
    DLS_TRY(dls_layer_backward(s->model->top, &k->pass, dx, dy, k->x, NULL));
    return dls_stage_forget(s, slot);
}

/* free a stage */
void dls_stage_free(dls_stage *s)
{
    if (!s)
        return;
    for (int i = 0; s->slot && i < s->slots; i++)
        dls_stage_forget(s, i);         // a broken device has told its error already
    if (s->model && s->model->ctx) {
        give(s, &s->working);
        give(s, &s->beside);
        give(s, &s->spare);
    }
    while (s->blocks) {
        dls_stage_block *b = s->blocks;
        s->blocks = b->next;
        dls_device_free(b->memory);
        free(b);
    }
    free(s->slot);
    free(s->host);
    dls_transformer_free(s->model);
    free(s);
}

/* create a stage */
static size_t at_least_one(size_t bytes)
{
    return bytes ? bytes : 128;     // a block that is there marks a slot as taken
}

void dls_stage_add_up(dls_stage *s)
{
    const dls_plan *plan = &s->model->plan;
    s->bytes = (dls_stage_bytes){
        .stash = at_least_one(plan->stash + x_room(s, 0)),
        .early = plan->early + x_room(s, 1),
        .gradients = at_least_one(plan->gradients
                                  + (s->last || !s->deferred ? 0 : rows_room(s))),
        .working = plan->scratch + plan->temporary};
}

dls_status dls_stage_predict(const dls_transformer_config *part, int max_B, int max_T,
                             dls_dtype dtype, dls_stage_bytes *out, size_t *fixed)
{
    dls_transformer_memory m;
    DLS_TRY(dls_transformer_predict_memory(part, max_B, max_T, dtype, &m));
    dls_ctx ctx = {.dtype = dtype};
    dls_layer top = {.spares_x = m.spares_x};
    dls_transformer model = {.config = *part, .ctx = &ctx, .top = &top, .plan = m.plan};
    dls_stage s = {.model = &model, .first = part->from_unit == 0,
                   .last = part->to_unit == part->layers + 2,
                   .deferred = part->split_backward};
    dls_stage_add_up(&s);
    *out = s.bytes;
    *fixed = m.activations - dls_plan_bytes(&m.plan);
    return DLS_OK;
}

static dls_status open_stage(dls_stage *s, dls_ctx *ctx, const dls_transformer_config *c,
                             dls_model_maker *make, int max_B, int max_T)
{
    DLS_TRY((make ? make : dls_transformer_create)(&s->model, ctx, c, max_B, max_T));
    s->first = c->from_unit == 0;
    s->last = c->to_unit == c->layers + 2;
    s->deferred = c->split_backward;
    s->cut = dls_transformer_travels(c);
    s->slot = calloc((size_t)s->slots, sizeof *s->slot);
    s->host = calloc((size_t)s->slots, host_room(s) + 1);
    if (!s->slot || !s->host)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d slots", s->slots);
    dls_stage_add_up(s);
    DLS_TRY(take(s, s->bytes.working, &s->working));
    return take(s, s->bytes.gradients, &s->spare);
}

dls_status dls_stage_pair(dls_stage *s)
{
    return s->beside ? DLS_OK : take(s, s->bytes.working, &s->beside);
}

dls_status dls_stage_create(dls_stage **out, dls_ctx *ctx,
                            const dls_transformer_config *config, dls_model_maker *make,
                            int max_B, int max_T, int slots)
{
    if (config->to_unit == 0 || slots < 1)
        return DLS_FAIL(DLS_ERR_INPUT, "a stage of units %d ... %d with %d slots",
                        config->from_unit, config->to_unit - 1, slots);
    dls_stage *s = calloc(1, sizeof *s);
    if (!s)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a stage");
    s->slots = slots;
    dls_status status = open_stage(s, ctx, config, make, max_B, max_T);
    if (status == DLS_OK)
        *out = s;
    else
        dls_stage_free(s);
    return status;
}
