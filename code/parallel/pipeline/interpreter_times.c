/* code/parallel/pipeline/interpreter_times.c: from chapters/05-pipeline-runtime-interpreter.md. Edit the chapter, or edit here and run "make untangle". */
/* When the actions of a step ran, on all ranks' common clock. */
#include "parallel/pipeline/interpreter_private.h"

#include "vgpu/gpu.h"

dls_status dls_pipeline_mark(dls_pipeline *p, size_t i)
{
    DLS_CUDA(cudaEventRecord(p->mark[i], p->ctx->stream));
    return DLS_OK;
}

dls_status dls_pipeline_mark_base(dls_pipeline *p)
{
    DLS_TRY(dls_ctx_sync(p->ctx));
    DLS_TRY(dls_comm_barrier(p->pipe));
    p->base_time = dls_gpu_host_time();
    DLS_CUDA(cudaEventRecord(p->base, p->ctx->stream));
    return DLS_OK;
}
