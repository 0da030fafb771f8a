/* code/parallel/tensor/activations_command.c: from chapters/06-sequence-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Two tables: the arrays of a block, and its sums under every way of cutting. */
#include "parallel/tensor/activations_command.h"

#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "base/table.h"
#include "parallel/tensor/activation_laws.h"

/* describe the wanted block */
typedef struct wanted {
    int64_t heads, kv_heads, channels, hidden, tokens, batch, tensor;
    const char *family, *recompute, *dtype;
    int sequence, ways, json;
} wanted;

static dls_status choose(const char *option, const char *word, const char *const *words,
                         int count, int *out)
{
    for (*out = 0; *out < count; ++*out)
        if (strcmp(word, words[*out]) == 0)
            return DLS_OK;
    return DLS_FAIL(DLS_ERR_INPUT, "dls activations: %s: expected %s%s%s%s%s, got "
                    "\"%.40s\"", option, words[0], count > 2 ? ", " : " or ", words[1],
                    count > 2 ? " or " : "", count > 2 ? words[2] : "", word);
}

static dls_status divides(const char *option, int64_t value, int64_t by)
{
    return value % by == 0 ? DLS_OK
        : DLS_FAIL(DLS_ERR_INPUT, "dls activations: %s: expected a multiple of %lld, got "
                   "%lld", option, (long long)by, (long long)value);
}

static dls_status check_sizes(const wanted *w)
{
    const struct { const char *name; int64_t value; } sizes[] = {
        {"--heads", w->heads}, {"--channels", w->channels}, {"--tokens", w->tokens},
        {"--batch", w->batch}, {"--tensor", w->tensor}};
    for (int i = 0; i < 5; i++)
        if (sizes[i].value < 1 || sizes[i].value > 1 << 28)
            return DLS_FAIL(DLS_ERR_INPUT, "dls activations: %s: expected a number from "
                            "1 to %d, got %lld", sizes[i].name, 1 << 28,
                            (long long)sizes[i].value);
    if (w->kv_heads < 0 || w->kv_heads > w->heads || w->hidden < 0)
        return DLS_FAIL(DLS_ERR_INPUT, "dls activations: %s: expected a number from 1%s",
                        w->hidden < 0 ? "--hidden" : "--kv-heads",
                        w->hidden < 0 ? "" : " to that of the heads");
    DLS_TRY(divides("--channels", w->channels, w->heads));
    DLS_TRY(divides("--heads", w->heads, w->tensor));
    if (w->kv_heads > 0)
        DLS_TRY(divides("--heads", w->heads, w->kv_heads));
    return w->sequence || w->ways ? divides("--tokens", w->tokens, w->tensor) : DLS_OK;
}

static dls_status describe(const wanted *w, dls_transformer_config *c, dls_kept_case *at)
{
    static const char *const families[] = {"gpt2", "llama"};
    static const char *const recompute[] = {"none", "selective", "full"};
    static const char *const types[] = {"bf16", "f32", "f64"};
    static const dls_dtype dtype[] = {DLS_BF16, DLS_F32, DLS_F64};
    int llama, way, type, C = (int)w->channels, H = (int)w->heads;
    int Hk = w->kv_heads ? (int)w->kv_heads : H, F = (int)w->hidden;
    DLS_TRY(check_sizes(w));
    DLS_TRY(choose("--family", w->family, families, 2, &llama));
    DLS_TRY(choose("--recompute", w->recompute, recompute, 3, &way));
    DLS_TRY(choose("--dtype", w->dtype, types, 3, &type));
    *c = llama ? dls_transformer_llama(2, (int)w->tokens, 1, H, Hk, C, F ? F : 4 * C)
               : dls_transformer_gpt2(2, (int)w->tokens, 1, H, C);
    c->kv_heads = Hk;
    c->hidden = F ? F : c->hidden;
    c->recompute = (dls_recompute)way;
    c->sharding = (dls_sharding){.tensor = (int)w->tensor, .sequence = w->sequence};
    *at = (dls_kept_case){(size_t)w->batch, (size_t)w->tokens, dtype[type]};
    DLS_TRY(divides("--hidden", c->hidden, w->tensor));
    return Hk >= w->tensor ? divides("--kv-heads", Hk, w->tensor)
                           : divides("--tensor", w->tensor, Hk);
}

/* print the arrays of a block */
static void add_array(dls_table *t, const char *what, const char *why, double paper,
                      double bytes, double sbh)
{
    dls_table_add_text(t, what);
    dls_table_add_real(t, paper / sbh);
    dls_table_add_real(t, bytes / sbh);
    dls_table_add_real(t, paper);
    dls_table_add_real(t, bytes);
    dls_table_add_text(t, why);
}

static dls_status print_arrays(const dls_transformer_config *c, const dls_kept_case *at,
                               int json)
{
    static const dls_column columns[] = {
        {"kept", NULL}, {"paper/sbh", "%.4f"}, {"here/sbh", "%.4f"},
        {"paper bytes", "%.0f"}, {"here bytes", "%.0f"}, {"why", NULL}};
    double sbh = (double)at->B * at->T * c->channels;
    dls_kept k[DLS_KEPT_ARRAYS];
    dls_table *t;
    DLS_TRY(dls_table_create(&t, columns, 6));
    dls_kept_by_block(c, at, k);
    for (int i = 0; i < DLS_KEPT_ARRAYS; i++)
        add_array(t, k[i].what, k[i].why, k[i].paper, (double)k[i].bytes, sbh);
    add_array(t, "all", NULL, dls_kept_paper(c, at), (double)dls_kept_bytes(c, at), sbh);
    dls_status s = dls_table_print(t, stdout, json);
    dls_table_free(t);
    return s;
}

/* print the ways of cutting */
static void add_way(dls_table *t, dls_transformer_config c, dls_kept_case at,
                    dls_recompute recompute, int tensor, int sequence)
{
    static const char *const names[] = {"none", "selective", "full"};
    double gib = 1 << 30;
    c.recompute = recompute;
    c.sharding = (dls_sharding){.tensor = tensor, .sequence = sequence};
    double law = dls_law_activations(recompute, tensor, sequence, (double)at.T,
                                     (double)at.B, c.channels, c.heads);
    dls_table_add_int(t, tensor);
    dls_table_add_text(t, sequence ? "cut" : "whole");
    dls_table_add_text(t, names[recompute]);
    dls_table_add_real(t, law / gib);
    dls_table_add_real(t, (double)dls_kept_bytes(&c, &at) / gib);
    dls_table_add_int(t, (int64_t)dls_kept_bytes(&c, &at));
}

static dls_status print_ways(const dls_transformer_config *c, const dls_kept_case *at,
                             int json)
{
    static const dls_column columns[] = {
        {"tensor", NULL}, {"rows", NULL}, {"recompute", NULL}, {"paper GiB", "%.3f"},
        {"here GiB", "%.3f"}, {"here bytes", NULL}};
    dls_table *t;
    DLS_TRY(dls_table_create(&t, columns, 6));
    add_way(t, *c, *at, DLS_RECOMPUTE_NONE, 1, 0);
    for (int i = 0; i < 2; i++)
        for (int sequence = 0; sequence < 2; sequence++)
            add_way(t, *c, *at, (dls_recompute)i, c->sharding.tensor, sequence);
    add_way(t, *c, *at, DLS_RECOMPUTE_FULL, c->sharding.tensor, 0);
    add_way(t, *c, *at, DLS_RECOMPUTE_FULL, c->sharding.tensor, 1);
    dls_status s = dls_table_print(t, stdout, json);
    dls_table_free(t);
    return s;
}

/* run the activations command */
dls_status dls_activations_command(int argc, char **argv, int *exit_code)
{
    wanted w = {.tokens = 1024, .batch = 1, .tensor = 1, .family = "gpt2",
                .recompute = "none", .dtype = "bf16", .heads = 12, .channels = 768};
    int helped;
    dls_transformer_config c;
    dls_kept_case at;
    const dls_arg args[] = {
        {"--family", DLS_ARG_STRING, &w.family, "NAME", "gpt2 or llama"},
        {"--heads", DLS_ARG_INT, &w.heads, "A", "of queries"},
        {"--kv-heads", DLS_ARG_INT, &w.kv_heads, "K", "of keys; as many"},
        {"--channels", DLS_ARG_INT, &w.channels, "H", "of a token"},
        {"--hidden", DLS_ARG_INT, &w.hidden, "F", "inside the MLP; 4 times as many"},
        {"--tokens", DLS_ARG_INT, &w.tokens, "S", "of a sequence"},
        {"--batch", DLS_ARG_INT, &w.batch, "B", "sequences of a micro-batch"},
        {"--tensor", DLS_ARG_INT, &w.tensor, "T", "ranks that share the products"},
        {"--sequence", DLS_ARG_FLAG, &w.sequence, NULL, "and the rows between them"},
        {"--recompute", DLS_ARG_STRING, &w.recompute, "WAY", "none, selective or full"},
        {"--dtype", DLS_ARG_STRING, &w.dtype, "TYPE", "bf16, f32 or f64"},
        {"--ways", DLS_ARG_FLAG, &w.ways, NULL, "only the sums, every way"},
        {"--json", DLS_ARG_FLAG, &w.json, NULL, "print JSON"}};
    const dls_args spec = {"dls activations", "Prints what a block keeps for its "
                           "backward pass.", "dls activations --heads 96 --channels "
                           "12288 --tokens 2048 --tensor 8 --ways", args,
                           sizeof args / sizeof args[0]};
    (void)exit_code;
    DLS_TRY(dls_args_parse(&spec, argc, argv, &helped));
    if (helped)
        return DLS_OK;
    DLS_TRY(describe(&w, &c, &at));
    return w.ways ? print_ways(&c, &at, w.json) : print_arrays(&c, &at, w.json);
}
