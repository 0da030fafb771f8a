/* tests/kernels/homework/residual.c: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Runs a residual addition with its RMSNorm, fused or not, to be profiled: residual WAY,
 * where WAY is a sum of 1: backward, 2: with dropout, 4: fused. */
#include <stdlib.h>

#include <cuda_runtime.h>

#include "kernels/kernels.h"

enum { N = 512, C = 768 };

/* run one after the other */
static dls_status run_unfused(dls_ctx *ctx, void **v, int backward, const dls_dropout *d)
{
    if (!backward) {
        if (d != NULL)
            DLS_TRY(dls_dropout_apply(ctx, v[3], v[3], N, C, d));
        DLS_TRY(dls_add(ctx, v[0], v[2], v[3], N * C));
        return dls_rmsnorm_forward(ctx, v[1], v[8], v[0], v[7], N, C, 1e-5);
    }
    DLS_TRY(dls_rmsnorm_backward_input(ctx, v[0], v[3], v[4], v[7], v[8], N, C));
    DLS_TRY(dls_add(ctx, v[0], v[0], v[2], N * C));
    return d != NULL ? dls_dropout_apply(ctx, v[1], v[0], N, C, d) : DLS_OK;
}

/* run both in one */
static dls_status run_fused(dls_ctx *ctx, void **v, int backward, const dls_dropout *d)
{
    dls_residual_norm s = {N, C, 0, 1e-5, d};
    if (!backward)
        return dls_residual_norm_forward(ctx, v[0], v[1], NULL, v[8], v[2], v[3], v[7],
                                         NULL, &s);
    return dls_residual_norm_backward(ctx, v[0], v[1], v[2], v[3], v[4], v[7], NULL, v[8],
                                      &s);
}

int main(int argc, char **argv)
{
    static dls_ctx ctx;
    static void *v[9];
    int way = argc > 1 ? atoi(argv[1]) : 0;
    dls_dropout d = {.p = 0.1, .seed = 1};
    if (dls_ctx_create(&ctx, 0, DLS_F32) != DLS_OK)
        return 1;
    for (int i = 0; i < 9; i++)
        if (cudaMalloc(&v[i], N * C * sizeof(float)) != cudaSuccess
            || cudaMemset(v[i], 0, N * C * sizeof(float)) != cudaSuccess)
            return 1;
    cudaDeviceSynchronize();  // the context's stream does not wait for a memset
    dls_status status = way & 4 ? run_fused(&ctx, v, way & 1, way & 2 ? &d : NULL)
                                : run_unfused(&ctx, v, way & 1, way & 2 ? &d : NULL);
    return status != DLS_OK || dls_ctx_sync(&ctx) != DLS_OK;
}
