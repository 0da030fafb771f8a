/* code/kernels/attention_command.c: from chapters/10-flash-attention-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* dls attention: one attention, forward and backward, timed, with the memory it takes. */
#include "kernels/attention_command.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/args.h"
#include "base/rng.h"
#include "base/table.h"
#include "kernels/attention_ways.h"
#include "tensor/bf16.h"

/* hold the arrays of the command */
enum { Q, K, V, OUT, DQ, DK, DV, DOUT, ARRAYS };

typedef struct job {
    dls_ctx ctx;
    dls_attention_shape s;
    void *array[ARRAYS], *lse, *temporary;
    dls_gpu_memory arrays;          // the books when only the arrays were there
} job;

static size_t count_of(const dls_attention_shape *s, int array)
{
    int per_key = array % DQ == K || array % DQ == V;
    return (size_t)s->B * s->D * (per_key ? (size_t)s->Tk * s->Hk : (size_t)s->Tq * s->H);
}

static dls_status fill(dls_ctx *ctx, void *device, size_t n, unsigned stream)
{
    size_t size = dls_dtype_size(ctx->dtype);
    char *host = malloc(n * size + 1);
    if (!host)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %zu elements", n);
    for (size_t i = 0; i < n; i++) {
        double x = 2 * dls_rng_uniform(17, stream, i) - 1;
        if (ctx->dtype == DLS_F64)
            ((double *)host)[i] = x;
        else if (ctx->dtype == DLS_F32)
            ((float *)host)[i] = (float)x;
        else
            ((dls_bfloat16 *)host)[i] = dls_narrow_bf16((float)x);
    }
    cudaError_t error = cudaMemcpy(device, host, n * size, cudaMemcpyHostToDevice);
    free(host);
    DLS_CUDA(error);
    return DLS_OK;
}

static dls_status prepare(job *j, dls_dtype type)
{
    DLS_TRY(dls_ctx_create(&j->ctx, 0, type));
    for (int n = 0; n < ARRAYS; n++) {
        size_t count = count_of(&j->s, n);
        DLS_TRY(dls_device_alloc(&j->array[n], count, type, DLS_MEM_ACTIVATIONS));
        DLS_TRY(fill(&j->ctx, j->array[n], count, n));
    }
    DLS_TRY(dls_gpu_memory_stats(0, &j->arrays));
    dls_gpu_memory_reset_peaks(0);
    size_t bytes = dls_attention_temporary(&j->s, type);
    size_t rows = (size_t)j->s.B * j->s.H * j->s.Tq;
    DLS_TRY(dls_device_alloc(&j->lse, rows, dls_dtype_accumulator(type),
                             DLS_MEM_ACTIVATIONS));
    return dls_device_alloc(&j->temporary, (bytes + 3) / 4, DLS_F32, DLS_MEM_ACTIVATIONS);
}

static void release(job *j)
{
    for (int n = 0; n < ARRAYS; n++)
        dls_device_free(j->array[n]);
    dls_device_free(j->lse);
    dls_device_free(j->temporary);
    dls_ctx_destroy(&j->ctx);
}

/* time a pass */
static dls_status pass(job *j, int backward)
{
    void **a = j->array;
    if (!backward)
        return dls_attention_forward(&j->ctx, &j->s, a[OUT], j->lse, a[Q], a[K], a[V]);
    return dls_attention_backward(&j->ctx, &j->s, a[DQ], a[DK], a[DV], j->temporary,
                                  a[DOUT], a[Q], a[K], a[V], a[OUT], j->lse);
}

static dls_status time_pass(job *j, int backward, double *seconds)
{
    cudaEvent_t start, stop;
    float ms;
    DLS_CUDA(cudaEventCreate(&start));
    DLS_CUDA(cudaEventCreate(&stop));
    DLS_CUDA(cudaEventRecord(start, j->ctx.stream));
    DLS_TRY(pass(j, backward));
    DLS_CUDA(cudaEventRecord(stop, j->ctx.stream));
    DLS_TRY(dls_ctx_sync(&j->ctx));
    DLS_CUDA(cudaEventElapsedTime(&ms, start, stop));
    DLS_CUDA(cudaEventDestroy(start));
    DLS_CUDA(cudaEventDestroy(stop));
    *seconds = ms * 1e-3;
    return DLS_OK;
}

/* run the attention command */
static dls_status run(job *j, dls_dtype type, int forward_only, int json)
{
    static const dls_column columns[] = {
        {"pass", NULL}, {"µs", "%.2f"}, {"TFLOP/s", "%.2f"}, {"MB beside", "%.3f"},
        {"MB in all", "%.3f"}};
    dls_table *table = NULL;
    DLS_TRY(dls_table_create(&table, columns, 5));
    dls_status status = prepare(j, type);
    for (int backward = 0; backward < 2 - forward_only && status == DLS_OK; backward++) {
        double seconds = 0, pairs = dls_attention_pairs(&j->s) * j->s.H;
        dls_gpu_memory now = {0};
        status = time_pass(j, backward, &seconds);
        if (status == DLS_OK)
            status = dls_gpu_memory_stats(0, &now);
        dls_table_add_text(table, backward ? "backward" : "forward");
        dls_table_add_real(table, seconds * 1e6);
        dls_table_add_real(table, (backward ? 8 : 4) * pairs * j->s.D / seconds * 1e-12);
        dls_table_add_real(table, (double)(now.total_peak - j->arrays.total) / 1e6);
        dls_table_add_real(table, (double)now.total_peak / 1e6);
    }
    release(j);
    if (status == DLS_OK)
        status = dls_table_print(table, stdout, json);
    dls_table_free(table);
    return status;
}

/* read the attention command */
dls_status dls_attention_command(int argc, char **argv, int *exit_code)
{
    (void)exit_code;
    int64_t B = 1, T = 256, keys = 0, H = 1, Hk = 0, D = 64;
    const char *way = NULL, *type_name = "f32";
    double dropout = 0;
    int full = 0, forward = 0, json = 0, helped;
    dls_dtype type;
    const dls_arg args[] = {
        /* list the options of attention */
        {"--way", DLS_ARG_STRING, &way, "NAME", "naive, flash or tensor (DLS_ATTENTION)"},
        {"--type", DLS_ARG_STRING, &type_name, "NAME", "f32, f64 or bf16 (f32)"},
        {"--batch", DLS_ARG_INT, &B, "N", "sequences (1)"},
        {"--t", DLS_ARG_INT, &T, "N", "queries (256)"},
        {"--keys", DLS_ARG_INT, &keys, "N", "keys (as many as queries)"},
        {"--heads", DLS_ARG_INT, &H, "N", "query heads (1)"},
        {"--kv-heads", DLS_ARG_INT, &Hk, "N", "key and value heads (as many)"},
        {"--d", DLS_ARG_INT, &D, "N", "channels of a head (64)"},
        {"--dropout", DLS_ARG_REAL, &dropout, "P", "probability that a weight is dropped (0)"},
        {"--full", DLS_ARG_FLAG, &full, NULL, "not causal"},
        {"--forward", DLS_ARG_FLAG, &forward, NULL, "the forward pass only"},
        {"--json", DLS_ARG_FLAG, &json, NULL, "print JSON"}
    };
    const dls_args spec = {"dls attention", "Runs one attention, and times it.",
                           "dls attention --way flash --t 512 --d 64", args,
                           sizeof args / sizeof args[0]};
    DLS_TRY(dls_args_parse(&spec, argc, argv, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(dls_dtype_parse(type_name, &type));
    /* check the sizes of attention */
    keys = keys ? keys : T;
    Hk = Hk ? Hk : H;
    if (B < 1 || T < 1 || keys < 1 || H < 1 || Hk < 1 || D < 1 || B > 4096 || T > 1 << 20
        || keys > 1 << 20 || H > 4096 || Hk > 4096 || D > 4096)
        return DLS_FAIL(DLS_ERR_INPUT, "dls attention: a size is not between 1 and %d "
                        "(lengths: %d)", 4096, 1 << 20);
    if (way)
        setenv("DLS_ATTENTION", way, 1);
    job j = {.s = {.B = (int)B, .Tq = (int)T, .Tk = (int)keys, .H = (int)H, .Hk = (int)Hk,
                   .D = (int)D, .causal = !full, .dropout = dropout, .seed = 1}};
    DLS_TRY(dls_attention_complete(&j.s));
    return run(&j, type, forward, json);
}
