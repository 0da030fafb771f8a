/* code/parallel/pipeline/update_async.c: from chapters/05-pipeline-runtime-versions.md. Edit the chapter, or edit here and run "make untangle". */
/* Steps of single stages, while micro-batches are under way: PipeDream's. */
#include "kernels/kernels.h"
#include "parallel/pipeline/interpreter_private.h"
#include "parallel/pipeline/versions.h"
#include "vgpu/gpu.h"

/* choose the version */
dls_status dls_pipeline_version(dls_pipeline *p, const dls_action *a, dls_params **out)
{
    int version = dls_schedule_version(p->o.schedule, a->stage, a->microbatch);
    *out = NULL;
    if (p->o.schedule->step_every == 0 || p->evaluating)
        return DLS_OK;
    if (p->o.observe)
        p->o.observe(p->o.observer, a, version);
    return dls_weights_find(&p->weights[a->stage], version, out);
}

/* step one stage */
static dls_status own_coefficient(dls_pipeline *p, int stage)
{
    double *sum = p->scalars, *norm = sum + 1, *coefficient = sum + 2;
    DLS_CUDA(cudaMemsetAsync(sum, 0, sizeof *sum, p->ctx->stream));
    DLS_TRY(dls_stage_update_square(&p->update[stage], sum));
    DLS_TRY(dls_pipeline_sum_parts(p, sum));
    return dls_clip_coefficient(p->ctx, coefficient, norm, sum, p->o.adamw.clip);
}

dls_status dls_pipeline_step_alone(dls_pipeline *p, int stage)
{
    dls_stage_update *u = &p->update[stage];
    DLS_TRY(dls_pipeline_reduce(p, stage));
    DLS_CUDA(cudaEventRecord(p->reduced, p->reduction));
    DLS_CUDA(cudaStreamWaitEvent(p->ctx->stream, p->reduced, 0));
    DLS_TRY(own_coefficient(p, stage));
    DLS_TRY(dls_weights_advance(&p->weights[stage]));
    DLS_TRY(dls_stage_update_apply(u, &p->o.adamw, p->lr,
                                   p->step + p->weights[stage].newest - 1,
                                   p->scalars + 2));
    u->reduced = 0;
    u->stepped = 1;
    return dls_params_zero_grads(&p->stage[stage]->model->params, p->ctx);
}
