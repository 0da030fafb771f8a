/* code/parallel/expert/dispatch_command.c: from chapters/08-dispatch-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* One dispatch and one combine of a given size, with their bytes, times and bounds. */
#include "parallel/expert/dispatch_command.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/table.h"
#include "layers/dispatch.h"
#include "vgpu/gpu.h"
#include "vgpu/trace.h"

/* describe a measured dispatch */
typedef struct options {
    int64_t tokens, channels, experts, chosen;
    const char *dtype, *wire, *pattern, *timeline, *matrix, *cluster;
    int json;
} options;

typedef struct bench {
    const options *o;
    dls_comm *comm;
    dls_ctx ctx;
    dls_axes axes;
    dls_dispatch d;
    dls_plan plan;
    dls_pass pass;
    int n, rank;
    int *counts;                // (E) device, written by the host
    char *rows, *arrived, *activations, *host;
    dls_table *table;
} bench;

/* choose where rows go */
// The experts of a token; scratch (E): room.
static void choose(const bench *b, int token, int *scratch, int *chosen)
{
    const options *o = b->o;
    int E = (int)o->experts, k = (int)o->chosen;
    for (int e = 0; e < E; e++)
        scratch[e] = e;
    for (int j = 0; j < k; j++) {
        /* draw a choice that was not drawn before */
        uint64_t index = (uint64_t)token * o->chosen + j;
        int at = j + (int)(dls_rng_u32(3, (uint64_t)b->rank, index) % (uint32_t)(E - j));
        int e = scratch[at];
        scratch[at] = scratch[j];
        scratch[j] = e;
        chosen[j] = *o->pattern == 'r' ? e : *o->pattern == 'o' ? j : (token * k + j) % E;
    }
}

static dls_status count(bench *b)
{
    int E = (int)b->o->experts, k = (int)b->o->chosen;
    int *room = malloc(sizeof *room * (size_t)(E + k));
    if (!room)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d experts", E);
    memset(b->counts, 0, sizeof *b->counts * E);
    for (int token = 0; token < b->o->tokens; token++) {
        choose(b, token, room, room + E);
        for (int j = 0; j < k; j++)
            b->counts[room[E + j]]++;
    }
    free(room);
    return DLS_OK;
}

/* make a measured dispatch */
static dls_status make(bench *b)
{
    const options *o = b->o;
    dls_moe moe = {.experts = (int)o->experts, .chosen = (int)o->chosen,
                   .balanced = *o->pattern == 'e'};
    size_t row = (size_t)o->channels * dls_dtype_size(b->ctx.dtype);
    b->plan = (dls_plan){.max_B = 1, .max_T = (int)o->tokens, .dtype = b->ctx.dtype};
    dls_dispatch_plan(&b->d, &b->plan, &b->axes.sharding, &moe, (int)o->tokens,
                      (int)o->tokens, (int)o->channels);
    DLS_TRY(dls_flat_buffer((void **)&b->counts, sizeof(int) * o->experts,
                            DLS_MEM_ACTIVATIONS));
    DLS_TRY(dls_flat_buffer((void **)&b->rows, b->d.sent_room * row,
                            DLS_MEM_ACTIVATIONS));
    DLS_TRY(dls_flat_buffer((void **)&b->arrived, b->d.room * row, DLS_MEM_ACTIVATIONS));
    DLS_TRY(dls_flat_buffer((void **)&b->activations, dls_plan_bytes(&b->plan),
                            DLS_MEM_ACTIVATIONS));
    b->host = malloc(b->plan.host);
    b->pass = (dls_pass){.ctx = &b->ctx, .axes = &b->axes, .B = 1, .T = (int)o->tokens,
                         .host = b->host};
    dls_pass_regions(&b->pass, &b->plan, b->activations);
    return b->host ? count(b) : DLS_FAIL(DLS_ERR_MEMORY, "no memory for routes");
}

/* time a movement */
typedef enum what { PIPELINE, COUNTS, DISPATCH, COMBINE, MOVEMENTS } what;

static const char *const names[] = {"pipeline", "counts", "dispatch", "combine"};

static dls_status send_on(bench *b)
{
    size_t bytes = (size_t)b->o->tokens * b->o->channels * dls_dtype_size(b->ctx.dtype);
    dls_status s = DLS_OK;
    DLS_TRY(dls_comm_group_begin(b->comm));
    s = dls_comm_send(b->comm, b->rows, bytes, DLS_COMM_U8, (b->rank + 1) % b->n,
                      b->ctx.stream);
    if (s == DLS_OK)
        s = dls_comm_recv(b->comm, b->arrived, bytes, DLS_COMM_U8,
                          (b->rank + b->n - 1) % b->n, b->ctx.stream);
    dls_status end = dls_comm_group_end(b->comm);
    return s != DLS_OK ? s : end;
}

static dls_status do_it(bench *b, what w)
{
    const dls_pass *p = &b->pass;
    switch (w) {
    case PIPELINE: return send_on(b);
    case COUNTS: return dls_dispatch_count(p, &b->d, b->counts, NULL);
    case DISPATCH: DLS_TRY(dls_dispatch_rows(p, &b->d, b->arrived, b->rows)); break;
    default: DLS_TRY(dls_combine_rows(p, &b->d, b->rows, b->arrived));
    }
    return dls_dispatch_wait(p);
}

static dls_status time_it(bench *b, what w, double *seconds)
{
    double mine, all[b->n];
    *seconds = 0;
    cudaEvent_t from, to;
    float ms;
    DLS_CUDA(cudaEventCreate(&from));
    DLS_CUDA(cudaEventCreate(&to));
    DLS_TRY(dls_comm_barrier(b->comm));
    DLS_CUDA(cudaEventRecord(from, b->ctx.stream));
    DLS_TRY(do_it(b, w));
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

/* count bytes by link */
typedef struct load {
    int rows_out, rows_in;      // of this rank, its own among them
    double near, far;           // bytes sent to others of the node; of other nodes
    double bound;               // s, of this rank's ports
} load;

static int node_of(const bench *b, int r)
{
    return dls_comm_world_rank(b->comm, r) / dls_gpu_cluster()->gpus_per_node;
}

// Bytes that rank `from` sends to rank `to`.
static double bytes_between(const bench *b, what w, int from, int to)
{
    const options *o = b->o;
    const dls_routes *r = dls_dispatch_routes(&b->pass, &b->d);
    size_t row = dls_dispatch_row_bytes(&b->d, b->ctx.dtype, w == COMBINE);
    if (from == to)
        return 0;
    if (w == PIPELINE)
        return to == (from + 1) % b->n
            ? (double)o->tokens * o->channels * dls_dtype_size(b->ctx.dtype) : 0;
    if (w == COUNTS)
        return 0;
    return w == DISPATCH ? (double)row * dls_routes_rows(r, from, to)
                         : (double)row * dls_routes_rows(r, to, from);
}

static dls_status load_of(const bench *b, what w, load *out)
{
    double out_bytes[2] = {0}, in_bytes[2] = {0}, alpha[2] = {0}, beta[2] = {0};
    for (int r = 0; r < b->n; r++) {
        int far = node_of(b, r) != node_of(b, b->rank);
        if (r == b->rank)
            continue;
        out_bytes[far] += bytes_between(b, w, b->rank, r);
        in_bytes[far] += bytes_between(b, w, r, b->rank);
        DLS_TRY(dls_cluster_link(dls_gpu_cluster(), dls_comm_world_rank(b->comm, b->rank),
                                 dls_comm_world_rank(b->comm, r), &alpha[far],
                                 &beta[far]));
    }
    out->near = out_bytes[0];
    out->far = out_bytes[1];
    out->bound = 0;
    for (int far = 0; far < 2; far++) {
        double most = out_bytes[far] > in_bytes[far] ? out_bytes[far] : in_bytes[far];
        double bound = most > 0 ? alpha[far] + beta[far] * most : 0;
        out->bound = bound > out->bound ? bound : out->bound;
    }
    return DLS_OK;
}

static void rows_of(const bench *b, what w, load *out)
{
    const dls_routes *r = dls_dispatch_routes(&b->pass, &b->d);
    int tokens = (int)b->o->tokens;
    out->rows_out = w == PIPELINE ? tokens : w == DISPATCH ? r->sent : r->arrived;
    out->rows_in = w == PIPELINE ? tokens : w == DISPATCH ? r->arrived : r->sent;
}

/* tell of a dispatch */
static const dls_column columns[] = {
    {"what", NULL}, {"rows out", NULL}, {"rows in", NULL}, {"near MB", "%.3f"},
    {"far MB", "%.3f"}, {"µs", "%.1f"}, {"bound", "%.1f"}, {"bus GB/s", "%.1f"}};

static void keep_most(load *most, const load *x)
{
    most->rows_out = x->rows_out > most->rows_out ? x->rows_out : most->rows_out;
    most->rows_in = x->rows_in > most->rows_in ? x->rows_in : most->rows_in;
    most->near = x->near > most->near ? x->near : most->near;
    most->far = x->far > most->far ? x->far : most->far;
    most->bound = x->bound > most->bound ? x->bound : most->bound;
}

static dls_status tell(bench *b, what w, double seconds, double counted)
{
    load mine, most = {0}, all[b->n];
    DLS_TRY(load_of(b, w, &mine));
    rows_of(b, w, &mine);
    if (counted != mine.near + mine.far)
        return DLS_FAIL(DLS_ERR_STATE, "%s: %.0f bytes were sent, the routes say %.0f",
                        names[w], counted, mine.near + mine.far);
    DLS_TRY(dls_comm_all_gather_host(b->comm, &mine, sizeof mine, all));
    for (int r = 0; r < b->n; r++)
        keep_most(&most, &all[r]);
    dls_table_add_text(b->table, names[w]);
    dls_table_add_int(b->table, most.rows_out);
    dls_table_add_int(b->table, most.rows_in);
    dls_table_add_real(b->table, most.near * 1e-6);
    dls_table_add_real(b->table, most.far * 1e-6);
    dls_table_add_real(b->table, seconds * 1e6);
    dls_table_add_real(b->table, most.bound * 1e6);
    dls_table_add_real(b->table, (most.near + most.far) / seconds * 1e-9);
    return DLS_OK;
}

static void add_counts(bench *b, double seconds)
{
    dls_table_add_text(b->table, names[COUNTS]);
    for (int i = 0; i < 4; i++)
        dls_table_add_real(b->table, NAN);
    dls_table_add_real(b->table, seconds * 1e6);
    dls_table_add_real(b->table, NAN);
    dls_table_add_real(b->table, NAN);
}

static double sent_so_far(const bench *b, what w)
{
    return (double)dls_comm_stats(w == PIPELINE ? b->comm : b->axes.expert).wire_bytes;
}

static dls_status measure_all(bench *b)
{
    double seconds = 0;
    DLS_TRY(dls_table_create(&b->table, columns, sizeof columns / sizeof *columns));
    DLS_TRY(do_it(b, COUNTS));          // the first takes memory
    for (what w = PIPELINE; w < MOVEMENTS; w++) {
        double before = sent_so_far(b, w);
        if (w == DISPATCH && b->o->timeline)
            dls_trace_enable(1);
        DLS_TRY(time_it(b, w, &seconds));
        if (w != COUNTS)
            DLS_TRY(tell(b, w, seconds, sent_so_far(b, w) - before));
        else
            add_counts(b, seconds);
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
        snprintf(text, sizeof text, "%.0f%c", bytes_between(b, DISPATCH, i / b->n,
                                                            i % b->n),
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
        {"--tokens", DLS_ARG_INT, &o->tokens, "N", "of each rank (512)"},
        {"--channels", DLS_ARG_INT, &o->channels, "C", "columns of a row (2048)"},
        {"--experts", DLS_ARG_INT, &o->experts, "E", "of all ranks together (64)"},
        {"--chosen", DLS_ARG_INT, &o->chosen, "K", "experts of a token (8)"},
        {"--pattern", DLS_ARG_STRING, &o->pattern, "P", "even, random or one (even)"},
        {"--dtype", DLS_ARG_STRING, &o->dtype, "TYPE", "bf16, f32 or f64 (bf16)"},
        {"--wire", DLS_ARG_STRING, &o->wire, "TYPE", "same, bf16 or fp8 (same)"},
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

// The place of a word among some; -1: it is not there.
static int find(const char *word, const char *const *words, int n)
{
    while (n-- > 0)
        if (strcmp(word, words[n]) == 0)
            return n;
    return -1;
}

static dls_status check(const options *o)
{
    const int64_t far = 1 << 20;
    static const char *const patterns[] = {"even", "random", "one"};
    if (o->tokens < 1 || o->tokens > far || o->channels < 1 || o->channels > far ||
        o->experts < 1 || o->experts > 4096 || o->chosen < 1 || o->chosen > o->experts)
        return DLS_FAIL(DLS_ERR_INPUT, "dls dispatch: expected 1 to %lld --tokens and "
                        "--channels, 1 to 4096 --experts and 1 to %lld --chosen of them",
                        (long long)far, (long long)o->experts);
    if (find(o->pattern, patterns, 3) < 0)
        return DLS_FAIL(DLS_ERR_INPUT, "dls dispatch: --pattern: expected even, random "
                        "or one, got \"%s\"", o->pattern);
    return DLS_OK;
}

static dls_status choose_types(const options *o, dls_dtype *dtype, dls_row_type *wire)
{
    static const char *const types[] = {"f32", "f64", "bf16"};
    static const char *const wires[] = {"same", "bf16", "fp8"};
    static const dls_dtype dtypes[] = {DLS_F32, DLS_F64, DLS_BF16};
    int type = find(o->dtype, types, 3), on = find(o->wire, wires, 3);
    if (type < 0 || on < 0)
        return DLS_FAIL(DLS_ERR_INPUT, "dls dispatch: expected --dtype f32, f64 or bf16 "
                        "and --wire same, bf16 or fp8");
    *dtype = dtypes[type];
    *wire = (dls_row_type)on;
    return DLS_OK;
}

static dls_status print(const bench *b)
{
    const options *o = b->o;
    if (b->rank > 0)
        return DLS_OK;
    if (!o->json)
        printf("%d ranks with %lld tokens of %lld columns, %s (wire %s); %lld experts, "
               "%lld chosen, %s\n", b->n, (long long)o->tokens, (long long)o->channels,
               o->dtype, o->wire, (long long)o->experts, (long long)o->chosen,
               o->pattern);
    DLS_TRY(dls_table_print(b->table, stdout, o->json));
    if (!o->json)
        puts("Of the busiest rank. near, far: bytes to other ranks of the node, of other "
             "nodes;\nbound: the fullest port, in µs; bus: bytes sent / time.");
    return DLS_OK;
}

static dls_status measure_and_print(bench *b)
{
    DLS_TRY(make(b));
    DLS_TRY(measure_all(b));
    if (b->o->timeline)
        DLS_TRY(draw(b, b->o->timeline));
    if (b->o->matrix)
        DLS_TRY(write_matrix(b, b->o->matrix));
    return print(b);
}

static dls_status run(bench *b, dls_dtype dtype, dls_row_type wire)
{
    b->n = dls_comm_size(b->comm);
    b->rank = dls_comm_rank(b->comm);
    dls_sharding by = {.expert = b->n, .expert_rank = b->rank, .wire = wire};
    dls_moe moe = {.experts = (int)b->o->experts};
    if (b->n == 1)
        return DLS_FAIL(DLS_ERR_INPUT, "dls dispatch: one rank has nobody to send to; "
                        "try `dls run -n 8 -- dispatch`");
    DLS_TRY(dls_dispatch_check(&by, &moe));
    DLS_TRY(dls_ctx_create(&b->ctx, dls_gpu_local_rank(), dtype));
    DLS_TRY(dls_axes_open(&b->axes, &by, 1, NULL, NULL));
    DLS_TRY(dls_axes_add_experts(&b->axes, b->comm, NULL, NULL));
    DLS_CUDA(dls_gpu_name_stream(b->ctx.stream, "compute"));
    DLS_CUDA(dls_gpu_name_stream(b->axes.stream, "rows"));
    return measure_and_print(b);
}

static void forget(bench *b)
{
    void *all[] = {b->counts, b->rows, b->arrived, b->activations};
    for (int i = 0; i < 4; i++)
        dls_device_free(all[i]);
    free(b->host);
    dls_table_free(b->table);
    dls_axes_close(&b->axes);
    dls_ctx_destroy(&b->ctx);
    dls_comm_destroy(b->comm);
}

dls_status dls_dispatch_command(int argc, char **argv, int *exit_code)
{
    options o = {.tokens = 512, .channels = 2048, .experts = 64, .chosen = 8,
                 .pattern = "even", .dtype = "bf16", .wire = "same"};
    bench b = {.o = &o};
    dls_dtype dtype;
    dls_row_type wire;
    int helped;
    DLS_TRY(parse(argc, argv, &o, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(check(&o));
    DLS_TRY(choose_types(&o, &dtype, &wire));
    DLS_TRY(dls_gpu_init(&(dls_gpu_options){.kernels = DLS_KERNELS_TIMED,
                                            .cluster_file = o.cluster}));
    DLS_TRY(dls_comm_create(&b.comm, NULL));
    dls_status s = run(&b, dtype, wire);
    if (s == DLS_ERR_INPUT && b.rank > 0) {
        sleep(1);               // every rank finds it: rank 0 says it
        *exit_code = 2;
        s = DLS_OK;
    }
    forget(&b);
    return s;
}
