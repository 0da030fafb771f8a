/* code/tensor/ladder/ladder.c: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* The ladder's table, and the one function that climbs to a step. */
#include "tensor/ladder/ladder.h"

#include "tensor/ladder/ladder_internal.h"

/* list the steps */
const dls_ladder_step dls_ladder[DLS_LADDER_STEPS + 1] = {
    [1] = {"naive", 32, 8, 33.0, dls_ladder_naive},
    [2] = {"coalesced", 8, 32, 5.0, dls_ladder_coalesced},
    [3] = {"shared", 32, 32, 4 * 2 / 32.0, dls_ladder_shared},
    [4] = {"column", 64, 64, 4 * 2 / 64.0, dls_ladder_column},
    [5] = {"square", 128, 128, 4 * 2 / 128.0, dls_ladder_square},
    [6] = {"vector", 128, 128, 4 * 2 / 128.0, dls_ladder_vector},
    [7] = {"pipeline", 128, 128, 4 * 2 / 128.0, dls_ladder_pipeline},
    [8] = {"warp", 128, 128, 4 * 2 / 128.0, dls_ladder_warp},
    [9] = {"tensor core", 128, 128, 2 * 2 / 128.0, dls_ladder_tensor_core},
};

/* multiply by a step */
static dls_status check(int step, const dls_ladder_product *p)
{
    if (step < 1 || step > DLS_LADDER_STEPS)
        return DLS_FAIL(DLS_ERR_STATE, "ladder: expected a step from 1 to %d, got %d",
                        DLS_LADDER_STEPS, step);
    if (p->M < 0 || p->N < 0 || p->K < 0)
        return DLS_FAIL(DLS_ERR_STATE, "ladder: negative size: M %d, N %d, K %d", p->M,
                        p->N, p->K);
    if (p->N > 65535 * dls_ladder[step].columns)
        return DLS_FAIL(DLS_ERR_STATE, "ladder: N %d: step %d takes at most %d columns",
                        p->N, step, 65535 * dls_ladder[step].columns);
    return DLS_OK;
}

dls_status dls_ladder_multiply(dls_ctx *ctx, int step, const dls_ladder_product *p)
{
    dls_ladder_product q = *p;
    double results = (double)p->M * p->N, products = results * p->K;
    DLS_TRY(check(step, p));
    if (p->M == 0 || p->N == 0)
        return DLS_OK;
    if (p->alpha == 0)
        q.K = 0;
    dls_gpu_cost_of(step == DLS_LADDER_TENSOR_CORE ? DLS_WORK_GEMM_BF16
                                                   : DLS_WORK_GEMM_F32,
                    dls_ladder[step].name, 2 * products,
                    products * dls_ladder[step].traffic +
                        results * (p->beta == 0 ? 4 : 8));
    return dls_ladder[step].launch(ctx->stream, &q);
}
