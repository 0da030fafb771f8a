/* code/parallel/tensor/block_command.c: from chapters/06-tensor-parallelism-cost.md. Edit the chapter, or edit here and run "make untangle". */
/* Options, one timed block, a line per pass, and a drawing if one is wanted. */
#include "parallel/tensor/block_command.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/args.h"
#include "base/table.h"
#include "parallel/tensor/timed_block.h"
#include "vgpu/gpu.h"
#include "vgpu/trace.h"

/* describe the options of block */
typedef struct wanted {
    int64_t channels, head_size, kv_heads, hidden, tokens, batch, chunks;
    const char *family, *timeline;
    int sequence, json;
} wanted;

static dls_status parse(int argc, char **argv, wanted *w, int *helped)
{
    const dls_arg args[] = {
        {"--family", DLS_ARG_STRING, &w->family, "NAME", "gpt2 or llama (gpt2)"},
        {"--channels", DLS_ARG_INT, &w->channels, "C", "of a token (4096)"},
        {"--head-size", DLS_ARG_INT, &w->head_size, "D", "columns of a head (128)"},
        {"--kv-heads", DLS_ARG_INT, &w->kv_heads, "K", "of keys and values (as many)"},
        {"--hidden", DLS_ARG_INT, &w->hidden, "F", "inside the MLP (4 C)"},
        {"--tokens", DLS_ARG_INT, &w->tokens, "T", "of a sequence (2048)"},
        {"--batch", DLS_ARG_INT, &w->batch, "B", "sequences (1)"},
        {"--sequence", DLS_ARG_FLAG, &w->sequence, NULL, "cut the rows between, too"},
        {"--chunks", DLS_ARG_INT, &w->chunks, "K", "overlap sums and products in K (1)"},
        {"--timeline", DLS_ARG_STRING, &w->timeline, "FILE", "draw it (SVG)"},
        {"--json", DLS_ARG_FLAG, &w->json, NULL, "print JSON"}};
    const dls_args spec = {"dls block", "Times a block cut over all ranks, in bf16.",
                           "dls run -n 8 -- block --channels 12288", args,
                           sizeof args / sizeof args[0]};
    return dls_args_parse(&spec, argc, argv, helped);
}

static dls_status in_range(const char *option, int64_t value, int64_t most)
{
    return value >= 1 && value <= most ? DLS_OK
        : DLS_FAIL(DLS_ERR_INPUT, "dls block: %s: expected 1 to %lld, got %lld", option,
                   (long long)most, (long long)value);
}

static dls_status describe(const wanted *w, int ranks, int rank,
                           dls_transformer_config *c)
{
    int llama = strcmp(w->family, "llama") == 0, C = (int)w->channels;
    DLS_TRY(in_range("--channels", w->channels, 1 << 16));
    DLS_TRY(in_range("--head-size", w->head_size, 512));
    DLS_TRY(in_range("--tokens", w->tokens, 1 << 20));
    DLS_TRY(in_range("--batch", w->batch, 1 << 12));
    DLS_TRY(in_range("--chunks", w->chunks, 1 << 8));
    if (!llama && strcmp(w->family, "gpt2") != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "dls block: --family: expected gpt2 or llama, got "
                        "\"%.40s\"", w->family);
    if (C % w->head_size != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "dls block: --head-size: expected a divisor of "
                        "the %d channels, got %lld", C, (long long)w->head_size);
    int H = C / (int)w->head_size, V = ranks > 2 ? ranks : 2, T = (int)w->tokens;
    *c = llama ? dls_transformer_llama(V, T, 1, H, H, C, 4 * C)
               : dls_transformer_gpt2(V, T, 1, H, C);
    c->kv_heads = w->kv_heads ? (int)w->kv_heads : H;
    c->hidden = w->hidden ? (int)w->hidden : c->hidden;
    c->sharding = (dls_sharding){.tensor = ranks, .tensor_rank = rank,
                                 .sequence = w->sequence, .chunks = (int)w->chunks};
    return dls_transformer_config_check(c);
}

/* print the times of a block */
typedef struct times { dls_block_pass pass[2]; } times;

static void add_pass(dls_table *t, int ranks, int backward, const times *all)
{
    dls_block_pass most = {0};
    for (int i = 0; i < ranks; i++) {
        const dls_block_pass *p = &all[i].pass[backward];
        most.seconds = p->seconds > most.seconds ? p->seconds : most.seconds;
        most.sums = p->sums > most.sums ? p->sums : most.sums;
        most.bytes = p->bytes > most.bytes ? p->bytes : most.bytes;
        most.operations = p->operations;
    }
    dls_table_add_text(t, backward ? "backward" : "forward");
    dls_table_add_real(t, most.seconds * 1e3);
    dls_table_add_int(t, (int64_t)most.operations);
    dls_table_add_real(t, (double)most.bytes / 1e6);
    dls_table_add_real(t, most.sums * 1e3);
    dls_table_add_real(t, 100 * most.sums / most.seconds);
}

static dls_status print_times(const wanted *w, dls_comm *comm, const times *mine)
{
    static const dls_column columns[] = {
        {"ranks", NULL}, {"channels", NULL}, {"pass", NULL}, {"ms", "%.3f"},
        {"collectives", NULL}, {"sent MB", "%.1f"}, {"under way ms", "%.3f"},
        {"% of the time", "%.1f"}};
    int ranks = dls_comm_size(comm);
    times all[ranks];
    dls_table *t;
    DLS_TRY(dls_comm_all_gather_host(comm, mine, sizeof *mine, all));
    if (dls_comm_rank(comm) != 0)
        return DLS_OK;
    DLS_TRY(dls_table_create(&t, columns, 8));
    for (int backward = 0; backward < 2; backward++) {
        dls_table_add_int(t, ranks);
        dls_table_add_int(t, w->channels);
        add_pass(t, ranks, backward, all);
    }
    dls_status s = dls_table_print(t, stdout, w->json);
    dls_table_free(t);
    return s;
}

/* draw a block */
static dls_status draw(const char *path, dls_comm *comm)
{
    int ranks = dls_comm_size(comm);
    char names[ranks][300];
    const char *list[ranks];
    for (int i = 0; i < ranks; i++) {
        snprintf(names[i], sizeof names[i], "%.250s.rank-%d.json", path, i);
        list[i] = names[i];
    }
    DLS_TRY(dls_trace_save(list[dls_comm_rank(comm)]));
    DLS_TRY(dls_comm_barrier(comm));
    dls_status s = dls_comm_rank(comm) != 0 ? DLS_OK
        : dls_trace_merge(list, ranks, NULL, path, 0, 0);
    for (int i = 0; i < ranks && dls_comm_rank(comm) == 0; i++)
        unlink(names[i]);
    return s;
}

/* run the block command */
static dls_status run(const wanted *w, dls_comm *comm)
{
    int ranks = dls_comm_size(comm), rank = dls_comm_rank(comm);
    dls_transformer_config c;
    dls_ctx ctx;
    times mine;
    DLS_TRY(describe(w, ranks, rank, &c));
    DLS_TRY(dls_ctx_create(&ctx, dls_gpu_local_rank(), DLS_BF16));
    dls_gpu_name_stream(ctx.stream, "compute");
    dls_status s = dls_time_block(&ctx, &c, (int)w->batch, (int)w->tokens,
                                  ranks > 1 ? comm : NULL, w->timeline != NULL,
                                  &mine.pass[0], &mine.pass[1]);
    if (s == DLS_OK)
        s = print_times(w, comm, &mine);
    if (s == DLS_OK && w->timeline)
        s = draw(w->timeline, comm);
    dls_ctx_destroy(&ctx);
    return s;
}

dls_status dls_block_command(int argc, char **argv, int *exit_code)
{
    wanted w = {.family = "gpt2", .channels = 4096, .head_size = 128, .tokens = 2048,
                .batch = 1, .chunks = 1};
    const dls_gpu_options timed = {.kernels = DLS_KERNELS_TIMED};
    dls_comm *comm;
    int helped;
    DLS_TRY(parse(argc, argv, &w, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(dls_gpu_init(&timed));
    DLS_TRY(dls_comm_create(&comm, NULL));
    dls_status s = run(&w, comm);
    if (s == DLS_ERR_INPUT && dls_comm_rank(comm) > 0) {
        sleep(5);               // every rank finds it: rank 0 says it
        *exit_code = 2;
        s = DLS_OK;
    }
    dls_comm_destroy(comm);
    return s;
}
