/* code/parallel/context/context_command.c: from chapters/06-context-parallelism-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* Options, one attention in every way and order, a table. Runs on every rank of a job;
 * rank 0 prints. */
#include "parallel/context/context_command.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "base/table.h"
#include "layers/context.h"
#include "layers/param.h"
#include "layers/token_order.h"
#include "parallel/context/laws.h"
#include "vgpu/trace.h"

/* describe a timed context */
typedef struct options {
    int64_t tokens, heads, kv_heads, head_size, ulysses;
    const char *way, *order, *dtype, *timeline;
    int full, tensor_cores, json;
} options;

typedef struct bench {
    const options *o;
    dls_comm *comm;
    dls_ctx ctx;
    int n, rank;
    double one[2];              // seconds of one device, forward and backward
    dls_table *table;
} bench;

static const char *const ways[] = {"ring", "ulysses", "gather"};

/* charge for tensor cores */
static dls_status charge(dls_ctx *ctx, const char *name, const dls_attention_shape *given,
                         double products)
{
    dls_attention_shape s = *given;
    dls_gpu_op op = {.name = name, .kind = DLS_GPU_COMPUTE, .planned = 1};
    DLS_TRY(dls_attention_complete(&s));
    double rows = 2 * (s.tokens_q * s.H + s.tokens_k * s.Hk);
    dls_gpu_cost_of(DLS_WORK_ATTENTION_BF16, name, 2 * products * s.pairs * s.H * s.D,
                    rows * s.D * dls_dtype_size(ctx->dtype));
    DLS_CUDA(dls_gpu_enqueue(ctx->stream, &op, NULL));
    return DLS_OK;
}

static dls_status charge_forward(dls_ctx *ctx, const dls_attention_shape *s, void *out,
                                 void *lse, const void *q, const void *k, const void *v)
{
    (void)out, (void)lse, (void)q, (void)k, (void)v;
    return charge(ctx, "attention", s, 2);
}

static dls_status charge_backward(dls_ctx *ctx, const dls_attention_shape *s, void *dq,
                                  void *dk, void *dv, void *temporary, const void *dout,
                                  const void *q, const void *k, const void *v,
                                  const void *out, const void *lse)
{
    (void)dq, (void)dk, (void)dv, (void)temporary, (void)dout, (void)q, (void)k, (void)v;
    (void)out, (void)lse;
    return charge(ctx, "attention backward", s, 5);
}

static const dls_context_functions tensor_cores = {charge_forward, charge_backward,
                                                   dls_attention_temporary, 1};

/* describe a timed attention */
static dls_context context_of(const bench *b, const dls_axes *axes)
{
    const options *o = b->o;
    return (dls_context){
        .axes = axes, .functions = o->tensor_cores ? &tensor_cores : NULL,
        .shape = {.B = 1, .Tq = (int)o->tokens, .Tk = (int)o->tokens, .H = (int)o->heads,
                  .Hk = (int)o->kv_heads, .D = (int)o->head_size, .causal = !o->full}};
}

/* hold the arrays of a context */
enum { Q, K, V, OUT, DOUT, DQ, DK, DV, KEPT, TEMPORARY, ARRAYS };

typedef struct arrays { char *at[ARRAYS], *memory; size_t kept, temporary; } arrays;

static dls_status take_arrays(const bench *b, const dls_context *c, arrays *a)
{
    const dls_attention_shape *s = &c->shape;
    size_t row = (size_t)dls_context_rows(c) * s->D * dls_dtype_size(b->ctx.dtype);
    size_t bytes[ARRAYS], all = 0;
    /* size the arrays of a context */
    for (int i = 0; i < KEPT; i++)
        bytes[i] = row * (i == K || i == V || i == DK || i == DV ? s->Hk : s->H);
    bytes[KEPT] = a->kept = dls_context_kept(c, b->ctx.dtype);
    bytes[TEMPORARY] = a->temporary = dls_context_temporary(c, b->ctx.dtype, 1);
    for (int i = 0; i < ARRAYS; i++)
        all += (bytes[i] + 255) / 256 * 256;
    DLS_TRY(dls_flat_buffer((void **)&a->memory, all, DLS_MEM_ACTIVATIONS));
    all = 0;
    for (int i = 0; i < ARRAYS; i++) {
        a->at[i] = a->memory + all;
        all += (bytes[i] + 255) / 256 * 256;
    }
    return DLS_OK;
}

/* time a context */
static dls_status pass(bench *b, const dls_context *c, const arrays *a, int backward)
{
    char *const *at = a->at;
    if (!backward)
        return dls_context_forward(&b->ctx, c, at[OUT], at[KEPT], at[TEMPORARY], at[Q],
                                   at[K], at[V]);
    return dls_context_backward(&b->ctx, c, at[DQ], at[DK], at[DV], at[TEMPORARY],
                                at[DOUT], at[Q], at[K], at[V], at[OUT], at[KEPT]);
}

static dls_status time_pass(bench *b, const dls_context *c, const arrays *a, int backward,
                            double *seconds)
{
    double all[b->n], mine;
    /* set the clocks of all ranks */
    DLS_TRY(dls_ctx_sync(&b->ctx));
    mine = dls_gpu_host_time();
    DLS_TRY(dls_comm_all_gather_host(b->comm, &mine, sizeof mine, all));
    double start = dls_gpu_host_time();
    DLS_TRY(pass(b, c, a, backward));
    DLS_TRY(dls_ctx_sync(&b->ctx));
    mine = dls_gpu_host_time() - start;
    DLS_TRY(dls_comm_all_gather_host(b->comm, &mine, sizeof mine, all));
    *seconds = 0;
    for (int i = 0; i < b->n; i++)
        *seconds = all[i] > *seconds ? all[i] : *seconds;
    return DLS_OK;
}

// Both passes, and before them once for memory that is taken by the first one.
static dls_status time_both(bench *b, const dls_context *c, const arrays *a,
                            double seconds[2])
{
    DLS_TRY(time_pass(b, c, a, 0, &seconds[0]));
    DLS_TRY(time_pass(b, c, a, 1, &seconds[1]));
    if (b->o->timeline && c->axes)
        dls_trace_enable(1);
    DLS_TRY(time_pass(b, c, a, 0, &seconds[0]));
    DLS_TRY(time_pass(b, c, a, 1, &seconds[1]));
    dls_trace_enable(0);
    return DLS_OK;
}

/* trace a context */
static dls_status trace_to(const bench *b, const char *path)
{
    char paths[b->n][PATH_MAX];
    const char *list[b->n];
    for (int i = 0; i < b->n; i++) {
        snprintf(paths[i], sizeof paths[i], "%s.rank-%d.json", path, i);
        list[i] = paths[i];
    }
    DLS_TRY(dls_trace_save(paths[b->rank]));
    dls_trace_clear();
    DLS_TRY(dls_comm_barrier(b->comm));
    if (b->rank > 0)
        return DLS_OK;
    dls_status s = dls_trace_merge(list, b->n, NULL, path, 0, 0);
    for (int i = 0; i < b->n; i++)
        unlink(paths[i]);
    return s;
}

/* tell of a context */
static const dls_column columns[] = {
    {"way", NULL}, {"tokens", NULL}, {"forward ms", "%.3f"}, {"efficiency", "%.3f"},
    {"backward ms", "%.3f"}, {"its efficiency", "%.3f"}, {"formula", "%.3f"},
    {"sent MB", "%.2f"}, {"by formula", "%.2f"}, {"kept MB", "%.2f"},
    {"buffers MB", "%.2f"}};

// What this rank has sent along both dimensions.
static double sent_by(const dls_axes *a)
{
    double bytes = 0;
    bytes += a->ring ? (double)dls_comm_stats(a->ring).wire_bytes : 0;
    return bytes + (a->ulysses ? (double)dls_comm_stats(a->ulysses).wire_bytes : 0);
}

static void tell(bench *b, const dls_axes *a, const arrays *x, const double seconds[2],
                 double sent)
{
    const options *o = b->o;
    dls_dtype type = b->ctx.dtype;
    dls_context_sizes s = {(double)o->tokens, (int)o->heads, (int)o->kv_heads,
                           (int)o->head_size, (double)dls_dtype_size(type),
                           (double)dls_dtype_size(dls_dtype_accumulator(type))};
    /* fill in a line of the context */
    dls_token_order order = a->sharding.order;
    dls_table_add_text(b->table, ways[a->sharding.way]);
    dls_table_add_text(b->table, dls_token_order_name(order));
    for (int backward = 0; backward < 2; backward++) {
        dls_table_add_real(b->table, seconds[backward] * 1e3);
        dls_table_add_real(b->table, b->one[backward] / (b->n * seconds[backward]));
    }
    int u = a->sharding.way == DLS_CONTEXT_ULYSSES ? b->n : a->sharding.ulysses;
    u = u > 1 ? u : 1;
    int members = o->full ? 1 : b->n / u;           // that can wait for each other
    /* add laws and memory */
    dls_table_add_real(b->table, dls_context_law_efficiency(order, members));
    dls_table_add_real(b->table, sent / 1e6);
    dls_table_add_real(b->table, (dls_context_law_sent(&a->sharding, &s, 0) +
                                  dls_context_law_sent(&a->sharding, &s, 1)) / 1e6);
    dls_table_add_real(b->table, x->kept / 1e6);
    dls_table_add_real(b->table, x->temporary / 1e6);
}

/* walk over ways and orders */
static dls_status measure(bench *b, dls_axes *axes)
{
    dls_context c = context_of(b, axes);
    arrays a = {0};
    double seconds[2], before = 0;
    dls_status s = dls_context_check(&c);
    if (s == DLS_OK)
        s = take_arrays(b, &c, &a);
    before = axes ? sent_by(axes) : 0;
    if (s == DLS_OK)
        s = time_both(b, &c, &a, seconds);
    dls_device_free(a.memory);
    DLS_TRY(s);
    if (!axes) {
        memcpy(b->one, seconds, sizeof seconds);
        return DLS_OK;
    }
    /* tell and trace */
    tell(b, axes, &a, seconds, (sent_by(axes) - before) / 2);   // it ran twice
    return b->o->timeline ? trace_to(b, b->o->timeline) : DLS_OK;
}

static int asked(const char *word, const char *name)
{
    return strcmp(word, "all") == 0 || strcmp(word, name) == 0;
}

static dls_status measure_way(bench *b, int way)
{
    dls_axes axes;
    const options *o = b->o;
    dls_sharding by = {.context = b->n, .context_rank = b->rank,
                       .way = (dls_context_way)way,
                       .ulysses = way == DLS_CONTEXT_ULYSSES ? 0 : (int)o->ulysses};
    DLS_TRY(dls_axes_open(&axes, &by, (int)o->kv_heads, NULL, b->comm));
    DLS_CUDA(dls_gpu_name_stream(axes.stream, "the ring"));
    dls_status s = DLS_OK;
    for (int i = 0; s == DLS_OK && i < DLS_TOKEN_ORDERS; i++) {
        /* measure an order */
        axes.sharding.order = (dls_token_order)i;
        int fits = i != DLS_TOKENS_STRIPED || o->ulysses <= 1 || b->n == o->ulysses ||
                   way == DLS_CONTEXT_ULYSSES || strcmp(o->order, "all") != 0;
        if (asked(o->order, dls_token_order_name((dls_token_order)i)) && fits)
            s = measure(b, &axes);
    }
    (void)dls_ctx_sync(&b->ctx);
    dls_axes_close(&axes);
    return s;
}

static dls_status measure_all(bench *b)
{
    const options *o = b->o;
    int64_t kv = o->kv_heads;
    int fits = o->heads % b->n == 0 && (kv % b->n == 0 || b->n % kv == 0);
    DLS_TRY(dls_table_create(&b->table, columns, sizeof columns / sizeof *columns));
    DLS_TRY(measure(b, NULL));
    for (int way = 0; way < 3; way++)
        if (asked(o->way, ways[way]) &&
            (way != DLS_CONTEXT_ULYSSES || fits || strcmp(o->way, "all") != 0))
            DLS_TRY(measure_way(b, way));
    if (b->rank > 0)
        return DLS_OK;
    /* head the table of ways */
    if (!o->json)
        printf("%lld tokens, %lld heads (%lld of keys) of %lld, %s, %d ranks; one device "
               "takes %.3f ms and %.3f ms\n", (long long)o->tokens, (long long)o->heads,
               (long long)kv, (long long)o->head_size, o->dtype, b->n, b->one[0] * 1e3,
               b->one[1] * 1e3);
    return dls_table_print(b->table, stdout, o->json);
}

/* run the context command */
static dls_status check(const options *o, dls_dtype *type)
{
    const int64_t far = 1 << 24;
    *type = strcmp(o->dtype, "bf16") == 0 ? DLS_BF16
            : strcmp(o->dtype, "f32") == 0 ? DLS_F32 : DLS_F64;
    if (*type == DLS_F64 && strcmp(o->dtype, "f64") != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "dls context: --dtype: expected bf16, f32 or f64, "
                        "got \"%s\"", o->dtype);
    if (o->tokens < 1 || o->tokens > far || o->heads < 1 || o->heads > 4096 ||
        o->kv_heads < 1 || o->heads % o->kv_heads || o->head_size < 1 ||
        o->head_size > 256 || o->ulysses < 0 || o->ulysses > 1024)
        return DLS_FAIL(DLS_ERR_INPUT, "dls context: expected 1 to %lld --tokens, "
                        "--heads that are a multiple of --kv-heads, and a --head-size up "
                        "to 256", (long long)far);
    if (o->tensor_cores && *type != DLS_BF16)
        return DLS_FAIL(DLS_ERR_INPUT, "dls context: --tensor-cores: expected --dtype "
                        "bf16, got %s", o->dtype);
    /* check the names of ways and orders */
    int known = 0;
    for (int i = 0; i < 3; i++)
        known |= asked(o->way, ways[i]) |
                 asked(o->order, dls_token_order_name((dls_token_order)i)) << 1;
    if (known != 3)
        return DLS_FAIL(DLS_ERR_INPUT, "dls context: expected --way ring, ulysses, "
                        "gather or all and --order zigzag, contiguous, striped or all");
    return DLS_OK;
}

static dls_status parse(int argc, char **argv, options *o, int *helped)
{
    const dls_arg args[] = {
        {"--tokens", DLS_ARG_INT, &o->tokens, "T", "of the sequence (65536)"},
        {"--heads", DLS_ARG_INT, &o->heads, "H", "of queries (8)"},
        {"--kv-heads", DLS_ARG_INT, &o->kv_heads, "K", "of keys and values (2)"},
        {"--head-size", DLS_ARG_INT, &o->head_size, "D", "(128)"},
        {"--dtype", DLS_ARG_STRING, &o->dtype, "TYPE", "bf16, f32 or f64"},
        {"--way", DLS_ARG_STRING, &o->way, "WAY", "ring, ulysses, gather (all)"},
        {"--order", DLS_ARG_STRING, &o->order, "O", "zigzag, contiguous, striped (all)"},
        {"--ulysses", DLS_ARG_INT, &o->ulysses, "U", "ranks of groups in the ring"},
        {"--full", DLS_ARG_FLAG, &o->full, NULL, "every query sees every key"},
        {"--tensor-cores", DLS_ARG_FLAG, &o->tensor_cores, NULL, "at their rate (bf16)"},
        {"--timeline", DLS_ARG_STRING, &o->timeline, "FILE", "draw the last as SVG"},
        {"--json", DLS_ARG_FLAG, &o->json, NULL, "print JSON"}};
    const dls_args spec = {"dls context", "Times an attention whose tokens are spread "
                           "over ranks.", "dls run -n 4 -- context --tokens 65536", args,
                           sizeof args / sizeof args[0]};
    return dls_args_parse(&spec, argc, argv, helped);
}

static dls_status run(bench *b, dls_dtype type)
{
    b->n = dls_comm_size(b->comm);
    b->rank = dls_comm_rank(b->comm);
    DLS_TRY(dls_ctx_create(&b->ctx, dls_gpu_local_rank(), type));
    DLS_CUDA(dls_gpu_name_stream(b->ctx.stream, "attention"));
    return measure_all(b);
}

dls_status dls_context_command(int argc, char **argv, int *exit_code)
{
    options o = {.tokens = 65536, .heads = 8, .kv_heads = 2, .head_size = 128,
                 .way = "all", .order = "all", .dtype = "bf16"};
    const dls_gpu_options timed = {.kernels = DLS_KERNELS_TIMED};
    bench b = {.o = &o};
    dls_dtype type;
    int helped;
    DLS_TRY(parse(argc, argv, &o, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(check(&o, &type));
    DLS_TRY(dls_gpu_init(&timed));
    DLS_TRY(dls_comm_create(&b.comm, NULL));
    dls_status s = run(&b, type);
    /* leave the message to rank 0 */
    if (s == DLS_ERR_INPUT && b.rank > 0) {
        sleep(5);               // every rank finds it: rank 0 says it
        *exit_code = 2;
        s = DLS_OK;
    }
    dls_table_free(b.table);
    dls_ctx_destroy(&b.ctx);
    dls_comm_destroy(b.comm);
    return s;
}
