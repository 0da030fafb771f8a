/* code/train/layout.c: from chapters/07-mesh-settings.md. Edit the chapter, or edit here and run "make untangle". */
/* Reading a layout. */
#include "train/layout.h"

/* read the mesh */
static dls_status read_size(dls_config *cfg, const char *key, int fallback, int *size)
{
    int64_t value;
    DLS_TRY(dls_config_int_or(cfg, key, 1, DLS_MESH_MOST, fallback, &value));
    *size = (int)value;
    return DLS_OK;
}

static dls_status read_mesh(dls_config *cfg, dls_mesh *m)
{
    const char *order;
    DLS_TRY(read_size(cfg, "parallel.tp", 1, &m->size[DLS_AXIS_TP]));
    DLS_TRY(read_size(cfg, "parallel.cp", 1, &m->size[DLS_AXIS_CP]));
    DLS_TRY(read_size(cfg, "parallel.pp", 1, &m->size[DLS_AXIS_PP]));
    DLS_TRY(read_size(cfg, "parallel.dp", 0, &m->size[DLS_AXIS_DP]));
    DLS_TRY(read_size(cfg, "parallel.ep", 1, &m->ep));
    DLS_TRY(read_size(cfg, "parallel.etp", 1, &m->etp));
    DLS_TRY(dls_config_string_or(cfg, "parallel.order", "tp,cp,pp,dp", &order));
    return dls_mesh_set_order(m, order);
}

/* read the sharding of layers */
static dls_status read_dispatch(dls_config *cfg, const dls_mesh *m, dls_sharding *s)
{
    int wire, dispatch;
    DLS_TRY(dls_config_choice_or(cfg, "parallel.wire", "same|bf16|fp8", 0, &wire));
    DLS_TRY(dls_config_choice_or(cfg, "parallel.dispatch", "flat|nodes|one-sided", 0,
                                 &dispatch));
    s->expert = m->ep;
    s->expert_tensor = m->etp;
    s->wire = (dls_row_type)wire;
    s->dispatch = (dls_dispatch_way)dispatch;
    return DLS_OK;
}

static dls_status read_sharding(dls_config *cfg, const dls_mesh *m, dls_sharding *s)
{
    int tp = m->size[DLS_AXIS_TP], cp = m->size[DLS_AXIS_CP], way, order;
    DLS_TRY(dls_config_bool_or(cfg, "parallel.sequence", tp > 1, &s->sequence));
    DLS_TRY(read_size(cfg, "parallel.overlap_chunks", 1, &s->chunks));
    DLS_TRY(dls_config_choice_or(cfg, "parallel.context", "ring|ulysses|gather", 0,
                                 &way));
    DLS_TRY(dls_config_choice_or(cfg, "parallel.tokens", "zigzag|contiguous|striped", 0,
                                 &order));
    DLS_TRY(read_size(cfg, "parallel.ulysses", 1, &s->ulysses));
    s->tensor = tp;
    s->context = cp;
    s->sequence &= tp > 1;
    s->way = (dls_context_way)way;
    s->order = (dls_token_order)order;
    return read_dispatch(cfg, m, s);
}

/* read a layout */
dls_status dls_train_read_layout(dls_config *cfg, dls_train_config *c)
{
    DLS_TRY(read_mesh(cfg, &c->mesh));
    return read_sharding(cfg, &c->mesh, &c->sharding);
}
