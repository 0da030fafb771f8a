/* code/train/memory.c: from chapters/07-together-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* Adding up what the parts of a trainer say of themselves. */
#include "train/memory.h"

#include <string.h>

#include "comm/scratch.h"
#include "layers/dispatch.h"
#include "layers/token_order.h"
#include "parallel/expert/copies.h"
#include "train/pipelined.h"
#include "train/replicated.h"

/* imagine the groups of a place */
static dls_status imagine(const dls_train_place *p, unsigned axes, int alone,
                          dls_comm **out)
{
    int n = dls_mesh_group_size(&p->mesh, axes), ranks[n], me = 0;
    if (n == 1 && !alone)
        return DLS_OK;
    dls_mesh_group_ranks(&p->mesh, p->rank, axes, ranks);
    while (ranks[me] != p->rank)
        me++;
    return dls_comm_imagine_ranks(out, me, ranks, n);
}

/* n ranks of a group, from number `first` on and each `stride`-th. */
static dls_status imagine_part(dls_comm *group, int me, int first, int stride, int n,
                               dls_comm **out)
{
    int ranks[n];
    if (!group || n == 1)
        return DLS_OK;
    for (int i = 0; i < n; i++)
        ranks[i] = dls_comm_world_rank(group, first + i * stride);
    return dls_comm_imagine_ranks(out, me, ranks, n);
}

static dls_status imagine_parts(const dls_train_place *p, dls_train_imagined *g)
{
    const dls_sharding *s = &p->model.sharding;
    int t = s->tensor_rank, k = p->model.kv_heads, c = s->context_rank;
    int sharers = k < s->tensor ? s->tensor / k : 1;
    int u = s->way == DLS_CONTEXT_ULYSSES ? s->context : s->ulysses > 1 ? s->ulysses : 1;
    DLS_TRY(imagine_part(g->tensor, t % sharers, t / sharers * sharers, 1, sharers,
                         &g->kv));
    DLS_TRY(imagine_part(g->context, c % u, c / u * u, 1, u, &g->ulysses));
    return imagine_part(g->context, c / u, c % u, u, s->context / u, &g->ring);
}

static dls_status imagine_experts(const dls_train_place *p, dls_train_imagined *g)
{
    DLS_TRY(imagine(p, DLS_BIT(DLS_AXIS_EP), 0, &g->expert));
    DLS_TRY(imagine(p, DLS_BIT(DLS_AXIS_ETP), 0, &g->expert_tensor));
    DLS_TRY(imagine(p, DLS_AXES_DATA | DLS_BIT(DLS_AXIS_TP), 0, &g->rows));
    return p->apart ? imagine(p, DLS_BIT(DLS_AXIS_EDP), 1, &g->expert_data) : DLS_OK;
}

int dls_train_imagined_axes(const dls_train_place *p, const dls_train_imagined *g,
                            dls_axes *out)
{
    *out = (dls_axes){.sharding = p->model.sharding, .tensor = g->tensor, .kv = g->kv,
                      .context = g->context, .ring = g->ring, .ulysses = g->ulysses,
                      .expert = g->expert, .expert_tensor = g->expert_tensor,
                      .counts = g->expert, .shares = g->expert_tensor, .rows = g->rows};
    dls_axes_add_copies(out, g->data, g->expert_data ? g->expert_data : g->data);
    return g->tensor || g->context || g->rows;
}

dls_status dls_train_imagine(const dls_train_place *p, dls_train_imagined *out)
{
    *out = (dls_train_imagined){0};
    DLS_TRY(dls_comm_imagine(&out->world, p->rank, 0, 1, p->world));
    DLS_TRY(imagine(p, DLS_AXES_DATA, 1, &out->data));
    DLS_TRY(imagine(p, DLS_BIT(DLS_AXIS_PP), 0, &out->pipe));
    DLS_TRY(imagine(p, DLS_BIT(DLS_AXIS_TP), 0, &out->tensor));
    DLS_TRY(imagine(p, DLS_BIT(DLS_AXIS_CP), 0, &out->context));
    if (p->model.moe.experts > 0)
        DLS_TRY(imagine_experts(p, out));
    return imagine_parts(p, out);
}

void dls_train_forget(dls_train_imagined *g)
{
    dls_comm *all[] = {g->world,  g->data,          g->tensor, g->kv,
                       g->pipe,   g->ring,          g->ulysses, g->context,
                       g->expert, g->expert_tensor, g->rows,   g->expert_data};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        dls_comm_destroy(all[i]);
}

/* weigh the batch */
size_t dls_train_batch_bytes(const dls_train_config *c, const dls_train_place *p)
{
    int rows = dls_train_rows_of(c, p->replica, p->replicas);
    rows = rows > c->micro_batch ? rows : c->micro_batch;
    return dls_batch_predict_memory(rows, p->T)
        + dls_meter_predict_memory((int)c->log_every, c->dtype)
        + (p->model.sharding.context > 1
           ? dls_batch_predict_positions(c->micro_batch, p->T) : 0);
}

/* weigh what layers send */
/* *most := at least what any call of an operation takes, with up to `count` elements. */
static dls_status within(size_t *most, dls_comm *comm, const char *operation,
                         size_t count, int dtype)
{
    size_t bytes = 0;
    if (comm && count > 0)
        DLS_TRY(dls_comm_scratch_within(comm, operation, count, dtype, &bytes));
    *most = bytes > *most ? bytes : *most;
    return DLS_OK;
}

static dls_status weigh_ring(const dls_train_config *c, const dls_train_place *p,
                             dls_comm *ring, size_t *most)
{
    const dls_sharding *s = &p->model.sharding;
    size_t heads = p->model.kv_heads / s->tensor, rows = (size_t)c->micro_batch
        * dls_token_count(s->order, c->model.context, s->context, 0);
    size_t slot = rows * 2 * (heads ? heads : 1) * p->model.head_size;
    if (s->way != DLS_CONTEXT_GATHER)
        return DLS_OK;          // blocks go round in messages, which need none
    DLS_TRY(within(most, ring, "all_gather", slot, c->dtype));
    return within(most, ring, "reduce_scatter", slot, dls_dtype_accumulator(c->dtype));
}

/* Counts of rows for each expert, of a sequence, a pass, a step; and the norm over all
 * ranks of a stage. */
static dls_status weigh_experts(const dls_train_config *c, const dls_train_place *p,
                                const dls_axes *axes, dls_layer_scratch *out)
{
    const dls_moe *m = &p->model.moe;
    size_t E = m->experts, table = c->micro_batch * E + 1;
    size_t tally = dls_model_tally(&p->model);
    dls_dtype wide = dls_dtype_accumulator(c->dtype);
    if (E == 0)
        return DLS_OK;
    DLS_TRY(within(&out->rows, axes->rows, "all_reduce", tally, wide));
    DLS_TRY(within(&out->rows, axes->rows, "all_reduce", 1, DLS_F64));
    DLS_TRY(within(&out->rows, axes->rows, "all_reduce", E, DLS_COMM_I32));
    DLS_TRY(within(&out->tensor, axes->tensor, "all_reduce", table, DLS_COMM_I32));
    DLS_TRY(within(&out->tensor, axes->tensor, "all_gather", table, DLS_COMM_I32));
    DLS_TRY(within(&out->context, axes->context, "all_reduce", table, DLS_COMM_I32));
    DLS_TRY(within(&out->counts, axes->counts, "all_gather", E, DLS_COMM_I32));
    return within(&out->shares, axes->shares, "all_gather", E * p->model.sharding.expert,
                  DLS_COMM_I32);
}

size_t dls_train_window_bytes(const dls_train_config *c, const dls_train_place *p)
{
    const dls_sharding *s = &p->model.sharding;
    int cut = s->tensor > 1 ? s->tensor : 1;
    int rows = (c->micro_batch * p->T + cut - 1) / cut;
    return dls_one_sided_bytes(s, &p->model.moe, rows, p->T, p->model.channels, c->dtype);
}

dls_status dls_train_layer_scratch(const dls_train_config *c, const dls_train_place *p,
                                   const dls_axes *axes, dls_layer_scratch *out)
{
    dls_dtype wide = dls_dtype_accumulator(c->dtype);
    size_t rows = (size_t)c->micro_batch * p->T, row = p->model.channels;
    size_t slices = dls_sharding_slices(&p->model.sharding), norm = 0;
    *out = (dls_layer_scratch){0};
    if (!axes)
        return DLS_OK;
    if (slices == 1)
        DLS_TRY(within(&out->tensor, axes->tensor, "all_reduce", rows * row, c->dtype));
    else {
        size_t slice = rows / slices * row;
        DLS_TRY(within(&out->tensor, axes->tensor, "all_gather", slice, c->dtype));
        DLS_TRY(within(&out->tensor, axes->tensor, "reduce_scatter", slice, c->dtype));
    }
    DLS_TRY(within(&out->tensor, axes->tensor, "all_reduce", rows, wide));
    DLS_TRY(within(&norm, axes->tensor, "all_reduce", 1, DLS_F64));
    out->tensor = norm > out->tensor ? norm : out->tensor;
    DLS_TRY(weigh_experts(c, p, axes, out));
    return weigh_ring(c, p, axes->ring, &out->ring);
}

/* weigh one stage of a model */
static dls_status weigh_whole_model(const dls_train_config *c, const dls_train_place *p,
                                    const dls_axes *axes,
                                    size_t bytes[DLS_MEM_PURPOSES])
{
    dls_transformer_memory m;
    dls_params set = {0};
    DLS_TRY(dls_transformer_predict_memory(&p->model, c->micro_batch, p->T, c->dtype,
                                           &m));
    DLS_TRY(dls_transformer_list(&p->model, &set));
    bytes[DLS_MEM_PARAMETERS] = m.parameters;
    bytes[DLS_MEM_GRADIENTS] = m.gradients;
    bytes[DLS_MEM_OPTIMIZER] = dls_optimizer_predict_memory(set.elements, c->dtype);
    bytes[DLS_MEM_ACTIVATIONS] = m.activations;
    bytes[DLS_MEM_COMMUNICATION] += dls_train_window_bytes(c, p);
    dls_params_free(&set);
    return c->sharded ? dls_sharded_predict_memory(c, p, axes, bytes) : DLS_OK;
}

/* weigh the data axis */
/* In a plain place the meter's sums and the data axis share a communicator, and on the
 * compute stream one piece of its scratch memory. */
static size_t beside(const dls_train_place *p, size_t meter, size_t other)
{
    return !p->plain || other > meter ? other : 0;
}

static dls_status weigh_data(const dls_train_config *c, const dls_train_place *p,
                             dls_comm *data, const dls_axes *axes, size_t meter,
                             size_t *bytes)
{
    dls_hook_memory ddp = {0};
    dls_zero_scratch zero = {0};
    if (c->sharded) {
        DLS_TRY(dls_sharded_predict_communication(c, p, data, axes, &zero));
        *bytes += zero.shard + zero.experts + zero.copies + zero.tensor + zero.kv
            + (zero.whole ? beside(p, meter, zero.norm) : zero.norm);
        return DLS_OK;
    }
    DLS_TRY(dls_replicated_predict_communication(c, p, data, axes, &ddp));
    *bytes += ddp.buffers + ddp.scratch + beside(p, meter, ddp.updated);
    return DLS_OK;
}

/* predict the memory of a place */
static dls_status add_up(const dls_train_config *c, const dls_train_place *p,
                         const dls_train_imagined *g, size_t bytes[DLS_MEM_PURPOSES])
{
    size_t meter;
    dls_axes axes;
    const dls_axes *cut = dls_train_imagined_axes(p, g, &axes) ? &axes : NULL;
    dls_layer_scratch layers;
    DLS_TRY(dls_meter_scratch(g->world, (int)c->log_every, c->dtype, &meter));
    DLS_TRY(dls_train_layer_scratch(c, p, &axes, &layers));
    if (c->pipeline.schedule)
        DLS_TRY(dls_pipelined_predict_memory(c, p, g, bytes));
    else
        DLS_TRY(weigh_whole_model(c, p, cut, bytes));
    bytes[DLS_MEM_ACTIVATIONS] += dls_train_batch_bytes(c, p);
    bytes[DLS_MEM_COMMUNICATION] += meter + layers.tensor + layers.ring + layers.context
        + layers.rows + layers.counts + layers.shares;
    return c->pipeline.schedule ? DLS_OK
        : weigh_data(c, p, g->data, cut, meter,
                     &bytes[DLS_MEM_COMMUNICATION]);
}

dls_status dls_train_predict_memory(const dls_train_config *c, int rank, int world,
                                    size_t bytes[DLS_MEM_PURPOSES])
{
    dls_train_place p;
    dls_train_imagined g;
    memset(bytes, 0, DLS_MEM_PURPOSES * sizeof *bytes);
    DLS_TRY(dls_train_place_of(c, rank, world, &p));
    dls_status s = dls_train_imagine(&p, &g);
    if (s == DLS_OK)
        s = add_up(c, &p, &g, bytes);
    dls_train_forget(&g);
    return s;
}
