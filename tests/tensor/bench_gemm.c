/* tests/tensor/bench_gemm.c: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* Time of one f32 product by each implementation, between two events of the stream. On
 * the virtual GPU that is virtual time, the same on every machine and in every run. */
#include <stdio.h>
#include <stdlib.h>

#include "base/table.h"
#include "tensor/tensor.h"

/* time a product */
struct matrices {
    void *A, *B, *C;
};

static dls_status time_product(dls_ctx *ctx, dls_gemm_kind kind, int trans_b, int n,
                               const struct matrices *m, double *seconds)
{
    cudaEvent_t start, stop;
    float ms;
    DLS_CUDA(cudaEventCreate(&start));
    DLS_CUDA(cudaEventCreate(&stop));
    DLS_TRY(dls_gemm_with(ctx, kind, 0, trans_b, n, n, n, 1, m->A, m->B, 0, m->C,
                          DLS_F32));
    DLS_CUDA(cudaEventRecord(start, ctx->stream));
    DLS_TRY(dls_gemm_with(ctx, kind, 0, trans_b, n, n, n, 1, m->A, m->B, 0, m->C,
                          DLS_F32));
    DLS_CUDA(cudaEventRecord(stop, ctx->stream));
    DLS_TRY(dls_ctx_sync(ctx));
    DLS_CUDA(cudaEventElapsedTime(&ms, start, stop));
    *seconds = ms * 1e-3;
    DLS_CUDA(cudaEventDestroy(start));
    DLS_CUDA(cudaEventDestroy(stop));
    return DLS_OK;
}

/* fill the table of products */
static dls_status measure(dls_ctx *ctx, int n, dls_table *table)
{
    static const char *const names[] = {"cublas", "naive", "tiled"};
    size_t count = (size_t)n * (size_t)n;
    struct matrices m;
    double seconds = 0;
    DLS_TRY(dls_device_alloc(&m.A, count, DLS_F32, DLS_MEM_OTHER));
    DLS_TRY(dls_device_alloc(&m.B, count, DLS_F32, DLS_MEM_OTHER));
    DLS_TRY(dls_device_alloc(&m.C, count, DLS_F32, DLS_MEM_OTHER));
    DLS_CUDA(cudaMemsetAsync(m.A, 0, count * sizeof(float), ctx->stream));
    DLS_CUDA(cudaMemsetAsync(m.B, 0, count * sizeof(float), ctx->stream));
    for (int kind = 0; kind < DLS_GEMM_KINDS; kind++)
        for (int trans_b = 0; trans_b < 2; trans_b++) {
            DLS_TRY(time_product(ctx, (dls_gemm_kind)kind, trans_b, n, &m, &seconds));
            dls_table_add_text(table, names[kind]);
            dls_table_add_text(table, trans_b ? "A Bᵀ" : "A B");
            dls_table_add_real(table, seconds * 1e6);
            dls_table_add_real(table, 2.0 * n * n * n / seconds * 1e-12);
        }
    dls_device_free(m.A);
    dls_device_free(m.B);
    dls_device_free(m.C);
    return DLS_OK;
}

int main(int argc, char **argv)
{
    static const dls_column columns[] = {
        {"by", NULL}, {"product", NULL}, {"µs", "%.1f"}, {"TFLOP/s", "%.2f"}};
    int n = argc > 1 ? atoi(argv[1]) : 1024;
    dls_ctx ctx = {0};
    dls_table *table = NULL;
    dls_status status = n > 0 ? DLS_OK : DLS_FAIL(DLS_ERR_INPUT, "bench_gemm: expected a "
                                                  "positive size, got %s", argv[1]);
    if (status == DLS_OK)
        status = dls_table_create(&table, columns, 4);
    if (status == DLS_OK)
        status = dls_ctx_create(&ctx, 0, DLS_F32);
    if (status == DLS_OK)
        status = measure(&ctx, n, table);
    if (status == DLS_OK)
        status = dls_table_print(table, stdout, 0);
    if (status != DLS_OK)
        fprintf(stderr, "%s\n%s", dls_status_message(), dls_status_trace());
    dls_table_free(table);
    dls_ctx_destroy(&ctx);
    return status != DLS_OK;
}
