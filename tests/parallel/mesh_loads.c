/* tests/parallel/mesh_loads.c: from chapters/08-expert-proof-harness.md. Edit the chapter, or edit here and run "make untangle". */
/* Tallies and biases of expert layers, kept and compared. */
#include "layers/router.h"
#include "mesh_layout.h"

/* count the loads */
static size_t of_layer(const mesh_case *c)
{
    return dls_tally_length(c->moe.experts) + c->moe.experts;
}

size_t mesh_loads(const mesh_case *c)
{
    int layers = c->layers - c->moe.dense_layers;
    return c->moe.experts > 0 && layers > 0 ? layers * of_layer(c) : 0;
}

static int first_layer(const mesh_case *c, int from_unit)
{
    int block = from_unit > 0 ? from_unit - 1 : 0;
    return block > c->moe.dense_layers ? block - c->moe.dense_layers : 0;
}

/* keep the loads */
/* host (count) := device, of the accumulator type of the proof. */
static dls_status fetch(const mesh_proof *p, double *host, const void *device,
                        size_t count)
{
    dls_dtype type = mesh_proof_dtype(p);
    DLS_CUDA(cudaMemcpy(host, device, count * dls_dtype_size(type),
                        cudaMemcpyDeviceToHost));
    for (size_t i = count; type == DLS_F32 && i-- > 0;)
        host[i] = ((float *)host)[i];
    return DLS_OK;
}

/* host (of_layer) := a layer's tally and its bias. */
static dls_status fetch_layer(const mesh_proof *p, double *host, const dls_balance *b,
                              int layer)
{
    size_t n = dls_tally_length(b->experts), size = dls_dtype_size(mesh_proof_dtype(p));
    DLS_TRY(fetch(p, host, (char *)b->tally + layer * n * size, n));
    return fetch(p, host + n, (char *)b->bias + (size_t)layer * b->experts * size,
                 (size_t)b->experts);
}

dls_status mesh_keep_loads(const mesh_proof *p, int step, const dls_balance *b)
{
    double *to = p->truth.load + (step - 1) * p->truth.loads;
    for (int i = 0; p->truth.loads && i < b->layers; i++)
        DLS_TRY(fetch_layer(p, to + i * of_layer(&p->c), b, i));
    return DLS_OK;
}

/* compare the loads */
static int is_counted(const mesh_proof *p, size_t i)
{
    size_t E = p->c.moe.experts;
    return !mesh_proof_exact(p) || i <= 2 * E || i >= dls_tally_length(p->c.moe.experts);
}

dls_status mesh_compare_loads(const mesh_proof *p, int step, int from_unit,
                              const dls_balance *b)
{
    const mesh_truth *t = &p->truth;
    size_t n = of_layer(&p->c), first = first_layer(&p->c, from_unit) * n;
    double host[n];
    for (int i = 0; t->loads && i < b->layers; i++, first += n) {
        DLS_TRY(fetch_layer(p, host, b, i));
        for (size_t k = 0; k < n; k++)
            if (is_counted(p, k))
                DLS_TRY(mesh_compare_load(p, step, first + k, host[k]));
            else
                t->seen[3][first + k] = (unsigned char)step;
    }
    return DLS_OK;
}
