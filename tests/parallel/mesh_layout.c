/* tests/parallel/mesh_layout.c: from chapters/07-proof-layouts.md. Edit the chapter, or edit here and run "make untangle". */
/* A case on all ranks of a world, step after step, held against the truth. */
#include "mesh_rank.h"

/* make the groups of a rank */
/* For the fault of the same name: gradients summed over replicas alone. */
static dls_status leave_context_out(mesh_rank *r)
{
    const dls_train_place *p = &r->place;
    dls_comm_destroy(p->plain ? NULL : r->groups.data);
    DLS_TRY(dls_mesh_split(&p->mesh, r->world, DLS_BIT(DLS_AXIS_DP), &r->groups.data));
    return r->groups.data ? DLS_OK
        : dls_comm_split(r->world, p->rank, 0, &r->groups.data);
}

static dls_status take_place(mesh_rank *r)
{
    r->settings = mesh_case_settings(&r->p->c, mesh_proof_exact(r->p));
    DLS_TRY(dls_train_place_of(&r->settings, dls_comm_rank(r->world),
                               dls_comm_size(r->world), &r->place));
    r->place.model.unplaced = !r->p->c.schedule && r->p->c.zero > 0;
    DLS_TRY(dls_train_groups_open(&r->groups, &r->place, r->world));
    mesh_mutant_spoil_axes(r->p->mutant, &r->groups.axes);
    return r->p->mutant == MUTANT_DATA_WITHOUT_CP ? leave_context_out(r) : DLS_OK;
}

/* deal out rows and tokens */
static dls_status deal_out(mesh_rank *r)
{
    dls_train_place *p = &r->place;
    dls_sampler batch = {.batch = r->p->c.rows};
    dls_sampler_share(&batch, p->replica, p->replicas, &r->row, &r->rows);
    r->most = (r->p->c.rows + p->replicas - 1) / p->replicas;
    r->where = calloc((size_t)p->T, sizeof *r->where);
    EXPECT(r->where, "no memory");
    return dls_train_positions(p, r->where);
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
    int T = r->place.T, n = r->rows * T, most = c->micro * T;
    int ids[2 * n + 1], positions[most], wrong = r->p->mutant == MUTANT_POSITIONS;
    for (int i = 0; i < 2 * n; i++)
        ids[i] = mesh_proof_token(i >= n, c, r->row + i % n / T, r->where[i % n % T]);
    for (int i = 0; i < most; i++)
        positions[i] = wrong ? i % T : r->where[i % T];
    DLS_TRY(copy_in(&r->ids, ids, 2 * (size_t)n));
    DLS_TRY(copy_in(&r->positions, positions, (size_t)most));
    return dls_flat_buffer((void **)&r->losses, (size_t)n * 8 + 8, DLS_MEM_OTHER);
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
    DLS_TRY(take_place(r));
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
    dls_train_groups_close(&r->groups);
    dls_ctx_destroy(&r->ctx);
}

/* step and compare */
/* 1: the losses of this row are here: of a pipeline, where its last stage computes. */
static int has_losses(const mesh_rank *r, int row)
{
    const dls_schedule *s = &r->schedule;
    return !r->pipeline || dls_schedule_rank(s, s->stages - 1, row / r->p->c.micro)
        == r->place.stage_rank;
}

static dls_status compare_losses(mesh_rank *r)
{
    size_t size = dls_dtype_size(r->ctx.dtype);
    int T = r->place.T;
    for (int i = 0; i < r->rows; i++)
        if (has_losses(r, i))
            DLS_TRY(mesh_compare_losses(r->p, r->step, r->row + i, T, r->where,
                                        r->losses + (size_t)i * T * size));
    return DLS_OK;
}

static dls_status step_and_compare(mesh_rank *r)
{
    int stages = r->p->c.schedule != NULL, all[dls_comm_size(r->world)];
    DLS_TRY((stages ? mesh_stages_step : mesh_single_step)(r));
    DLS_TRY(dls_ctx_sync(&r->ctx));
    DLS_TRY(compare_losses(r));
    if (!mesh_proof_losses_only(r->p))
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
