/* tests/parallel/tensor_rig.c: from chapters/06-tensor-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Making, running and freeing the rig. */
#include "tensor_rig.h"

/* make the tensor rig */
dls_status rig_begin(tensor_rig *rig, dls_comm *comm)
{
    *rig = (tensor_rig){0};
    DLS_TRY(dls_ctx_create(&rig->ctx, 0, DLS_F32));
    rig->build.params = &rig->params;
    if (comm)
        rig->build.sharding = (dls_sharding){.tensor = dls_comm_size(comm),
                                             .tensor_rank = dls_comm_rank(comm)};
    return dls_axes_open(&rig->axes, &rig->build.sharding, 1 << 20, comm, NULL);
}

static dls_status fill(tensor_rig *rig, float (*value)(const dls_param *p, size_t i))
{
    for (int k = 0; k < rig->params.n; k++) {
        const dls_param *p = &rig->params.items[k];
        for (size_t i = 0; i < p->count; i++) {
            float x = value(p, dls_param_global(p, i, NULL, NULL));
            DLS_CUDA(cudaMemcpy((float *)p->value + i, &x, sizeof x,
                                cudaMemcpyHostToDevice));
        }
    }
    return DLS_OK;
}

dls_status rig_prepare(tensor_rig *rig, dls_layer *layer, int rows,
                       float (*value)(const dls_param *p, size_t i))
{
    float **array[] = {&rig->x, &rig->y, &rig->dx, &rig->dy};
    DLS_TRY(rig->build.status);
    rig->layer = layer;
    rig->plan = (dls_plan){.max_B = rows, .max_T = 1, .dtype = DLS_F32};
    dls_layer_plan(layer, &rig->plan);
    DLS_TRY(dls_params_allocate(&rig->params, &rig->ctx));
    DLS_TRY(fill(rig, value));
    DLS_TRY(test_buffer(&rig->activations, dls_plan_bytes(&rig->plan)));
    for (int i = 0; i < 4; i++)
        DLS_TRY(test_buffer(array[i], RIG_ROWS * RIG_COLUMNS * sizeof(float)));
    rig->pass = (dls_pass){.ctx = &rig->ctx, .params = &rig->params, .axes = &rig->axes,
                           .B = rows, .T = 1, .pending = rig->pending};
    dls_pass_regions(&rig->pass, &rig->plan, rig->activations);
    return DLS_OK;
}

/* run the tensor rig */
dls_status rig_run(tensor_rig *rig)
{
    DLS_TRY(dls_params_zero_grads(&rig->params, &rig->ctx));
    DLS_TRY(rig->layer->kind->forward(rig->layer, &rig->pass, rig->y, rig->x));
    DLS_TRY(dls_layer_backward(rig->layer, &rig->pass, rig->dx, rig->dy, rig->x, rig->y));
    return dls_ctx_sync(&rig->ctx);
}

void rig_end(tensor_rig *rig)
{
    float *array[] = {rig->x, rig->y, rig->dx, rig->dy};
    for (int i = 0; i < 4; i++)
        cudaFree(array[i]);
    cudaFree(rig->activations);
    dls_build_free(&rig->build);
    dls_params_free(&rig->params);
    dls_axes_close(&rig->axes);
    dls_ctx_destroy(&rig->ctx);
}
