/* code/kernels/grouped_command.c: from chapters/08-mixture-of-experts-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* dls grouped: the same rows by the weights of their experts in three ways. */
#include "kernels/grouped_command.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/args.h"
#include "base/table.h"
#include "kernels/grouped.h"

/* divide the rows among experts */
enum { MOST_EXPERTS = 1024 };

/* Rows of each expert in proportion to 1 / (e + 1)^skew; they add up to `rows`. */
static void divide(dls_segment *segment, int experts, int rows, double skew)
{
    double sum = 0, before = 0;
    for (int e = 0; e < experts; e++)
        sum += pow(e + 1, -skew);
    for (int e = 0; e < experts; e++) {
        int begin = (int)(rows * before / sum + 0.5);
        before += pow(e + 1, -skew);
        int end = e + 1 < experts ? (int)(rows * before / sum + 0.5) : rows;
        segment[e] = (dls_segment){e, begin, end - begin};
    }
}

/* As many rows for every expert as the fullest has. Returns their sum. */
static int pad(dls_segment *padded, const dls_segment *segment, int experts)
{
    int most = 0;
    for (int e = 0; e < experts; e++)
        most = segment[e].count > most ? segment[e].count : most;
    for (int e = 0; e < experts; e++)
        padded[e] = (dls_segment){e, e * most, most};
    return experts * most;
}

/* time a product of groups */
typedef struct job {
    dls_ctx ctx;
    void *x, *y, *weights;
    const void *weight[MOST_EXPERTS];
    dls_segment segment[MOST_EXPERTS], padded[MOST_EXPERTS];
    int rows, rows_padded;
    dls_groups g;
} job;

static dls_status time_product(job *j, const dls_segment *segment, const char *way,
                               double *seconds)
{
    cudaEvent_t start, stop;
    float ms;
    dls_groups g = j->g;
    g.segment = segment;
    setenv("DLS_GROUPED", way, 1);
    DLS_CUDA(cudaEventCreate(&start));
    DLS_CUDA(cudaEventCreate(&stop));
    /* measure between two events */
    DLS_CUDA(cudaEventRecord(start, j->ctx.stream));
    DLS_TRY(dls_grouped_forward(&j->ctx, &g, j->y, j->x, j->weight));
    DLS_CUDA(cudaEventRecord(stop, j->ctx.stream));
    DLS_TRY(dls_ctx_sync(&j->ctx));
    DLS_CUDA(cudaEventElapsedTime(&ms, start, stop));
    DLS_CUDA(cudaEventDestroy(start));
    DLS_CUDA(cudaEventDestroy(stop));
    *seconds = ms * 1e-3;
    return DLS_OK;
}

static dls_status prepare(job *j, dls_dtype type)
{
    size_t each = (size_t)j->g.in * j->g.out, size = dls_dtype_size(type);
    size_t rows = (size_t)(j->rows_padded > j->rows ? j->rows_padded : j->rows);
    DLS_TRY(dls_ctx_create(&j->ctx, 0, type));
    DLS_TRY(dls_device_alloc(&j->x, rows * j->g.in, type, DLS_MEM_ACTIVATIONS));
    DLS_TRY(dls_device_alloc(&j->y, rows * j->g.out, type, DLS_MEM_ACTIVATIONS));
    DLS_TRY(dls_device_alloc(&j->weights, each * j->g.experts, type, DLS_MEM_PARAMETERS));
    DLS_CUDA(cudaMemsetAsync(j->x, 0, rows * j->g.in * size, j->ctx.stream));
    DLS_CUDA(cudaMemsetAsync(j->weights, 0, each * j->g.experts * size, j->ctx.stream));
    for (int e = 0; e < j->g.experts; e++)
        j->weight[e] = (char *)j->weights + e * each * size;
    return dls_ctx_sync(&j->ctx);
}

static void release(job *j)
{
    dls_device_free(j->x);
    dls_device_free(j->y);
    dls_device_free(j->weights);
    dls_ctx_destroy(&j->ctx);
}

/* print the ways of groups */
/* Rows that a way multiplies: those of whole tiles, or those it is given. */
static double multiplied(const dls_segment *segment, int experts, int tile)
{
    double rows = 0;
    for (int e = 0; e < experts; e++)
        rows += (segment[e].count + tile - 1) / tile * tile;
    return rows;
}

static dls_status run_ways(job *j, dls_table *table)
{
    const struct { const char *name, *way; const dls_segment *s; int tile; } ways[] = {
        {"padded", "tiles", j->padded, 32}, {"tiles", "tiles", j->segment, 32},
        {"calls", "cublas", j->segment, 1}};
    double useful = 2.0 * j->rows * j->g.in * j->g.out;
    for (int i = 0; i < 3; i++) {
        double seconds = 0, rows = multiplied(ways[i].s, j->g.experts, ways[i].tile);
        DLS_TRY(time_product(j, ways[i].s, ways[i].way, &seconds));
        dls_table_add_text(table, ways[i].name);
        dls_table_add_real(table, rows);
        dls_table_add_real(table, 100 * (rows - j->rows) / rows);
        dls_table_add_real(table, seconds * 1e6);
        dls_table_add_real(table, useful / seconds * 1e-12);
    }
    return DLS_OK;
}

static dls_status print_ways(job *j, dls_dtype type, int json)
{
    static const dls_column columns[] = {
        {"way", NULL}, {"rows multiplied", "%.0f"}, {"in vain, %", "%.1f"},
        {"µs", "%.2f"}, {"useful TFLOP/s", "%.2f"}};
    dls_table *table = NULL;
    DLS_TRY(dls_table_create(&table, columns, 5));
    dls_status s = prepare(j, type);
    if (s == DLS_OK)
        s = run_ways(j, table);
    release(j);
    if (s == DLS_OK)
        s = dls_table_print(table, stdout, json);
    dls_table_free(table);
    return s;
}

/* read the grouped command */
dls_status dls_grouped_command(int argc, char **argv, int *exit_code)
{
    int64_t rows = 4096, experts = 8, in = 1024, out = 1024;
    const char *type_name = "f32";
    double skew = 0;
    int json = 0, helped;
    dls_dtype type;
    static job j;
    /* list the options of groups */
    const dls_arg args[] = {
        {"--rows", DLS_ARG_INT, &rows, "N", "rows of all experts together (4096)"},
        {"--experts", DLS_ARG_INT, &experts, "E", "weights (8)"},
        {"--skew", DLS_ARG_REAL, &skew, "S", "expert e has a share like 1/(e+1)^S (0)"},
        {"--in", DLS_ARG_INT, &in, "K", "columns of a row (1024)"},
        {"--out", DLS_ARG_INT, &out, "N", "columns of the result (1024)"},
        {"--type", DLS_ARG_STRING, &type_name, "NAME", "f32, f64 or bf16 (f32)"},
        {"--json", DLS_ARG_FLAG, &json, NULL, "print JSON"}};
    const dls_args spec = {"dls grouped", "Multiplies rows by the weights of their "
                           "experts, and times it.", "dls grouped --experts 64 --skew 1",
                           args, sizeof args / sizeof args[0]};
    (void)exit_code;
    DLS_TRY(dls_args_parse(&spec, argc, argv, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(dls_dtype_parse(type_name, &type));
    /* refuse what groups can not have */
    DLS_TRY(dls_args_in("--rows", rows, 1, 1 << 20));
    DLS_TRY(dls_args_in("--experts", experts, 1, MOST_EXPERTS));
    DLS_TRY(dls_args_in("--in", in, 1, 1 << 14));
    DLS_TRY(dls_args_in("--out", out, 1, 1 << 14));
    DLS_TRY(dls_args_real_in("--skew", skew, 0, 10));
    j = (job){.rows = (int)rows, .g = {NULL, (int)experts, (int)experts, (int)in,
                                       (int)out}};
    divide(j.segment, (int)experts, (int)rows, skew);
    j.rows_padded = pad(j.padded, j.segment, (int)experts);
    return print_ways(&j, type, json);
}
