/* code/parallel/expert/dispatch_command.c: from chapters/08-dispatch-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* One dispatch and one combine of a given size, with their bytes, times and bounds. */
#include "parallel/expert/dispatch_command.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "base/file.h"
#include "base/table.h"
#include "parallel/expert/dispatch_bench.h"
#include "vgpu/gpu.h"
#include "vgpu/trace.h"

/* take the options of dispatch */
typedef struct options {
    dls_dispatch_options of;
    const char *dtype, *wire, *way, *timeline, *matrix, *cluster;
    int json;
} options;

typedef dls_dispatch_bench bench;

static const char *const names[] = {"pipeline", "counts", "dispatch", "combine"};

/* time a movement */
static dls_status time_it(bench *b, dls_movement w, double *seconds)
{
    double mine, all[b->n];
    *seconds = 0;
    cudaEvent_t from, to;
    float ms;
    DLS_CUDA(cudaEventCreate(&from));
    DLS_CUDA(cudaEventCreate(&to));
    DLS_TRY(dls_comm_barrier(b->comm));
    DLS_CUDA(cudaEventRecord(from, b->ctx.stream));
    DLS_TRY(dls_dispatch_bench_move(b, w));
    DLS_CUDA(cudaEventRecord(to, b->ctx.stream));
    DLS_TRY(dls_ctx_sync(&b->ctx));
    DLS_CUDA(cudaEventElapsedTime(&ms, from, to));
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    mine = ms * 1e-3;
    DLS_TRY(dls_comm_all_gather_host(b->comm, &mine, sizeof mine, all));
    for (int r = 0; r < b->n; r++)
        *seconds = all[r] > *seconds ? all[r] : *seconds;
    return DLS_OK;
}

/* bound a movement */
typedef struct load {
    int rows[2];                // out, in
    double bytes[2];            // near, far
    double bound;               // s, of this rank's ports
} load;

static dls_status port_of(const bench *b, int r, int *far, double *alpha, double *beta)
{
    *far = dls_dispatch_bench_node(b, r) != dls_dispatch_bench_node(b, b->rank);
    return dls_cluster_link(dls_gpu_cluster(), dls_comm_world_rank(b->comm, b->rank),
                            dls_comm_world_rank(b->comm, r), &alpha[*far], &beta[*far]);
}

static dls_status load_of(const bench *b, dls_movement w, const double sent[2], load *out)
{
    double leaves[2] = {0}, comes[2] = {0}, alpha[2] = {0}, beta[2] = {0};
    for (int r = 0, far; r < b->n; r++) {
        if (r == b->rank)
            continue;
        DLS_TRY(port_of(b, r, &far, alpha, beta));
        leaves[far] += dls_dispatch_bench_between(b, w, b->rank, r);
        comes[far] += dls_dispatch_bench_between(b, w, r, b->rank);
    }
    int nodes = w != DLS_MOVE_PIPELINE && b->o->way == DLS_DISPATCH_NODES;
    if (sent[0] < 0 && sent[1] != leaves[0] + leaves[1])
        return DLS_FAIL(DLS_ERR_STATE, "%s: %.0f bytes were sent, by formula %.0f",
                        names[w], sent[1], leaves[0] + leaves[1]);
    out->bound = 0;
    for (int far = 0; far < 2; far++) {
        out->bytes[far] = sent[0] < 0 ? leaves[far] : sent[far];
        double most = nodes ? out->bytes[far] : fmax(leaves[far], comes[far]);
        out->bound = fmax(out->bound, most > 0 ? alpha[far] + beta[far] * most : 0);
    }
    dls_dispatch_bench_rows(b, w, out->rows);
    return DLS_OK;
}

/* tell of a dispatch */
static const dls_column columns[] = {
    {"what", NULL}, {"rows out", NULL}, {"rows in", NULL}, {"near MB", "%.3f"},
    {"far MB", "%.3f"}, {"µs", "%.1f"}, {"bound", "%.1f"}, {"bus GB/s", "%.1f"}};

static void keep_most(load *most, const load *x)
{
    for (int i = 0; i < 2; i++) {
        most->rows[i] = x->rows[i] > most->rows[i] ? x->rows[i] : most->rows[i];
        most->bytes[i] = fmax(most->bytes[i], x->bytes[i]);
    }
    most->bound = fmax(most->bound, x->bound);
}

static dls_status tell(bench *b, dls_table *table, dls_movement w, double seconds,
                       const double sent[2])
{
    load mine, most = {0}, all[b->n];
    DLS_TRY(load_of(b, w, sent, &mine));
    DLS_TRY(dls_comm_all_gather_host(b->comm, &mine, sizeof mine, all));
    for (int r = 0; r < b->n; r++)
        keep_most(&most, &all[r]);
    dls_table_add_text(table, names[w]);
    for (int i = 0; i < 2; i++)
        dls_table_add_int(table, most.rows[i]);
    for (int i = 0; i < 2; i++)
        dls_table_add_real(table, most.bytes[i] * 1e-6);
    dls_table_add_real(table, seconds * 1e6);
    dls_table_add_real(table, most.bound * 1e6);
    dls_table_add_real(table, (most.bytes[0] + most.bytes[1]) / seconds * 1e-9);
    return DLS_OK;
}

static void tell_counts(dls_table *table, double seconds)
{
    dls_table_add_text(table, names[DLS_MOVE_COUNTS]);
    for (int i = 0; i < 7; i++)
        dls_table_add_real(table, i == 4 ? seconds * 1e6 : NAN);
}

static dls_status measure_all(bench *b, const options *o, dls_table *table)
{
    double seconds = 0, before[2], after[2];
    for (dls_movement w = 1; w < DLS_MOVEMENTS; w++)    // the first time takes memory
        DLS_TRY(dls_dispatch_bench_move(b, w));
    DLS_TRY(dls_ctx_sync(&b->ctx));
    for (dls_movement w = 0; w < DLS_MOVEMENTS; w++) {
        dls_dispatch_bench_sent(b, w, before);
        if (w == DLS_MOVE_DISPATCH && o->timeline)
            dls_trace_enable(1);
        DLS_TRY(time_it(b, w, &seconds));
        dls_dispatch_bench_sent(b, w, after);
        after[1] -= before[1];
        after[0] = after[0] < 0 ? -1 : after[0] - before[0];
        if (w == DLS_MOVE_COUNTS)
            tell_counts(table, seconds);
        else
            DLS_TRY(tell(b, table, w, seconds, after));
    }
    dls_trace_enable(0);
    return DLS_OK;
}

/* draw a dispatch */
// Bytes from each rank to each, of the dispatch: a line of numbers for each sender.
static dls_status write_matrix(const bench *b, const char *path)
{
    dls_file_writer *f;
    char text[32];
    dls_status s = DLS_OK;
    if (b->rank > 0)
        return DLS_OK;
    DLS_TRY(dls_file_begin(path, &f));
    for (int i = 0; i < b->n * b->n && s == DLS_OK; i++) {
        snprintf(text, sizeof text, "%.0f%c", dls_dispatch_bench_between(
                     b, DLS_MOVE_DISPATCH, i / b->n, i % b->n),
                 i % b->n == b->n - 1 ? '\n' : '\t');
        s = dls_file_append(f, text, strlen(text));
    }
    if (s == DLS_OK)
        return dls_file_commit(f);
    dls_file_abort(f);
    return s;
}

static dls_status draw(const bench *b, const char *path)
{
    char paths[b->n][PATH_MAX];
    const char *list[b->n];
    for (int i = 0; i < b->n; i++) {
        snprintf(paths[i], sizeof paths[i], "%s.rank-%d.json", path, i);
        list[i] = paths[i];
    }
    DLS_TRY(dls_trace_save(paths[b->rank]));
    DLS_TRY(dls_comm_barrier(b->comm));
    if (b->rank > 0)
        return DLS_OK;
    dls_status s = dls_trace_merge(list, b->n, NULL, path, 0, 0);
    for (int i = 0; i < b->n; i++)
        unlink(paths[i]);
    return s;
}

/* run the dispatch command */
static dls_status parse(int argc, char **argv, options *o, int *helped)
{
    const dls_arg args[] = {
        {"--tokens", DLS_ARG_INT, &o->of.tokens, "N", "of each rank (512)"},
        {"--channels", DLS_ARG_INT, &o->of.channels, "C", "columns of a row (2048)"},
        {"--experts", DLS_ARG_INT, &o->of.experts, "E", "of all ranks together (64)"},
        {"--chosen", DLS_ARG_INT, &o->of.chosen, "K", "experts of a token (8)"},
        {"--pattern", DLS_ARG_STRING, &o->of.pattern, "P", "even, random or one (even)"},
        {"--dtype", DLS_ARG_STRING, &o->dtype, "TYPE", "bf16, f32 or f64 (bf16)"},
        {"--wire", DLS_ARG_STRING, &o->wire, "TYPE", "same, bf16 or fp8 (same)"},
        {"--way", DLS_ARG_STRING, &o->way, "WAY", "flat, nodes or one-sided (flat)"},
        {"--cluster", DLS_ARG_STRING, &o->cluster, "NAME", "the hardware (dgx-h100)"},
        {"--matrix", DLS_ARG_STRING, &o->matrix, "FILE", "bytes from rank to rank"},
        {"--timeline", DLS_ARG_STRING, &o->timeline, "FILE", "draw it as SVG"},
        {"--json", DLS_ARG_FLAG, &o->json, NULL, "print JSON"}};
    const dls_args spec = {"dls dispatch", "Sends rows to experts over all ranks and "
                           "back, on the virtual clock.",
                           "dls run -n 8 -- dispatch --wire fp8", args,
                           sizeof args / sizeof args[0]};
    return dls_args_parse(&spec, argc, argv, helped);
}

// *place := that of a word among three.
static dls_status find(const char *option, const char *word, const char *const words[3],
                       int *place)
{
    for (*place = 0; *place < 3; ++*place)
        if (strcmp(word, words[*place]) == 0)
            return DLS_OK;
    return DLS_FAIL(DLS_ERR_INPUT, "dls dispatch: --%s: expected %s, %s or %s, got "
                    "\"%s\"", option, words[0], words[1], words[2], word);
}

static dls_status find_words(options *o)
{
    static const char *const types[] = {"bf16", "f32", "f64"};
    static const char *const wires[] = {"same", "bf16", "fp8"};
    static const char *const ways[] = {"flat", "nodes", "one-sided"};
    static const char *const patterns[] = {"even", "random", "one"};
    static const dls_dtype dtypes[] = {DLS_BF16, DLS_F32, DLS_F64};
    int type, wire, way, pattern;
    DLS_TRY(find("dtype", o->dtype, types, &type));
    DLS_TRY(find("wire", o->wire, wires, &wire));
    DLS_TRY(find("way", o->way, ways, &way));
    DLS_TRY(find("pattern", o->of.pattern, patterns, &pattern));
    o->of.dtype = dtypes[type];
    o->of.wire = (dls_row_type)wire;
    o->of.way = (dls_dispatch_way)way;
    return DLS_OK;
}

// A rank may get the rows of all others.
static dls_status check(const dls_dispatch_options *o)
{
    DLS_TRY(dls_args_in("--experts", o->experts, 1, 4096));
    DLS_TRY(dls_args_in("--chosen", o->chosen, 1, o->experts));
    DLS_TRY(dls_args_in("--tokens", o->tokens, 1, (1 << 24) / o->chosen));
    return dls_args_in("--channels", o->channels, 1, 1 << 20);
}

static dls_status print(const bench *b, const options *o, dls_table *table)
{
    const dls_dispatch_options *of = &o->of;
    if (b->rank > 0)
        return DLS_OK;
    if (!o->json)
        printf("%d ranks with %lld tokens of %lld columns, %s (wire %s); %lld experts, "
               "%lld chosen, %s; %s\n", b->n, (long long)of->tokens,
               (long long)of->channels, o->dtype, o->wire, (long long)of->experts,
               (long long)of->chosen, of->pattern, o->way);
    DLS_TRY(dls_table_print(table, stdout, o->json));
    if (!o->json)
        puts("Of the busiest rank. near, far: bytes to other ranks of the node, of other "
             "nodes;\nbound: the fullest port, in µs; bus: bytes sent / time.");
    return DLS_OK;
}

static dls_status measure_and_print(bench *b, const options *o, dls_table *table)
{
    DLS_CUDA(dls_gpu_name_stream(b->ctx.stream, "compute"));
    DLS_CUDA(dls_gpu_name_stream(b->axes.stream, "rows"));
    DLS_TRY(measure_all(b, o, table));
    if (o->timeline)
        DLS_TRY(draw(b, o->timeline));
    if (o->matrix)
        DLS_TRY(write_matrix(b, o->matrix));
    return print(b, o, table);
}

static dls_status run(const options *o, dls_comm *comm)
{
    bench b = {0};
    dls_table *table = NULL;
    if (dls_comm_size(comm) == 1)
        return DLS_FAIL(DLS_ERR_INPUT, "dls dispatch: one rank has nobody to send to; "
                        "try `dls run -n 8 -- dispatch`");
    DLS_TRY(dls_table_create(&table, columns, sizeof columns / sizeof *columns));
    dls_status s = dls_dispatch_bench_open(&b, &o->of, comm);
    if (s == DLS_OK)
        s = measure_and_print(&b, o, table);
    dls_table_free(table);
    dls_dispatch_bench_close(&b);
    return s;
}

dls_status dls_dispatch_command(int argc, char **argv, int *exit_code)
{
    options o = {.of = {.tokens = 512, .channels = 2048, .experts = 64, .chosen = 8,
                        .pattern = "even"},
                 .dtype = "bf16", .wire = "same", .way = "flat"};
    dls_comm *comm;
    int helped;
    DLS_TRY(parse(argc, argv, &o, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(check(&o.of));
    DLS_TRY(find_words(&o));
    dls_gpu_options gpu = {.cluster_file = o.cluster,
                           .kernels = o.of.way == DLS_DISPATCH_FLAT ? DLS_KERNELS_TIMED
                                                                    : DLS_KERNELS_HOST};
    DLS_TRY(dls_gpu_init(&gpu));
    DLS_TRY(dls_comm_create(&comm, NULL));
    int rank = dls_comm_rank(comm);
    dls_status s = run(&o, comm);
    if (s == DLS_ERR_INPUT && rank > 0) {
        sleep(1);               // every rank finds it: rank 0 says it
        *exit_code = 2;
        s = DLS_OK;
    }
    dls_comm_destroy(comm);
    return s;
}
