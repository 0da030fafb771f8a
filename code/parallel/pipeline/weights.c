/* code/parallel/pipeline/weights.c: from chapters/05-pipeline-runtime-versions.md. Edit the chapter, or edit here and run "make untangle". */
/* Keeping and finding versions. A copy costs one read and one write of the values. */
#include "parallel/pipeline/weights.h"

#include <stdlib.h>
#include <string.h>

#include "tensor/memory.h"
#include "vgpu/gpu.h"

/* find a version */
dls_status dls_weights_find(const dls_weights *w, int version, dls_params **out)
{
    dls_weight_version *old = w->held > 1 ? &w->old[version % (w->held - 1)] : NULL;
    *out = NULL;
    if (version == w->newest)
        *out = &w->stage->model->params;
    else if (old && old->number == version)
        *out = &old->set;
    return *out ? DLS_OK
        : DLS_FAIL(DLS_ERR_STATE, "units %d ... %d: version %d of the weights is not "
                   "kept; the newest is %d, and %d are held",
                   w->stage->model->config.from_unit, w->stage->model->config.to_unit - 1,
                   version, w->newest, w->held);
}

/* keep a version */
static size_t value_bytes(const dls_weights *w)
{
    const dls_params *set = &w->stage->model->params;
    return set->elements * dls_dtype_size(set->dtype);
}

dls_status dls_weights_advance(dls_weights *w)
{
    if (w->held > 1) {
        dls_weight_version *old = &w->old[w->newest % (w->held - 1)];
        old->number = w->newest;
        DLS_CUDA(cudaMemcpyAsync(old->values, w->stage->model->params.values,
                                 value_bytes(w), cudaMemcpyDeviceToDevice,
                                 w->stage->model->ctx->stream));
    }
    w->newest++;
    return DLS_OK;
}

void dls_weights_restart(dls_weights *w)
{
    w->newest = 0;
    for (int i = 0; i + 1 < w->held; i++)
        w->old[i].number = -1;
}

/* open and close the weights */
static dls_status copy_set(dls_weight_version *v, const dls_params *from)
{
    size_t size = dls_dtype_size(from->dtype);
    v->number = -1;
    DLS_TRY(dls_device_alloc(&v->values, from->elements, from->dtype,
                             DLS_MEM_PARAMETERS));
    v->set = *from;
    v->set.items = malloc((size_t)from->n * sizeof *from->items);
    if (!v->set.items)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d parameters", from->n);
    memcpy(v->set.items, from->items, (size_t)from->n * sizeof *from->items);
    for (int i = 0; i < from->n; i++)
        v->set.items[i].value = (char *)v->values + from->items[i].offset * size;
    v->set.values = v->values;
    return DLS_OK;
}

dls_status dls_weights_open(dls_weights *w, dls_stage *stage, int held)
{
    *w = (dls_weights){.stage = stage, .held = held};
    w->old = calloc((size_t)held, sizeof *w->old);
    if (!w->old)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d versions", held);
    for (int i = 0; i + 1 < held; i++)
        DLS_TRY(copy_set(&w->old[i], &stage->model->params));
    return DLS_OK;
}

void dls_weights_close(dls_weights *w)
{
    for (int i = 0; w->old && i + 1 < w->held; i++) {
        dls_device_free(w->old[i].values);
        free(w->old[i].set.items);
    }
    free(w->old);
    *w = (dls_weights){0};
}
