/* tests/parallel/mesh_truth.c: from chapters/07-proof-layouts.md. Edit the chapter, or edit here and run "make untangle". */
/* What one device computes for a case, into memory that all ranks share. */
#include "mesh_layout.h"

#include <sys/mman.h>

#include "base/rng.h"
#include "exact_layers.h"
#include "kernels/dropout.h"
#include "parallel/pipeline/stage.h"
#include "train/optimizer.h"

/* choose by the form */
const char *const mesh_form_names[MESH_FORMS] = {"exact", "real", "single",
                                                   "wide", "drift"};

int mesh_proof_exact(const mesh_proof *p)
{
    return p->form == MESH_EXACT || p->form == MESH_WIDE;
}

int mesh_proof_losses_only(const mesh_proof *p)
{
    return p->form == MESH_SINGLE || p->form == MESH_DRIFT;
}

int mesh_proof_steps(const mesh_proof *p)
{
    return mesh_proof_exact(p) ? 1 : p->form == MESH_REAL ? 2 : 20;
}

dls_adamw_options mesh_proof_adamw(const mesh_proof *p)
{
    double epsilon = p->form == MESH_REAL ? 1.0 / 1024 : 1e-8;
    return (dls_adamw_options){0.875, 0.96875, epsilon, 0.125, p->clip};
}

dls_dtype mesh_proof_dtype(const mesh_proof *p)
{
    return p->form == MESH_EXACT || p->form == MESH_SINGLE ? DLS_F32 : DLS_F64;
}


dls_model_maker *mesh_proof_maker(const mesh_proof *p)
{
    return mesh_proof_exact(p) ? exact_transformer : dls_transformer_create;
}

double mesh_proof_scale(const mesh_proof *p)
{
    return mesh_proof_exact(p) ? 2 : 1.0 / (p->c.rows * p->c.T);
}

double mesh_proof_rate(const mesh_proof *p)
{
    return p->form == MESH_SINGLE ? 1.0 / 1024 : 1.0 / 64;
}

void mesh_proof_fill(const mesh_proof *p, const dls_params *set, void *host)
{
    if (mesh_proof_exact(p))
        exact_layers_fill(set, host);
    else
        dls_params_fill(set, 7, host);
}

int mesh_proof_token(int target, const mesh_case *c, int row, int t)
{
    return (int)(dls_rng_u32(5, (uint64_t)target, (uint64_t)row * c->T + t) % MESH_V);
}

/* map the truths */
static dls_status count_elements(const mesh_proof *p, size_t *elements)
{
    dls_transformer_config m = mesh_case_config(&p->c, mesh_proof_exact(p));
    dls_params set;
    DLS_TRY(dls_transformer_config_check(&m));
    DLS_TRY(dls_transformer_list(&m, &set));
    *elements = set.elements;
    dls_params_free(&set);
    return DLS_OK;
}

static dls_status map_truth(mesh_proof *p)
{
    mesh_truth *t = &p->truth;
    size_t steps = (size_t)mesh_proof_steps(p);
    DLS_TRY(count_elements(p, &t->elements));
    t->tokens = (size_t)p->c.rows * p->c.T;
    t->loads = mesh_loads(&p->c);
    size_t doubles = (2 * steps + 1) * t->elements
        + steps * (2 * t->tokens + 1 + t->loads);
    t->bytes = doubles * sizeof(double) + 2 * t->elements + t->tokens + t->loads;
    t->initial = mmap(NULL, t->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                      -1, 0);
    EXPECT(t->initial != MAP_FAILED, "no memory for a truth of %zu bytes", t->bytes);
    t->grads = t->initial + t->elements;
    t->values = t->grads + steps * t->elements;
    t->losses = t->values + steps * t->elements;
    t->norm = t->losses + steps * t->tokens;
    t->load = t->norm + steps;
    t->shown = t->load + steps * t->loads;
    t->seen[0] = (unsigned char *)(t->shown + steps * t->tokens);
    t->seen[1] = t->seen[0] + t->elements;
    t->seen[2] = t->seen[1] + t->elements;
    t->seen[3] = t->seen[2] + t->tokens;
    return DLS_OK;
}

dls_status mesh_proofs_open(mesh_proofs *proofs)
{
    for (int i = 0; i < proofs->n; i++)
        DLS_TRY(map_truth(&proofs->list[i]));
    return DLS_OK;
}

void mesh_proofs_close(mesh_proofs *proofs)
{
    for (int i = 0; i < proofs->n; i++)
        munmap(proofs->list[i].truth.initial, proofs->list[i].truth.bytes);
}

/* hold one device */
typedef struct alone {
    const mesh_proof *p;
    dls_ctx ctx;
    dls_transformer *model;
    dls_optimizer *optimizer;
    int *ids;           // tokens, then targets: device
    char *losses;       // (tokens) device, accumulator type
} alone;

static dls_status load_ids(alone *a)
{
    const mesh_case *c = &a->p->c;
    size_t n = a->p->truth.tokens;
    int ids[2 * n];
    for (size_t i = 0; i < 2 * n; i++)
        ids[i] = mesh_proof_token(i >= n, c, (int)(i % n / c->T), (int)(i % n % c->T));
    DLS_TRY(dls_device_alloc((void **)&a->ids, 2 * n, DLS_F32, DLS_MEM_OTHER));
    DLS_TRY(dls_device_alloc((void **)&a->losses, n, DLS_F64, DLS_MEM_OTHER));
    DLS_CUDA(cudaMemcpy(a->ids, ids, sizeof ids, cudaMemcpyHostToDevice));
    return DLS_OK;
}

/* Reads `count` of the accumulator type, device, as doubles. */
static dls_status widen(const alone *a, double *to, const void *from, size_t count)
{
    dls_dtype dtype = a->ctx.dtype;
    DLS_CUDA(cudaMemcpy(to, from, count * dls_dtype_size(dtype), cudaMemcpyDeviceToHost));
    for (size_t i = count; dtype == DLS_F32 && i-- > 0;)
        to[i] = ((float *)to)[i];
    return DLS_OK;
}

static dls_status open_alone(alone *a, const mesh_proof *p)
{
    dls_transformer_config m = mesh_case_config(&p->c, mesh_proof_exact(p));
    dls_adamw_options adamw = mesh_proof_adamw(p);
    *a = (alone){.p = p};
    DLS_TRY(dls_ctx_create(&a->ctx, 0, mesh_proof_dtype(p)));
    DLS_TRY(mesh_proof_maker(p)(&a->model, &a->ctx, &m, mesh_case_pass(&p->c), p->c.T));
    DLS_TRY(dls_optimizer_create(&a->optimizer, &a->ctx, &a->model->params, &adamw));
    mesh_proof_fill(p, &a->model->params, p->truth.initial);
    DLS_TRY(dls_optimizer_put(a->optimizer, p->truth.initial));
    DLS_TRY(widen(a, p->truth.initial, a->model->params.values, p->truth.elements));
    return load_ids(a);
}

static void close_alone(alone *a)
{
    dls_device_free(a->ids);
    dls_device_free(a->losses);
    dls_optimizer_free(a->optimizer);
    dls_transformer_free(a->model);
    dls_ctx_destroy(&a->ctx);
}

/* step the one device */
static dls_status pass_alone(alone *a, int row, int step)
{
    const mesh_case *c = &a->p->c;
    int most = mesh_case_pass(c), B = c->rows - row < most ? c->rows - row : most;
    int at = row * c->T;
    size_t size = dls_dtype_size(a->ctx.dtype), n = a->p->truth.tokens;
    if (c->drops)
        dls_transformer_drop(a->model, 7, step, row);
    DLS_TRY(dls_transformer_forward(a->model, a->ids + at, a->ids + n + at, B, c->T));
    DLS_CUDA(cudaMemcpyAsync(a->losses + at * size, dls_transformer_losses(a->model),
                             (size_t)B * c->T * size, cudaMemcpyDeviceToDevice,
                             a->ctx.stream));
    return dls_transformer_backward(a->model, mesh_proof_scale(a->p), NULL);
}

static dls_status step_alone(alone *a, int step)
{
    dls_params *set = &a->model->params;
    DLS_TRY(dls_params_zero_grads(set, &a->ctx));
    DLS_TRY(dls_balance_clear(&a->model->balance));
    for (int row = 0; row < a->p->c.rows; row += mesh_case_pass(&a->p->c))
        DLS_TRY(pass_alone(a, row, step));
    DLS_TRY(dls_optimizer_step(a->optimizer, mesh_proof_rate(a->p), step));
    DLS_TRY(dls_balance_step(&a->model->balance, a->model->config.moe.bias_rate));
    return dls_ctx_sync(&a->ctx);
}

/* compute the truth */
static dls_status keep(alone *a, int step)
{
    const mesh_truth *t = &a->p->truth;
    const dls_params *set = &a->model->params;
    size_t i = (size_t)step - 1;
    DLS_TRY(widen(a, t->grads + i * t->elements, set->grads, t->elements));
    DLS_TRY(widen(a, t->values + i * t->elements, set->values, t->elements));
    DLS_TRY(widen(a, t->losses + i * t->tokens, a->losses, t->tokens));
    DLS_CUDA(cudaMemcpy(t->norm + i, a->optimizer->scalars + 1, sizeof(double),
                        cudaMemcpyDeviceToHost));
    return mesh_keep_loads(a->p, step, &a->model->balance);
}

dls_status mesh_truth_compute(const mesh_proof *p)
{
    alone a;
    DLS_TRY(open_alone(&a, p));
    for (int step = 1; step <= mesh_proof_steps(p); step++) {
        DLS_TRY(step_alone(&a, step));
        DLS_TRY(keep(&a, step));
    }
    close_alone(&a);
    return DLS_OK;
}
