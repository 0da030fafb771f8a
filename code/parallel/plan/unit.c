/* code/parallel/plan/unit.c: from chapters/07-planner-record.md. Edit the chapter, or edit here and run "make untangle". */
/* Passes of single units over memory that nobody touches. */
#include "parallel/plan/unit.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "comm/scratch.h"
#include "model/expert_block.h"
#include "parallel/pipeline/update.h"
#include "parallel/tensor/gradients.h"

/* open a recorder */
dls_status dls_planner_open(dls_planner *r, dls_dtype dtype)
{
    size_t whole;
    *r = (dls_planner){.latency = dls_gpu_cluster()->device.launch_latency};
    DLS_TRY(dls_ctx_create(&r->ctx, 0, dtype));
    DLS_CUDA(cudaMemGetInfo(&r->bytes, &whole));
    r->bytes -= r->bytes / 16;      // for tables of angles, which models make
    DLS_CUDA(cudaMalloc((void **)&r->memory, r->bytes));
    return DLS_OK;
}

void dls_planner_close(dls_planner *r)
{
    cudaFree(r->memory);
    dls_ctx_destroy(&r->ctx);
    free(r->known);
    free(r->key);
    free(r->talks);
    *r = (dls_planner){0};
}

/* record what is enqueued */
dls_status dls_planner_begin(dls_planner *r)
{
    (void)r;
    return dls_gpu_record();
}

/* The compute stream is the one that the first operation of a pass is on. */
dls_status dls_planner_end(dls_planner *r, dls_part *out)
{
    const dls_gpu_note *notes;
    double host;
    int n;
    DLS_TRY(dls_gpu_recorded(&notes, &n, &host));
    return dls_part_fold(notes, n, host, n > 0 ? notes[0].stream : 0, r->latency, out);
}

/* lay everything on one place */
static dls_status fits(const dls_planner *r, size_t bytes, const char *what)
{
    if (bytes <= r->bytes)
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_MEMORY, "%s of one unit take %zu bytes, a device has %zu",
                    what, bytes, r->bytes);
}

dls_status dls_planner_place(dls_planner *r, dls_params *set)
{
    size_t wide = dls_dtype_size(dls_dtype_accumulator(r->ctx.dtype));
    set->dtype = r->ctx.dtype;
    DLS_TRY(fits(r, set->elements * wide, "the gradients"));
    set->values = set->grads = r->memory;
    set->unplaced = 0;
    for (int i = 0; i < set->n; i++) {
        dls_param *p = &set->items[i];
        p->value = r->memory + p->offset * dls_dtype_size(r->ctx.dtype);
        p->grad = r->memory + p->offset * wide;
    }
    return DLS_OK;
}

static dls_status lay_out(dls_planner *r, const dls_planned_pass *how,
                          dls_transformer *t, dls_pass *p)
{
    DLS_TRY(dls_planner_place(r, &t->params));
    DLS_TRY(fits(r, dls_plan_bytes(&t->plan), "the activations"));
    *p = t->pass;
    dls_pass_regions(p, &t->plan, r->memory);
    p->B = how->B;
    p->T = how->T;
    p->tokens = p->targets = (int *)r->memory;
    p->rotation = r->memory;
    p->rotation_length = t->config.context;
    p->drops = 1;
    p->loss_scale = 1;
    return DLS_OK;
}

/* imagine the axes */
static dls_status imagine(dls_comm **out, int rank, int stride, int n)
{
    *out = NULL;
    return n > 1 ? dls_comm_imagine(out, rank, 0, stride, n) : DLS_OK;
}

static dls_status imagine_experts(dls_axes *a)
{
    const dls_sharding *s = &a->sharding;
    int etp = s->expert_tensor > 1 ? s->expert_tensor : 1;
    dls_comm *expert, *shares;
    DLS_TRY(imagine(&expert, s->expert_rank, etp, s->expert));
    a->expert = expert;         // closed with the axes, whatever comes
    DLS_TRY(imagine(&shares, s->expert_tensor_rank, 1, etp));
    return dls_axes_add_experts(a, expert, shares, NULL);
}

/* The groups of this rank as the mesh numbers them: tensor nearest, context next. */
static dls_status open_axes(dls_axes *a, const dls_transformer_config *c)
{
    const dls_sharding *s = &c->sharding;
    int t = s->tensor > 1 ? s->tensor : 1, n = s->context > 1 ? s->context : 1;
    int copies = t > c->kv_heads ? t / c->kv_heads : 1;
    int inner = s->way == DLS_CONTEXT_ULYSSES ? n : s->ulysses > 1 ? s->ulysses : 1;
    int outer = n / inner;
    *a = (dls_axes){.sharding = *s};
    DLS_TRY(imagine(&a->tensor, s->tensor_rank, 1, t));
    DLS_TRY(imagine(&a->kv, s->tensor_rank % copies, 1, copies));
    DLS_TRY(imagine(&a->context, s->context_rank, t, n));
    DLS_TRY(imagine(&a->ulysses, s->context_rank % inner, t, inner));
    DLS_TRY(imagine(&a->ring, s->context_rank / inner, t * inner, outer));
    DLS_CUDA(cudaStreamCreateWithFlags(&a->stream, cudaStreamNonBlocking));
    DLS_CUDA(cudaEventCreateWithFlags(&a->ready, cudaEventDisableTiming));
    DLS_CUDA(cudaEventCreateWithFlags(&a->arrived, cudaEventDisableTiming));
    return imagine_experts(a);
}

static size_t scratch_of(const dls_axes *a)
{
    const dls_comm *all[] = {a->tensor,  a->kv,   a->context,      a->ulysses,
                             a->expert, a->ring, a->expert_tensor};
    size_t sum = 0;
    for (int i = 0; i < 7; i++)
        sum += dls_imagined_scratch(all[i]);
    return sum;
}

static void close_axes(dls_axes *a)
{
    dls_comm *all[] = {a->tensor,  a->kv,   a->context,      a->ulysses,
                       a->expert, a->ring, a->expert_tensor};
    dls_axes_drop_experts(a);
    for (int i = 0; i < 7; i++)
        dls_comm_destroy(all[i]);
    if (a->stream)
        cudaStreamDestroy(a->stream);
    if (a->ready)
        cudaEventDestroy(a->ready);
    if (a->arrived)
        cudaEventDestroy(a->arrived);
}

/* record the passes */
static dls_status record_forward(dls_planner *r, dls_transformer *t, dls_pass *p,
                                 dls_part *out)
{
    DLS_TRY(dls_planner_begin(r));
    dls_status s = t->top->kind->forward(t->top, p, r->memory, r->memory);
    dls_status ended = dls_planner_end(r, out);
    return s != DLS_OK ? s : ended;
}

static dls_status record_backward(dls_planner *r, dls_transformer *t, dls_pass *p,
                                  int first, dls_planned_unit *out)
{
    void *dx = first ? NULL : r->memory;
    dls_layer *top = t->top;
    dls_part *part[] = {&out->B, &out->I, &out->W};
    dls_status s = DLS_OK, ended = DLS_OK;
    for (int i = t->config.split_backward; s == DLS_OK && i <= 2; i++) {
        for (int k = 0; k < t->params.n; k++)
            p->pending[k] = t->params.items[k].uses;
        DLS_TRY(dls_planner_begin(r));
        s = i == 0 ? dls_layer_backward(top, p, dx, r->memory, r->memory, NULL)
          : i == 1 ? top->kind->backward_input(top, p, dx, r->memory, r->memory, NULL)
                   : top->kind->backward_weight(top, p, r->memory, r->memory);
        ended = dls_planner_end(r, part[i]);
        if (!t->config.split_backward)
            break;
    }
    return s != DLS_OK ? s : ended;
}

/* record the update */
static dls_status clear(dls_stage_update *u, const dls_axes *axes, char *memory)
{
    (void)axes, (void)memory;
    return dls_params_zero_grads(&u->stage->model->params, u->stage->model->ctx);
}

static dls_status finish(dls_stage_update *u, const dls_axes *axes, char *memory)
{
    const dls_params *set = &u->stage->model->params;
    (void)memory;
    return dls_tensor_finish(axes, set->items, set->n,
                             (int)dls_dtype_accumulator(set->dtype),
                             u->stage->model->ctx->stream);
}

static dls_status square(dls_stage_update *u, const dls_axes *axes, char *memory)
{
    (void)axes;
    return dls_stage_update_square(u, (double *)memory);
}

static dls_status apply(dls_stage_update *u, const dls_axes *axes, char *memory)
{
    const dls_adamw_options w = {0.9, 0.95, 1e-8, 0.1, 1};
    (void)axes;
    return dls_stage_update_apply(u, &w, 1e-3, 1, (double *)memory);
}

static dls_status record_update(dls_planner *r, dls_stage *stage, const dls_axes *axes,
                                dls_planned_unit *out)
{
    dls_status (*const does[])(dls_stage_update *, const dls_axes *, char *) = {
        clear, finish, square, apply};
    dls_part *part[] = {&out->clear, &out->finish, &out->square, &out->apply};
    dls_dtype dtype = r->ctx.dtype;
    dls_stage_update u = {.stage = stage, .m = r->memory, .v = r->memory, .counted = 1,
                          .copy = -1,
                          .master = dls_dtype_accumulator(dtype) != dtype ? r->memory
                                                                          : NULL};
    dls_status s = DLS_OK, ended = DLS_OK;
    for (int i = 0; s == DLS_OK && ended == DLS_OK && i < 4; i++) {
        DLS_TRY(dls_planner_begin(r));
        s = does[i](&u, axes, r->memory);
        ended = dls_planner_end(r, part[i]);
    }
    return s != DLS_OK ? s : ended;
}

/* make a unit without memory */
static dls_status make_unit(dls_planner *r, const dls_planned_pass *pass, int from,
                            int to, dls_transformer **out)
{
    dls_transformer_config c = *pass->model;
    c.from_unit = from;
    c.to_unit = to;
    c.unplaced = 1;
    c.imagined = 1;
    c.split_backward = pass->split;
    c.moe.balanced = 1;         // nobody computes which experts are chosen
    c.moe.capacity = c.moe.padded = 0;
    DLS_TRY(dls_planner_begin(r));
    dls_status s = dls_transformer_create(out, &r->ctx, &c, pass->B, pass->T);
    dls_part ignored;
    dls_status ended = dls_planner_end(r, &ignored);
    return s != DLS_OK ? s : ended;
}

/* record a unit */
static dls_status record_all(dls_planner *r, const dls_planned_pass *pass,
                             dls_transformer *t, const dls_axes *axes,
                             dls_planned_unit *out)
{
    int units = t->config.layers + 2;
    dls_stage stage = {.model = t, .first = t->config.from_unit == 0,
                       .last = t->config.to_unit == units, .deferred = pass->split};
    dls_pass p;
    DLS_TRY(lay_out(r, pass, t, &p));
    p.axes = t->pass.axes = axes;
    if (t->config.sharding.context > 1) {
        p.positions = p.tokens;
        p.T_whole = pass->T * t->config.sharding.context;
    }
    out->elements = t->params.elements;
    dls_stage_add_up(&stage);
    out->bytes = stage.bytes;
    DLS_TRY(record_forward(r, t, &p, &out->F));
    DLS_TRY(record_backward(r, t, &p, stage.first, out));
    return record_update(r, &stage, axes, out);
}

static dls_status record(dls_planner *r, const dls_planned_pass *pass, int from, int to,
                         dls_planned_unit *out)
{
    dls_transformer *t = NULL;
    dls_axes axes = {0};
    *out = (dls_planned_unit){0};
    dls_status s = open_axes(&axes, pass->model);
    if (s == DLS_OK)
        s = make_unit(r, pass, from, to, &t);
    if (s == DLS_OK)
        s = record_all(r, pass, t, &axes, out);
    if (pass->split)
        out->B = dls_part_then(out->I, out->W);
    out->scratch = scratch_of(&axes);
    if (t)
        t->params.values = t->params.grads = NULL;      // the planner's
    dls_transformer_free(t);
    close_axes(&axes);
    return s;
}

/* remember what was recorded */
/* What is asked: units of the same kinds cost the same. */
typedef struct question {
    dls_transformer_config model;
    int B, T, split, first, blocks, dense, last;
} question;

struct dls_planned {
    question q;
    dls_planned_unit is;
    dls_status status;
};

static question ask(const dls_planned_pass *pass, int from, int to)
{
    int units = pass->model->layers + 2;
    question q;
    memset(&q, 0, sizeof q);
    q.model = *pass->model;
    q.B = pass->B;
    q.T = pass->T;
    q.split = pass->split;
    q.first = from == 0;
    q.last = to == units;
    q.blocks = to - from - q.first - q.last;
    for (int unit = from > 1 ? from : 1; unit < to && unit < units - 1; unit++)
        q.dense += !dls_block_has_experts(pass->model, unit - 1);
    return q;
}

static int make_room(dls_planner *r)
{
    int room = r->room ? 2 * r->room : 64;
    if (r->n < r->room)
        return 1;
    struct dls_planned *known = realloc(r->known, (size_t)room * sizeof *known);
    r->known = known ? known : r->known;
    uint64_t *key = realloc(r->key, (size_t)room * sizeof *key);
    r->key = key ? key : r->key;
    r->room = known && key ? room : r->room;
    return known && key;
}

dls_status dls_planner_unit(dls_planner *r, const dls_planned_pass *pass, int from,
                            int to, dls_planned_unit *out)
{
    question q = ask(pass, from, to);
    uint64_t key = dls_hash64(&q, sizeof q);
    for (int i = r->n - 1; i >= 0; i--)
        if (key == r->key[i] && memcmp(&q, &r->known[i].q, sizeof q) == 0) {
            *out = r->known[i].is;
            return r->known[i].status;
        }
    dls_status s = record(r, pass, from, to, out);
    if (!make_room(r))
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the costs of a unit");
    r->key[r->n] = key;
    r->known[r->n++] = (struct dls_planned){q, *out, s};
    return s;
}

/* remember collectives */
/* Of a group: its size, and enough of its members to know its links by. */
struct dls_talk {
    const char *operation;
    size_t count;
    int n, first, second, last, dtype;
    double seconds;
    size_t scratch;
};

enum { TALKS = 4096 };

static dls_status answer(const struct dls_talk *t, double *seconds, size_t *most)
{
    *seconds = t->seconds;
    if (most && t->scratch > *most)
        *most = t->scratch;
    return DLS_OK;
}

dls_status dls_planner_talk(dls_planner *r, const int *member, int n,
                            const char *operation, size_t count, int dtype,
                            double *seconds, size_t *most)
{
    struct dls_talk q = {operation, count, n, member[0], member[n > 1], member[n - 1],
                         dtype, 0, 0};
    for (int i = 0; i < r->ntalks; i++) {
        const struct dls_talk *t = &r->talks[i];
        if (t->count == count && t->operation == operation && t->n == n
            && t->first == q.first && t->second == q.second && t->last == q.last
            && t->dtype == dtype) {
            return answer(t, seconds, most);
        }
    }
    DLS_TRY(dls_imagined_seconds(member, n, operation, count, dtype, &q.seconds));
    DLS_TRY(dls_imagined_bytes(member, n, operation, count, dtype, &q.scratch));
    if (!r->talks)
        r->talks = calloc(TALKS, sizeof *r->talks);
    if (r->talks && r->ntalks < TALKS)
        r->talks[r->ntalks++] = q;
    return answer(&q, seconds, most);
}
