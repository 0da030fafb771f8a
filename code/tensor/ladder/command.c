/* code/tensor/ladder/command.c: from chapters/02-gemm-ladder-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* dls ladder: one product by the kernels of chapter 2, timed and compared with f64. */
#include "tensor/ladder/command.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/rng.h"
#include "base/table.h"
#include "tensor/ladder/ladder.h"
#include "tensor/tensor.h"

/* prepare the product of the command */
typedef struct problem {
    int64_t M, N, K;
    float *A, *B, *C;         // A and B as given, C as computed
    double *exact, *size;     // (M, N): the product, and sum |a||b|
    dls_ladder_product p;     // on the device
} problem;

static void fill(float *x, int64_t count, unsigned stream)
{
    for (int64_t i = 0; i < count; i++)
        x[i] = (float)dls_precision_round(
            &dls_bf16, 2 * dls_rng_uniform(13, stream, (uint64_t)i) - 1);
}

static void multiply(problem *q)
{
    for (int64_t i = 0; i < q->M; i++)
        for (int64_t l = 0; l < q->K; l++)
            for (int64_t j = 0; j < q->N; j++) {
                double term = (double)q->A[i * q->K + l] * q->B[l * q->N + j];
                q->exact[i * q->N + j] += term;
                q->size[i * q->N + j] += fabs(term);
            }
}

static dls_status prepare(problem *q)
{
    size_t a = (size_t)(q->M * q->K), b = (size_t)(q->K * q->N);
    size_t c = (size_t)(q->M * q->N);
    q->A = malloc(a * sizeof *q->A);
    q->B = malloc(b * sizeof *q->B);
    q->C = malloc(c * sizeof *q->C);
    q->exact = calloc(c, sizeof *q->exact);
    q->size = calloc(c, sizeof *q->size);
    if (!q->A || !q->B || !q->C || !q->exact || !q->size)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for matrices of %zu, %zu and %zu "
                        "numbers", a, b, c);
    fill(q->A, q->M * q->K, 1);
    fill(q->B, q->K * q->N, 2);
    multiply(q);
    return DLS_OK;
}

static void release(problem *q)
{
    free(q->A);
    free(q->B);
    free(q->C);
    free(q->exact);
    free(q->size);
}

/* put the product on the device */
/* *device = count numbers, as f32 or as their upper halves. */
static dls_status put(const float *x, int64_t count, int narrow, void **device)
{
    uint16_t *halves = malloc((size_t)count * sizeof *halves);
    if (!halves)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %lld numbers", (long long)count);
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        halves[i] = (uint16_t)(bits >> 16);
    }
    size_t bytes = (size_t)count * (narrow ? 2 : 4);
    dls_status status = dls_device_alloc(device, (bytes + 3) / 4, DLS_F32, DLS_MEM_OTHER);
    if (status == DLS_OK && cudaMemcpy(*device, narrow ? (const void *)halves : x, bytes,
                                       cudaMemcpyHostToDevice) != cudaSuccess)
        status = DLS_FAIL(DLS_ERR_DEVICE, "a copy to the device failed");
    free(halves);
    return status;
}

static dls_status put_product(problem *q, int step)
{
    void *A = NULL, *B = NULL, *C = NULL;
    int narrow = step == DLS_LADDER_TENSOR_CORE;
    DLS_TRY(put(q->A, q->M * q->K, narrow, &A));
    q->p = (dls_ladder_product){.M = (int)q->M, .N = (int)q->N, .K = (int)q->K,
                                .alpha = 1, .A = A};
    DLS_TRY(put(q->B, q->K * q->N, narrow, &B));
    q->p.B = B;
    DLS_TRY(dls_device_alloc(&C, (size_t)(q->M * q->N), DLS_F32, DLS_MEM_OTHER));
    q->p.C = C;
    return DLS_OK;
}

/* compare with the exact product */
/* The largest error of an element as a share of its bound. */
static double worst_error(const problem *q)
{
    dls_dot dot = {.terms = (double)q->K, .input = &dls_f32, .accumulator = &dls_f32};
    double worst = 0;
    for (int64_t i = 0; i < q->M * q->N; i++) {
        double error = fabs(q->C[i] - q->exact[i]);
        double share = error / dls_gemm_bound(&dot, q->size[i], 1, 0, 0);
        if (!(share <= worst))  // also when it is NaN, and then for good
            worst = isnan(share) ? INFINITY : share;
    }
    return worst;
}

/* climb one step */
static dls_status climb(dls_ctx *ctx, problem *q, int step, double *seconds)
{
    cudaEvent_t start, stop;
    float ms;
    DLS_TRY(put_product(q, step));
    DLS_CUDA(cudaEventCreate(&start));
    DLS_CUDA(cudaEventCreate(&stop));
    DLS_CUDA(cudaEventRecord(start, ctx->stream));
    DLS_TRY(dls_ladder_multiply(ctx, step, &q->p));
    DLS_CUDA(cudaEventRecord(stop, ctx->stream));
    DLS_TRY(dls_ctx_sync(ctx));
    DLS_CUDA(cudaEventElapsedTime(&ms, start, stop));
    DLS_CUDA(cudaEventDestroy(start));
    DLS_CUDA(cudaEventDestroy(stop));
    DLS_CUDA(cudaMemcpy(q->C, q->p.C, (size_t)(q->M * q->N) * sizeof *q->C,
                        cudaMemcpyDeviceToHost));
    *seconds = ms * 1e-3;
    return DLS_OK;
}

static dls_status add_step(dls_ctx *ctx, problem *q, int step, dls_table *table)
{
    double seconds = 0, flops = 2.0 * (double)q->M * (double)q->N * (double)q->K;
    dls_status status = climb(ctx, q, step, &seconds);
    dls_device_free((void *)q->p.A);
    dls_device_free((void *)q->p.B);
    dls_device_free(q->p.C);
    q->p = (dls_ladder_product){0};
    DLS_TRY(status);
    dls_table_add_int(table, step);
    dls_table_add_text(table, dls_ladder[step].name);
    dls_table_add_real(table, seconds * 1e6);
    dls_table_add_real(table, flops / seconds * 1e-12);
    dls_table_add_real(table, worst_error(q));
    return DLS_OK;
}

/* run the ladder command */
static dls_status run(problem *q, int first, int last, int json)
{
    static const dls_column columns[] = {{"step", NULL}, {"kernel", NULL}, {"µs", "%.2f"},
                                         {"TFLOP/s", "%.3f"}, {"error/bound", "%.3f"}};
    dls_ctx ctx = {0};
    dls_table *table = NULL;
    dls_status status = prepare(q);
    if (status == DLS_OK)
        status = dls_table_create(&table, columns, 5);
    if (status == DLS_OK)
        status = dls_ctx_create(&ctx, 0, DLS_F32);
    for (int step = first; step <= last && status == DLS_OK; step++)
        status = add_step(&ctx, q, step, table);
    if (status == DLS_OK)
        status = dls_table_print(table, stdout, json);
    dls_table_free(table);
    dls_ctx_destroy(&ctx);
    release(q);
    return status;
}

dls_status dls_ladder_command(int argc, char **argv, int *exit_code)
{
    (void)exit_code;
    problem q = {.M = 256, .N = 256, .K = 256};
    int64_t step = 0;
    int json = 0, helped;
    const dls_arg args[] = {
        {"--step", DLS_ARG_INT, &step, "N", "only this one, 1 to 9"},
        {"--m", DLS_ARG_INT, &q.M, "N", "rows of A and C (256)"},
        {"--n", DLS_ARG_INT, &q.N, "N", "columns of B and C (256)"},
        {"--k", DLS_ARG_INT, &q.K, "N", "columns of A, rows of B (256)"},
        {"--json", DLS_ARG_FLAG, &json, NULL, "print JSON"}};
    const dls_args spec = {"dls ladder", "Multiplies by the kernels of chapter 2.",
                           "dls ladder --step 5 --m 256 --n 256 --k 256", args,
                           sizeof args / sizeof args[0]};
    DLS_TRY(dls_args_parse(&spec, argc, argv, &helped));
    if (helped)
        return DLS_OK;
    if (step < 0 || step > DLS_LADDER_STEPS)
        return DLS_FAIL(DLS_ERR_INPUT, "--step: expected 1 to %d, got %lld",
                        DLS_LADDER_STEPS, (long long)step);
    if (q.M < 1 || q.N < 1 || q.K < 1 || q.M > 4096 || q.N > 4096 || q.K > 4096)
        return DLS_FAIL(DLS_ERR_INPUT, "--m, --n, --k: expected sizes from 1 to 4096, "
                        "got %lld, %lld and %lld", (long long)q.M, (long long)q.N,
                        (long long)q.K);
    return run(&q, step ? (int)step : 1, step ? (int)step : DLS_LADDER_STEPS, json);
}
