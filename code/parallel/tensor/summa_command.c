/* code/parallel/tensor/summa_command.c: from chapters/06-tensor-2d-layers.md. Edit the chapter, or edit here and run "make untangle". */
/* One pass forward and back in each way, on the virtual clock; a table. */
#include "parallel/tensor/summa_command.h"

#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "base/table.h"
#include "layers/param.h"
#include "parallel/tensor/laws_2d.h"
#include "parallel/tensor/mlp_1d.h"
#include "parallel/tensor/mlp_2d.h"
#include "tensor/memory.h"
#include "vgpu/gpu.h"

/* read the options of summa */
typedef struct options { int64_t tokens, channels, hidden; int formulas, json; } options;

static dls_status parse(int argc, char **argv, options *o, int *helped)
{
    const dls_arg args[] = {
        {"--tokens", DLS_ARG_INT, &o->tokens, "M", "rows of the batch (4096)"},
        {"--channels", DLS_ARG_INT, &o->channels, "H", "(2048)"},
        {"--hidden", DLS_ARG_INT, &o->hidden, "F", "(4 H)"},
        {"--formulas", DLS_ARG_FLAG, &o->formulas, NULL,
         "run nothing: numbers for 4, 16 and 64 ranks"},
        {"--json", DLS_ARG_FLAG, &o->json, NULL, "print JSON"}};
    const dls_args spec = {"dls summa", "Times an MLP in bf16 that is cut in one, two "
                           "and two and a half dimensions.",
                           "dls run -n 4 -- summa --tokens 8192 --channels 2048", args,
                           sizeof args / sizeof args[0]};
    DLS_TRY(dls_args_parse(&spec, argc, argv, helped));
    o->hidden = o->hidden ? o->hidden : 4 * o->channels;
    const int64_t sizes[] = {o->tokens, o->channels, o->hidden};
    static const char *const names[] = {"--tokens", "--channels", "--hidden"};
    for (int i = 0; !*helped && i < 3; i++)
        if (sizes[i] < 1 || sizes[i] > 1 << 20)
            return DLS_FAIL(DLS_ERR_INPUT, "dls summa: %s: expected 1 to %d, got %lld",
                            names[i], 1 << 20, (long long)sizes[i]);
    return DLS_OK;
}

/* open a contender */
typedef struct contender {
    const options *o;
    dls_comm *comm;
    dls_ctx *ctx;
    int q, d, turned;       /* q 0: one dimension */
    dls_grid grid;
    dls_mlp_2d on_grid;
    dls_mlp_1d in_line;
    void *x, *y;            /* and their gradients' places: dy = x, dx = y */
} contender;

static size_t rows_bytes(const contender *c)
{
    const dls_grid *g = &c->grid;
    size_t h = (size_t)c->o->channels, M = (size_t)c->o->tokens;
    if (c->q > 0) {
        M = (size_t)dls_cut_size(c->on_grid.M, g->q, g->row);
        h = (size_t)dls_cut_size((int)h, g->q, g->column);
    }
    return M * h * dls_dtype_size(c->ctx->dtype) + 1;
}

static dls_status open_contender(contender *c)
{
    int M = (int)c->o->tokens, h = (int)c->o->channels, f = (int)c->o->hidden;
    if (c->q == 0) {
        DLS_TRY(dls_mlp_1d_open(&c->in_line, c->ctx, c->comm, M, h, f));
    } else {
        DLS_TRY(dls_grid_open(&c->grid, c->comm, c->q, c->d));
        DLS_TRY(dls_mlp_2d_open(&c->on_grid, c->ctx, &c->grid, M, h, f, c->turned));
    }
    DLS_TRY(dls_flat_buffer(&c->x, rows_bytes(c), DLS_MEM_ACTIVATIONS));
    return dls_flat_buffer(&c->y, rows_bytes(c), DLS_MEM_ACTIVATIONS);
}

static void close_contender(contender *c)
{
    cudaDeviceSynchronize();    // its errors were told already
    dls_device_free(c->x);
    dls_device_free(c->y);
    if (c->q == 0)
        dls_mlp_1d_close(&c->in_line);
    else
        dls_mlp_2d_close(&c->on_grid);
    dls_grid_close(&c->grid);
}

/* run a contender */
static dls_status pass(contender *c)
{
    if (c->q == 0) {
        DLS_TRY(dls_mlp_1d_forward(&c->in_line, c->y, c->x));
        return dls_mlp_1d_backward(&c->in_line, c->y, c->x, c->x);
    }
    DLS_TRY(dls_mlp_2d_forward(&c->on_grid, c->y, c->x));
    DLS_TRY(dls_mlp_2d_backward(&c->on_grid, c->y, c->x, c->x));
    return dls_mlp_2d_finish(&c->on_grid);
}

/* What this rank has sent, and how long its operations took. */
static dls_comm_statistics traffic(const contender *c)
{
    const dls_comm *groups[] = {c->q ? c->grid.in_row : c->comm, c->grid.in_column,
                                c->grid.in_depth};
    dls_comm_statistics sum = {0};
    for (int i = 0; i < 3; i++) {
        dls_comm_statistics s = {0};
        if (groups[i])
            s = dls_comm_stats(groups[i]);
        sum.wire_bytes += s.wire_bytes;
        sum.operations += s.operations;
        sum.busy_seconds += s.busy_seconds;
    }
    return sum;
}

typedef struct result { double ms, wire_ms, bytes, operations, held; } result;

static dls_status measure(contender *c, result *r)
{
    cudaEvent_t from, to;
    dls_gpu_memory memory;
    float ms;
    DLS_CUDA(cudaEventCreate(&from));
    DLS_CUDA(cudaEventCreate(&to));
    DLS_TRY(pass(c));
    DLS_TRY(dls_ctx_sync(c->ctx));
    DLS_TRY(dls_comm_barrier(c->comm));
    dls_comm_statistics before = traffic(c);
    DLS_CUDA(cudaEventRecord(from, c->ctx->stream));
    DLS_TRY(pass(c));
    DLS_CUDA(cudaEventRecord(to, c->ctx->stream));
    DLS_TRY(dls_ctx_sync(c->ctx));
    dls_comm_statistics after = traffic(c);
    DLS_CUDA(cudaEventElapsedTime(&ms, from, to));
    DLS_TRY(dls_gpu_memory_stats(c->ctx->device, &memory));
    *r = (result){ms, 1e3 * (after.busy_seconds - before.busy_seconds),
                  (double)(after.wire_bytes - before.wire_bytes),
                  (double)(after.operations - before.operations), 0};
    for (int i = 0; i < DLS_MEM_PURPOSES; i++)
        r->held += (double)memory.current[i];
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    return DLS_OK;
}

/* add a row for a contender */
static const dls_column columns[] = {
    {"cut", NULL}, {"ms", "%.3f"}, {"wire ms", "%.3f"}, {"collectives", "%.0f"},
    {"MB sent", "%.2f"}, {"formula", "%.2f"}, {"MB held", "%.1f"}};

enum { COLUMNS = sizeof columns / sizeof columns[0] };

typedef struct cut { int q, d, turned; } cut;

static const char *name_of(cut c, int p, char text[40])
{
    if (c.q == 0)
        snprintf(text, 40, "1-D over %d", p);
    else
        snprintf(text, 40, "%d x %d x %d%s", c.q, c.q, c.d, c.turned ? " turned" : "");
    return text;
}

static dls_mlp_law law_of(const options *o, cut c, int p)
{
    double M = (double)o->tokens, h = (double)o->channels, f = (double)o->hidden;
    return c.q == 0 ? dls_mlp_law_1d(M, h, f, p)
                    : dls_mlp_law_2d(M, h, f, c.q, c.d, c.turned);
}

/* Bytes that the formula has a rank send, on average, in bf16. */
static double bytes_by(dls_mlp_law law)
{
    return 2 * law.narrow + 4 * law.wide;
}

static dls_status add_row(contender *c, dls_table *t)
{
    int p = dls_comm_size(c->comm);
    char text[40];
    const cut way = {c->q, c->d, c->turned};
    result mine, all[p], most = {0};
    dls_status s = open_contender(c);
    if (s == DLS_OK)
        s = measure(c, &mine);
    close_contender(c);
    DLS_TRY(s);
    DLS_TRY(dls_comm_all_gather_host(c->comm, &mine, sizeof mine, all));
    for (int r = 0; r < p; r++) {
        most.ms = all[r].ms > most.ms ? all[r].ms : most.ms;
        most.wire_ms = all[r].wire_ms > most.wire_ms ? all[r].wire_ms : most.wire_ms;
        most.held = all[r].held > most.held ? all[r].held : most.held;
        most.bytes += all[r].bytes / p;
    }
    dls_table_add_text(t, name_of(way, p, text));
    dls_table_add_real(t, most.ms);
    dls_table_add_real(t, most.wire_ms);
    dls_table_add_real(t, mine.operations);
    dls_table_add_real(t, most.bytes / 1e6);
    dls_table_add_real(t, bytes_by(law_of(c->o, way, p)) / 1e6);
    dls_table_add_real(t, most.held / 1e6);
    return DLS_OK;
}

/* print the formulas */
static void add_law(const options *o, cut c, int p, dls_table *t)
{
    dls_mlp_law law = law_of(o, c, p);
    char text[40];
    dls_table_add_int(t, p);
    dls_table_add_text(t, name_of(c, p, text));
    dls_table_add_real(t, 2 * law.weights / 1e6);
    dls_table_add_real(t, 2 * law.activations / 1e6);
    dls_table_add_real(t, bytes_by(law) / 1e6);
}

static dls_status print_formulas(const options *o)
{
    static const dls_column law[] = {{"ranks", NULL}, {"cut", NULL},
                                     {"weights MB", "%.1f"}, {"kept MB", "%.1f"},
                                     {"MB sent", "%.1f"}};
    dls_table *t;
    DLS_TRY(dls_table_create(&t, law, 5));
    for (int p = 4; p <= 64; p *= 4) {
        add_law(o, (cut){0, 1, 0}, p, t);
        for (int q = 8; q >= 1; q /= 2)
            for (int turned = 0; p % (q * q) == 0 && turned <= (q > 1); turned++)
                add_law(o, (cut){q, p / (q * q), turned}, p, t);
    }
    dls_status s = dls_table_print(t, stdout, o->json);
    dls_table_free(t);
    return s;
}

/* run the summa command */
static dls_status run_all(const options *o, dls_comm *comm, dls_ctx *ctx)
{
    int p = dls_comm_size(comm);
    dls_table *t;
    DLS_TRY(dls_ctx_create(ctx, dls_gpu_local_rank(), DLS_BF16));
    DLS_TRY(dls_table_create(&t, columns, COLUMNS));
    dls_status s = DLS_OK;
    for (int i = 0; s == DLS_OK && i / 2 * (i / 2) <= p; i++) {
        int q = i / 2, turned = i % 2;
        contender c = {.o = o, .comm = comm, .ctx = ctx, .q = q,
                       .d = q ? p / (q * q) : 1, .turned = turned};
        if (turned ? q > 1 && p % (q * q) == 0 : q == 0 || p % (q * q) == 0)
            s = add_row(&c, t);
    }
    if (s == DLS_OK && dls_comm_rank(comm) == 0)
        s = dls_table_print(t, stdout, o->json);
    dls_table_free(t);
    return s;
}

dls_status dls_summa_command(int argc, char **argv, int *exit_code)
{
    options o = {.tokens = 4096, .channels = 2048};
    const dls_gpu_options timed = {.kernels = DLS_KERNELS_TIMED};
    dls_comm *comm = NULL;
    dls_ctx ctx = {0};
    int helped;
    (void)exit_code;
    DLS_TRY(parse(argc, argv, &o, &helped));
    if (helped || o.formulas)
        return helped ? DLS_OK : print_formulas(&o);
    DLS_TRY(dls_gpu_init(&timed));
    DLS_TRY(dls_comm_create(&comm, NULL));
    dls_status s = run_all(&o, comm, &ctx);
    dls_ctx_destroy(&ctx);
    dls_comm_destroy(comm);
    return s;
}
