/* code/cli/router.c: from chapters/08-router-command.md. Edit the chapter, or edit here and run "make untangle". */
/* dls router: one router on given or drawn scores; who goes where, and what it costs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/table.h"
#include "cli/command.h"
#include "layers/router.h"

/* describe a run of the router */
typedef struct options {
    int64_t tokens, experts, chosen, sequence, groups, group_limit, seed, steps, show;
    double scale, capacity, skew, rate;
    const char *gate, *scores;
    int plain, padded, json;
} options;

/* A router with everything it works on: device arrays, and copies of them. */
typedef struct run {
    const options *o;
    dls_ctx ctx;                // f64
    dls_router r;
    double *s;                  // (N, E)
    int *ints;                  // device: index, place, counts, chosen
    double *reals;              // device: scores, weights, bias, tally, values
    int *index, *place, *counts, *chosen;           // device
    double *scores, *weights, *bias, *tally, *values;   // device
    dls_load load;
    double *each;               // (E) chosen, (E) dropped, (E) bias: on the host
} run;
/* draw the scores */
static dls_status draw_scores(run *x)
{
    const options *o = x->o;
    size_t E = o->experts, n = o->tokens * E;
    x->s = malloc((n + 1) * sizeof *x->s);
    if (!x->s)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %zu scores", n);
    for (size_t i = 0; i < n; i++)
        x->s[i] = dls_rng_normal(o->seed, 1, i)
                + o->skew * dls_rng_normal(o->seed, 2, i % E);
    return DLS_OK;
}
/* read the scores */
/* Reads numbers from *text to the end of its line; how many, or -1 for other words. */
static int read_line(char **text, double *to, int room)
{
    int n = 0;
    char *end = *text + strcspn(*text, "\n");
    for (char *at = *text; (at += strspn(at, " \t\r")) < end && *at != '#';) {
        char *next;
        double value = strtod(at, &next);
        if (next == at || n == room)
            return -1;
        to[n++] = value;
        at = next;
    }
    *text = end + (*end == '\n');
    return n;
}

static dls_status take_line(run *x, options *o, const double *row, int n, int line)
{
    if (n < 0 || (o->tokens > 0 && n != o->experts))
        return DLS_FAIL(DLS_ERR_INPUT, "%s:%d: expected %s%lld numbers", o->scores, line,
                        o->tokens > 0 ? "" : "1 to ",
                        (long long)(o->tokens > 0 ? o->experts : DLS_ROUTER_EXPERTS));
    for (int i = 0; i < n; i++)
        if (!isfinite(row[i]))
            return DLS_FAIL(DLS_ERR_INPUT, "%s:%d: expected finite scores, got %g",
                            o->scores, line, row[i]);
    o->experts = n;
    double *more = realloc(x->s, (o->tokens + 1) * n * sizeof *more);
    if (!more)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory for its scores", o->scores);
    x->s = more;
    memcpy(x->s + o->tokens++ * n, row, n * sizeof *row);
    return DLS_OK;
}
static dls_status read_scores(run *x, options *o)
{
    char *text, *at;
    size_t size;
    dls_status s = DLS_OK;
    DLS_TRY(dls_file_read(o->scores, &text, &size));
    at = text;
    o->tokens = 0;
    /* take the lines of a file */
    for (int line = 1; s == DLS_OK && *at; line++) {
        double row[DLS_ROUTER_EXPERTS];
        int n = read_line(&at, row, DLS_ROUTER_EXPERTS);
        if (n != 0)
            s = take_line(x, o, row, n, line);
    }
    free(text);
    if (s == DLS_OK && o->tokens == 0)
        s = DLS_FAIL(DLS_ERR_INPUT, "%s: expected a line of scores for each token",
                     o->scores);
    return s;
}
/* take memory for a router */
static dls_router rules_of(const options *o)
{
    int T = (int)(o->sequence ? o->sequence : o->tokens ? o->tokens : 1);
    return (dls_router){
        .E = (int)o->experts, .k = (int)o->chosen,
        .gate = strcmp(o->gate, "softmax") == 0   ? DLS_GATE_SOFTMAX
                : strcmp(o->gate, "sigmoid") == 0 ? DLS_GATE_SIGMOID : DLS_GATE_IDENTITY,
        .normalised = !o->plain, .scale = o->scale, .groups = (int)o->groups,
        .group_limit = (int)o->group_limit, .padded = o->padded,
        .capacity = (int)ceil(o->capacity * o->chosen * T / o->experts),
        .N = (int)o->tokens, .B = (int)((o->tokens + T - 1) / T), .T = T};
}

static dls_status take_memory(run *x)
{
    size_t N = x->r.N, E = x->r.E, choices = N * x->r.k, table = x->r.B * E + 1;
    size_t reals = N * E + choices + E + dls_tally_length(x->r.E) + N * DLS_TALLY_SUMS;
    DLS_TRY(dls_device_alloc((void **)&x->ints, 2 * choices + E + table, DLS_F32,
                             DLS_MEM_OTHER));
    DLS_TRY(dls_device_alloc((void **)&x->reals, reals, DLS_F64, DLS_MEM_OTHER));
    /* divide the memory of a router */
    x->place = x->index = x->ints;
    x->counts = (x->place += choices) + choices;
    x->chosen = x->counts + E;
    x->scores = x->reals;
    x->weights = x->scores + N * E;
    x->bias = x->weights + choices;
    x->tally = x->bias + E;
    x->values = x->tally + dls_tally_length(x->r.E);
    x->each = calloc(3 * E, sizeof *x->each);
    if (!x->each)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the loads");
    DLS_CUDA(cudaMemset(x->bias, 0, E * sizeof *x->bias));
    DLS_CUDA(cudaMemcpy(x->scores, x->s, N * E * sizeof *x->s, cudaMemcpyHostToDevice));
    return DLS_OK;
}
/* route and step */
/* One step: choose, place, count. */
static dls_status route(run *x)
{
    const double *bias = x->o->rate > 0 ? x->bias : NULL;
    dls_router_aux aux = {.tokens = x->r.T, .in_sequence = x->chosen};
    dls_balance b = {.ctx = &x->ctx, .layers = 1, .experts = x->r.E, .tally = x->tally};
    /* choose and place the tokens */
    DLS_TRY(dls_router_choose(&x->ctx, &x->r, x->index, x->weights, x->chosen, x->scores,
                              bias));
    DLS_TRY(dls_router_place(&x->ctx, &x->r, x->place, x->counts, x->index, x->chosen,
                             NULL, 0));
    /* count the loads of a step */
    DLS_TRY(dls_balance_clear(&b));
    DLS_TRY(dls_router_tally(&x->ctx, &x->r, &aux, x->tally, x->values, x->scores,
                             x->chosen, NULL, 0));
    DLS_TRY(dls_balance_read(&b, 0, &x->load, x->each, x->each + x->r.E));
    DLS_CUDA(cudaMemcpy(x->each + 2 * x->r.E, x->bias, x->r.E * sizeof *x->bias,
                        cudaMemcpyDeviceToHost));
    int first;
    DLS_CUDA(cudaMemcpy(&first, x->counts, sizeof first, cudaMemcpyDeviceToHost));
    return first >= 0 ? DLS_OK
         : DLS_FAIL(DLS_ERR_INPUT, "token %d: expected finite scores", -1 - first);
}

static const dls_column step_columns[] = {
    {"step", NULL}, {"most", "%.3f"}, {"least", "%.3f"}, {"dropped", "%.3f"},
    {"f P", "%.4f"}};

static dls_status all_steps(run *x, dls_table *steps)
{
    for (int64_t i = 0; i < x->o->steps; i++) {
        if (i > 0)
            DLS_TRY(dls_router_bias(&x->ctx, x->bias, x->tally, x->r.E, x->o->rate));
        DLS_TRY(route(x));
        dls_table_add_int(steps, i);
        dls_table_add_real(steps, x->load.most);
        dls_table_add_real(steps, x->load.least);
        dls_table_add_real(steps, x->load.dropped);
        dls_table_add_real(steps, x->load.sequence);
    }
    return DLS_OK;
}
/* tell where tokens go */
static const dls_column token_columns[] = {
    {"token", NULL}, {"expert", NULL}, {"weight", "%.4f"}, {"place", NULL}};

static dls_status tell_tokens(const run *x)
{
    int choices = x->r.N * x->r.k, shown = (int)x->o->show * x->r.k;
    int index[choices + 1], place[choices + 1];
    double weights[choices + 1];
    dls_table *t;
    DLS_CUDA(cudaMemcpy(index, x->index, choices * sizeof(int), cudaMemcpyDeviceToHost));
    DLS_CUDA(cudaMemcpy(place, x->place, choices * sizeof(int), cudaMemcpyDeviceToHost));
    DLS_CUDA(cudaMemcpy(weights, x->weights, choices * sizeof(double),
                        cudaMemcpyDeviceToHost));
    DLS_TRY(dls_table_create(&t, token_columns, 4));
    /* add a line for each choice */
    for (int i = 0; i < choices && (x->o->json || i < shown); i++) {
        dls_table_add_int(t, i / x->r.k);
        dls_table_add_int(t, index[i]);
        dls_table_add_real(t, weights[i]);
        if (place[i] < 0)
            dls_table_add_text(t, "dropped");
        else
            dls_table_add_int(t, place[i]);
    }
    dls_status s = dls_table_print(t, stdout, x->o->json);
    dls_table_free(t);
    return s;
}
/* tell the loads */
static const dls_column expert_columns[] = {
    {"expert", NULL}, {"chosen", NULL}, {"dropped", NULL}, {"load", "%.3f"},
    {"bias", "%.4f"}};

static dls_status tell_loads(const run *x)
{
    dls_table *t;
    int E = x->r.E;
    DLS_TRY(dls_table_create(&t, expert_columns, 5));
    for (int e = 0; e < E; e++) {
        dls_table_add_int(t, e);
        dls_table_add_int(t, (int64_t)x->each[e]);
        dls_table_add_int(t, (int64_t)x->each[E + e]);
        dls_table_add_real(t, x->load.rows > 0 ? x->each[e] * E / x->load.rows : 0);
        dls_table_add_real(t, x->each[2 * E + e]);
    }
    dls_status s = dls_table_print(t, stdout, x->o->json);
    dls_table_free(t);
    return s;
}
/* tell the losses */
static void tell_losses(const run *x)
{
    const dls_load *l = &x->load;
    if (x->o->json)
        printf("{\"most\":%.17g,\"least\":%.17g,\"violation\":%.17g,"
               "\"dropped\":%.17g,\"balance\":%.17g,\"z\":%.17g,\"entropy\":%.17g}",
               l->most, l->least, l->violation, l->dropped, l->sequence, l->z,
               l->entropy);
    else
        printf("load %.3f to %.3f of the mean; MaxVio %.3f; dropped %.1f %%\n"
               "f P %.4f; z %.4f; entropy %.4f\n", l->least, l->most, l->violation,
               100 * l->dropped, l->sequence, l->z, l->entropy);
}

static dls_status tell(const run *x, const dls_table *steps)
{
    int json = x->o->json;
    printf(json ? "{\"tokens\":" : "");
    if (json || x->o->show > 0)
        DLS_TRY(tell_tokens(x));
    printf(json ? ",\"experts\":" : x->o->show > 0 ? "\n" : "");
    DLS_TRY(tell_loads(x));
    printf(json ? ",\"steps\":" : x->o->steps > 1 ? "\n" : "");
    if (json || x->o->steps > 1)
        DLS_TRY(dls_table_print(steps, stdout, json));
    printf(json ? ",\"sums\":" : "\n");
    tell_losses(x);
    printf(json ? "}\n" : "");
    return DLS_OK;
}
/* run the router command */
static dls_status parse(int argc, char **argv, options *o, int *helped)
{
    const dls_arg args[] = {
        /* list the sizes of a routing */
        {"--tokens", DLS_ARG_INT, &o->tokens, "N", "drawn (16)"},
        {"--experts", DLS_ARG_INT, &o->experts, "E", "(8)"},
        {"--chosen", DLS_ARG_INT, &o->chosen, "K", "experts of a token (2)"},
        {"--sequence", DLS_ARG_INT, &o->sequence, "T", "tokens of a sequence (all)"},
        /* list the rules of the weights */
        {"--gate", DLS_ARG_STRING, &o->gate, "G", "softmax, sigmoid or identity"},
        {"--plain", DLS_ARG_FLAG, &o->plain, NULL, "weights do not sum to 1"},
        {"--scale", DLS_ARG_REAL, &o->scale, "X", "a factor of the weights (1)"},
        /* list the limits of a routing */
        {"--groups", DLS_ARG_INT, &o->groups, "G", "of experts"},
        {"--group-limit", DLS_ARG_INT, &o->group_limit, "L", "groups of a token"},
        {"--capacity", DLS_ARG_REAL, &o->capacity, "C", "a factor; 0: all rows"},
        {"--padded", DLS_ARG_FLAG, &o->padded, NULL, "to the capacity"},
        /* list what moves the loads */
        {"--skew", DLS_ARG_REAL, &o->skew, "X", "of the drawn scores (0)"},
        {"--seed", DLS_ARG_INT, &o->seed, "S", "(1)"},
        {"--bias-rate", DLS_ARG_REAL, &o->rate, "X", "a step of the bias (0)"},
        {"--steps", DLS_ARG_INT, &o->steps, "N", "with the same scores (1)"},
        {"--scores", DLS_ARG_STRING, &o->scores, "FILE", "a line for each token"},
        {"--show", DLS_ARG_INT, &o->show, "N", "tokens in the table (16)"},
        {"--json", DLS_ARG_FLAG, &o->json, NULL, "print JSON"}};
    const dls_args spec = {"dls router", "Routes tokens to experts, and tells who goes "
                           "where.", "dls router --tokens 64 --skew 1 --capacity 1.25",
                           args, sizeof args / sizeof args[0]};
    return dls_args_parse(&spec, argc, argv, helped);
}


static dls_status check_ranges(const options *o)
{
    DLS_TRY(dls_args_in("--experts", o->experts, 1, DLS_ROUTER_EXPERTS));
    DLS_TRY(dls_args_in("--chosen", o->chosen, 1, o->experts));
    int64_t choices = 65536 / o->chosen, scores = (1 << 24) / o->experts;
    int64_t rows = choices < scores ? choices : scores;
    DLS_TRY(dls_args_in("--tokens", o->tokens, 0, rows));
    DLS_TRY(dls_args_in("--sequence", o->sequence, 0, rows));
    DLS_TRY(dls_args_in("--groups", o->groups, 0, DLS_ROUTER_GROUPS));
    DLS_TRY(dls_args_in("--group-limit", o->group_limit, 0, DLS_ROUTER_GROUPS));
    DLS_TRY(dls_args_in("--steps", o->steps, 1, 10000));
    DLS_TRY(dls_args_in("--show", o->show, 0, rows));
    DLS_TRY(dls_args_real_in("--capacity", o->capacity, 0, 1000));
    return dls_args_real_in("--bias-rate", o->rate, 0, 1000);
}

static dls_status check(const options *o)
{
    DLS_TRY(check_ranges(o));
    dls_router r = rules_of(o);
    if (r.gate == DLS_GATE_IDENTITY && strcmp(o->gate, "identity") != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "--gate: expected softmax, sigmoid or identity, "
                        "got \"%s\"", o->gate);
    if (o->padded && o->capacity == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "--padded: expected a --capacity to pad to");
    return dls_router_check(&r);
}

static dls_status with_memory(run *x)
{
    dls_table *steps = NULL;
    DLS_TRY(dls_ctx_create(&x->ctx, 0, DLS_F64));
    dls_status s = take_memory(x);
    if (s == DLS_OK)
        s = dls_table_create(&steps, step_columns, 5);
    if (s == DLS_OK)
        s = all_steps(x, steps);
    if (s == DLS_OK)
        s = tell(x, steps);
    dls_table_free(steps);
    dls_device_free(x->ints);
    dls_device_free(x->reals);
    dls_ctx_destroy(&x->ctx);
    return s;
}
dls_status command_router(int argc, char **argv, int *exit_code)
{
    options o = {.tokens = 16, .experts = 8, .chosen = 2, .seed = 1, .steps = 1,
                 .scale = 1, .gate = "softmax", .show = 16};
    run x = {.o = &o};
    int helped;
    (void)exit_code;
    DLS_TRY(parse(argc, argv, &o, &helped));
    if (helped)
        return DLS_OK;
    dls_status s = o.scores ? read_scores(&x, &o) : DLS_OK;
    if (s == DLS_OK)
        s = check(&o);
    if (s == DLS_OK && !o.scores)
        s = draw_scores(&x);
    x.r = rules_of(&o);
    if (s == DLS_OK)
        s = with_memory(&x);
    free(x.s);
    free(x.each);
    return s;
}
