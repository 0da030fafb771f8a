/* tests/parallel/mesh_layout.c: from chapters/07-proof-layouts.md. Edit the chapter, or edit here and run "make untangle". */
/* A case on all ranks of a world, step after step, held against the truth. */
#include "mesh_rank.h"

/* make the groups of a rank */
/* The group over these axes; alone: a communicator of one where it is wanted. */
static dls_status group(mesh_rank *r, unsigned axes, int alone, dls_comm **out)
{
    DLS_TRY(dls_mesh_split(&r->p->c.mesh, r->world, axes, out));
    if (*out || !alone)
        return DLS_OK;
    return dls_comm_split(r->world, dls_comm_rank(r->world), 0, out);
}

static dls_status make_groups(mesh_rank *r)
{
    unsigned data = r->p->mutant == MUTANT_DATA_WITHOUT_CP ? DLS_BIT(DLS_AXIS_DP)
                                                           : DLS_AXES_DATA;
    DLS_TRY(group(r, DLS_BIT(DLS_AXIS_TP), 0, &r->tensor));
    DLS_TRY(group(r, DLS_BIT(DLS_AXIS_CP), 0, &r->context));
    DLS_TRY(group(r, DLS_BIT(DLS_AXIS_PP), 1, &r->pipe));
    DLS_TRY(group(r, data, 1, &r->data));
    return dls_axes_open(&r->axes, &r->sharding, r->p->c.kv_heads, r->tensor,
                         r->context);
}

static void close_groups(mesh_rank *r)
{
    dls_axes_close(&r->axes);
    dls_comm_destroy(r->tensor);
    dls_comm_destroy(r->context);
    dls_comm_destroy(r->pipe);
    dls_comm_destroy(r->data);
}

/* deal out rows and tokens */
static int at(const mesh_rank *r, dls_axis axis)
{
    return dls_mesh_coordinate(&r->p->c.mesh, dls_comm_rank(r->world), axis);
}

static void describe(mesh_rank *r)
{
    const mesh_case *c = &r->p->c;
    const int *size = c->mesh.size;
    r->sharding = (dls_sharding){
        .tensor = size[DLS_AXIS_TP], .tensor_rank = at(r, DLS_AXIS_TP),
        .sequence = c->split_rows, .chunks = c->overlap, .context = size[DLS_AXIS_CP],
        .context_rank = at(r, DLS_AXIS_CP), .way = c->way, .order = c->order,
        .ulysses = c->ulysses};
    r->config = mesh_case_config(c, mesh_proof_exact(r->p));
    r->config.sharding = r->sharding;
    r->config.unplaced = !c->schedule && c->zero > 0;
}

static dls_status deal_out(mesh_rank *r)
{
    const mesh_case *c = &r->p->c;
    int dp = c->mesh.size[DLS_AXIS_DP], cp = c->mesh.size[DLS_AXIS_CP];
    int rank = at(r, DLS_AXIS_CP);
    dls_sampler batch = {.batch = c->rows};
    dls_sampler_share(&batch, at(r, DLS_AXIS_DP), dp, &r->row, &r->rows);
    r->most = (c->rows + dp - 1) / dp;
    if (r->p->mutant == MUTANT_POSITIONS)
        rank = (rank + 1) % cp;
    r->T = dls_token_count(c->order, c->T, cp, rank);
    r->where = calloc((size_t)r->T, sizeof *r->where);
    EXPECT(r->where, "no memory");
    return dls_token_positions(c->order, c->T, cp, rank, r->where);
}

static dls_status copy_in(int **to, const int *host, size_t n)
{
    DLS_TRY(dls_device_alloc((void **)to, n + 1, DLS_F32, DLS_MEM_OTHER));
    DLS_CUDA(cudaMemcpy(*to, host, n * sizeof *host, cudaMemcpyHostToDevice));
    return DLS_OK;
}

static dls_status load(mesh_rank *r)
{
    const mesh_case *c = &r->p->c;
    int n = r->rows * r->T, most = c->micro * r->T;
    int ids[2 * n + 1], positions[most];
    int *mine = r->where;
    for (int i = 0; i < 2 * n; i++)
        ids[i] = mesh_proof_token(i >= n, c, r->row + i % n / r->T, mine[i % n % r->T]);
    for (int i = 0; i < most; i++)
        positions[i] = mine[i % r->T];
    DLS_TRY(copy_in(&r->ids, ids, 2 * (size_t)n));
    DLS_TRY(copy_in(&r->positions, positions, (size_t)most));
    return dls_device_alloc((void **)&r->losses, (size_t)n + 1, DLS_F64, DLS_MEM_OTHER);
}

/* open a rank */
const mesh_rank *mesh_rank_now;

dls_status mesh_rank_make(dls_transformer **out, dls_ctx *ctx,
                          const dls_transformer_config *config, int max_B, int max_T)
{
    const mesh_proof *p = mesh_rank_now->p;
    DLS_TRY(mesh_proof_maker(p)(out, ctx, config, max_B, max_T));
    return mesh_mutant_spoil(p->mutant, *out);
}

void *mesh_rank_fill(const mesh_rank *r, const dls_params *part)
{
    void *host = calloc(part->elements + 1, sizeof(double));
    if (host)
        mesh_proof_fill(r->p, part, host);
    return host;
}

double mesh_rank_scale(const mesh_rank *r)
{
    return mesh_proof_scale(r->p)
        * (r->p->mutant == MUTANT_SCALE ? r->p->c.mesh.size[DLS_AXIS_CP] : 1);
}

static dls_status open_rank(mesh_rank *r, const mesh_proof *p, dls_comm *world)
{
    dls_transformer_config m = mesh_case_config(&p->c, mesh_proof_exact(p));
    *r = (mesh_rank){.p = p, .world = world};
    mesh_rank_now = r;
    describe(r);
    DLS_TRY(make_groups(r));
    DLS_TRY(dls_ctx_create(&r->ctx, 0, mesh_proof_dtype(p)));
    DLS_TRY(dls_transformer_list(&m, &r->whole));
    DLS_TRY(deal_out(r));
    DLS_TRY(load(r));
    return (p->c.schedule ? mesh_stages_open : mesh_single_open)(r);
}

static void close_rank(mesh_rank *r)
{
    (r->p->c.schedule ? mesh_stages_close : mesh_single_close)(r);
    dls_device_free(r->ids);
    dls_device_free(r->positions);
    dls_device_free(r->losses);
    free(r->where);
    dls_params_free(&r->whole);
    close_groups(r);
    dls_ctx_destroy(&r->ctx);
}

/* step and compare */
/* 1: the losses of this row are here: of a pipeline, where its last stage computes. */
static int has_losses(const mesh_rank *r, int row)
{
    const dls_schedule *s = &r->schedule;
    return !r->pipeline || dls_schedule_rank(s, s->stages - 1, row / r->p->c.micro)
        == dls_comm_rank(r->pipe);
}

static dls_status compare_losses(mesh_rank *r)
{
    size_t size = dls_dtype_size(r->ctx.dtype);
    for (int i = 0; i < r->rows; i++)
        if (has_losses(r, i))
            DLS_TRY(mesh_compare_losses(r->p, r->step, r->row + i, r->T, r->where,
                                        r->losses + (size_t)i * r->T * size));
    return DLS_OK;
}

static dls_status step_and_compare(mesh_rank *r)
{
    int stages = r->p->c.schedule != NULL, all[dls_comm_size(r->world)];
    DLS_TRY((stages ? mesh_stages_step : mesh_single_step)(r));
    DLS_TRY(dls_ctx_sync(&r->ctx));
    DLS_TRY(compare_losses(r));
    if (r->p->form != MESH_SINGLE)
        DLS_TRY((stages ? mesh_stages_visit : mesh_single_visit)(r));
    DLS_TRY(dls_comm_all_gather_host(r->world, &r->step, sizeof r->step, all));
    return mesh_compare_seen(r->p, r->step);
}

/* prove a case */
static dls_status prove(const mesh_proof *p, dls_comm *world)
{
    mesh_rank r;
    DLS_TRY(open_rank(&r, p, world));
    for (r.step = 1; r.step <= mesh_proof_steps(p); r.step++)
        DLS_TRY(step_and_compare(&r));
    close_rank(&r);
    return DLS_OK;
}

static dls_status prove_or_tell(const mesh_proof *p, dls_comm *world)
{
    char text[MESH_TEXT];
    dls_status s = prove(p, world);
    if (s == DLS_OK)
        return DLS_OK;
    mesh_case_text(&p->c, text);
    return DLS_FAIL(s, "%s, rank %d, %s: %s", mesh_form_names[p->form],
                    dls_comm_rank(world), text, dls_status_message());
}

/* prove all cases of a world */
dls_status mesh_prove(int rank, void *arg)
{
    const mesh_proofs *proofs = arg;
    dls_comm *world;
    DLS_TRY(test_world(proofs->cluster, &world));
    int n = dls_comm_size(world), all[n];
    for (int i = rank; i < proofs->n; i += n)
        DLS_TRY(mesh_truth_compute(&proofs->list[i]));
    DLS_TRY(dls_comm_all_gather_host(world, &rank, sizeof rank, all));
    for (int i = 0; i < proofs->n; i++)
        DLS_TRY(prove_or_tell(&proofs->list[i], world));
    dls_comm_destroy(world);
    return DLS_OK;
}
