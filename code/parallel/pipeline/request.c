/* code/parallel/pipeline/request.c: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* Words into ticks, and a name into a schedule. No files: see schedule_command.c. */
#include "parallel/pipeline/request.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"

typedef dls_request request;

/* read the costs */
enum { SAME = 5, MOST_COSTS = SAME + 3 * DLS_ARG_LIST_LIMIT };

/* read the costs of a stage */
/* "2:1,1,1/2", the costs of stage 2. */
static dls_status read_stage_cost(const char *text, int64_t *stage, dls_fraction f[3])
{
    char *end;
    int count;
    *stage = strtoll(text, &end, 10);
    if (end == text || *end != ':' || *stage < 0 || *stage > INT16_MAX)
        return DLS_FAIL(DLS_ERR_INPUT, "--stage-cost: expected STAGE:F,I,W, got "
                        "\"%.80s\"", text);
    return dls_fractions_read("--stage-cost", end + 1, 3, 3, f, &count);
}

/* read all costs */
static dls_status read_costs(request *q)
{
    dls_fraction f[MOST_COSTS] = {{1, 1}, {1, 1}, {1, 1}, {0, 1}, {0, 1}};
    dls_pipeline_costs *c = &q->options.cost;
    int count, n = q->stage_costs.count;
    if (q->costs)
        DLS_TRY(dls_fractions_read("--cost", q->costs, 3, 4, f, &count));
    if (q->overlap)
        DLS_TRY(dls_fractions_read("--overlap-cost", q->overlap, 1, 1, &f[4], &count));
    if (q->overlap && !f[4].over)
        return DLS_FAIL(DLS_ERR_INPUT, "--overlap-cost: expected more than 0");
    for (int i = 0; i < n; i++)
        DLS_TRY(read_stage_cost(q->stage_costs.values[i], &q->stage[i],
                                &f[SAME + 3 * i]));
    DLS_TRY(dls_fractions_align("--cost", f, SAME + 3 * n, &q->units.time));
    *c = (dls_pipeline_costs){.F = f[0].over, .I = f[1].over, .W = f[2].over,
                              .hop = f[3].over, .overlapped = f[4].over};
    for (int i = 0; i < 3 * n; i++)
        q->stage_ticks[i] = f[SAME + i].over;
    return DLS_OK;
}

/* read the memory */
/* A chunk of v holds 1/v of what a stage holds: its unit is v times as fine. */
static dls_status read_memory(request *q, int chunks)
{
    dls_fraction f[3] = {{1, 1}, {1, 1}, {0, 1}};
    int count = 0;
    if (q->memory)
        DLS_TRY(dls_fractions_read("--memory", q->memory, 1, 2, f, &count));
    if (count == 1)
        f[1] = f[0];
    if (q->limit)
        DLS_TRY(dls_fractions_read("--limit", q->limit, 1, 1, &f[2], &count));
    DLS_TRY(dls_fractions_align("--memory", f, 3, &q->units.memory));
    if (f[1].over > f[0].over)
        return DLS_FAIL(DLS_ERR_INPUT, "--memory: expected to keep no more from I to W "
                        "than a forward holds, got %s", q->memory);
    q->options.memory = (dls_pipeline_memory){f[0].over, f[1].over};
    q->options.limit = f[2].over * chunks;
    q->units.memory *= chunks;
    return DLS_OK;
}

/* spread the costs of single stages */
/* All stages cost the same but for those that the reader priced. */
static dls_status spread_costs(request *q, int stages)
{
    dls_pipeline_costs *c = &q->options.cost;
    if (!q->stage_costs.count)
        return DLS_OK;
    q->of_stage = malloc((size_t)stages * sizeof *q->of_stage);
    if (!q->of_stage)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the costs of %d stages", stages);
    for (int s = 0; s < stages; s++)
        memcpy(q->of_stage[s], (int64_t[3]){c->F, c->I, c->W}, sizeof *q->of_stage);
    for (int i = 0; i < q->stage_costs.count; i++) {
        if (q->stage[i] >= stages)
            return DLS_FAIL(DLS_ERR_INPUT, "--stage-cost: expected a stage from 0 to %d, "
                            "got %lld", stages - 1, (long long)q->stage[i]);
        memcpy(q->of_stage[q->stage[i]], &q->stage_ticks[3 * i], sizeof *q->of_stage);
    }
    c->of_stage = q->of_stage[0];
    return DLS_OK;
}

/* find the schedule */
static dls_status find_entry(const char *name, const dls_schedule_entry **out)
{
    const char *names[128];
    int n = 0;
    for (; n < 128 && dls_schedule_at(n); n++)
        names[n] = dls_schedule_at(n)->name;
    *out = dls_schedule_find(name);
    if (*out)
        return DLS_OK;
    const char *near = dls_suggest(name, names, n);
    return DLS_FAIL(DLS_ERR_INPUT, "no schedule '%.80s'%s%s%s; `dls schedule --list` "
                    "names them, and a name that ends in .csv is read as a file", name,
                    near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* refuse numbers out of range */
static dls_status in_range(const char *option, int64_t value, int64_t least, int64_t most)
{
    if (value >= least && value <= most)
        return DLS_OK;
    char got[32] = "none or 0";
    if (value)
        snprintf(got, sizeof got, "%lld", (long long)value);
    return DLS_FAIL(DLS_ERR_INPUT, "%s: expected a number from %lld to %lld, got %s",
                    option, (long long)least, (long long)most, got);
}

/* make what was asked */
static dls_status read_all(request *q, int chunks, int stages)
{
    DLS_TRY(read_costs(q));
    DLS_TRY(read_memory(q, chunks));
    return spread_costs(q, stages);
}
/* Schedules of pairs count in chunks, as their authors do. */
static dls_status count_chunks(request *q, dls_schedule *s)
{
    if (!dls_schedule_pairs(s))
        return DLS_OK;
    DLS_TRY(read_memory(q, 1));
    s->options.memory = q->options.memory;
    s->options.limit = q->options.limit;
    return DLS_OK;
}

dls_status dls_request_price(dls_request *q, dls_schedule *s)
{
    q->options = s->options;
    DLS_TRY(read_all(q, s->options.chunks, s->stages));
    s->options = q->options;
    return count_chunks(q, s);
}

/* make a named schedule */
dls_status dls_request_make(dls_request *q, const char *name, dls_schedule *out)
{
    const dls_schedule_entry *e;
    DLS_TRY(find_entry(name, &e));
    DLS_TRY(in_range("--stages", q->ranks, 1, 4096));
    DLS_TRY(in_range("--microbatches", q->microbatches, 1, 1 << 20));
    DLS_TRY(in_range("--chunks", q->chunks, 0, INT16_MAX));
    DLS_TRY(in_range("--group", q->group, 0, 1 << 20));
    q->options = dls_schedule_defaults(name, (int)q->ranks, (int)q->microbatches);
    q->options.chunks = q->chunks ? (int)q->chunks : e->chunks ? e->chunks : 2;
    q->options.group = (int)q->group;
    DLS_TRY(read_all(q, q->options.chunks, q->options.ranks * q->options.chunks));
    DLS_TRY(dls_schedule_make(&q->options, out));
    return count_chunks(q, out);
}

/* read a request */
dls_status dls_request_read(dls_request *q, int argc, char **argv, int *helped)
{
    const dls_arg args[] = {
        {"[NAME]", DLS_ARG_STRING, &q->name, NULL, "a schedule, or a file.csv of one"},
        {"--stages", DLS_ARG_INT, &q->ranks, "P", "ranks, one behind the other"},
        {"--microbatches", DLS_ARG_INT, &q->microbatches, "M", "of a batch"},
        {"--chunks", DLS_ARG_INT, &q->chunks, "V", "stages on each rank"},
        {"--group", DLS_ARG_INT, &q->group, "N", "micro-batches of a group"},
        {"--cost", DLS_ARG_STRING, &q->costs, "F,I,W[,C]", "of a stage; C: of a hop"},
        {"--overlap-cost", DLS_ARG_STRING, &q->overlap, "X", "of a paired F and B"},
        {"--stage-cost", DLS_ARG_LIST, &q->stage_costs, "S:F,I,W", "of one stage"},
        {"--memory", DLS_ARG_STRING, &q->memory, "A[,W]", "held by F; kept from I to W"},
        {"--limit", DLS_ARG_STRING, &q->limit, "N", "of a rank, in stage activations"},
        {"--order", DLS_ARG_FLAG, &q->order, NULL, "print every rank's actions"},
        {"--lower", DLS_ARG_FLAG, &q->lower, NULL, "put in messages and steps"},
        {"--gathered", DLS_ARG_INT, &q->gathered, "N", "lower, N stages whole"},
        {"--terminal", DLS_ARG_FLAG, &q->terminal, NULL, "draw it in letters"},
        {"--draw", DLS_ARG_STRING, &q->draw, "FILE.svg", "draw it into a file"},
        {"--csv", DLS_ARG_STRING, &q->csv, "FILE", "write the actions"},
        {"--compare", DLS_ARG_STRING, &q->compare, "A,B,...", "a table of several"},
        {"--list", DLS_ARG_FLAG, &q->list, NULL, "name the schedules"},
        {"--json", DLS_ARG_FLAG, &q->json, NULL, "print JSON"}};
    const dls_args spec = {"dls schedule", "Evaluates pipeline schedules.",
                           "dls schedule 1f1b --stages 4 --microbatches 8", args,
                           sizeof args / sizeof *args};
    return dls_args_parse(&spec, argc, argv, helped);
}

void dls_request_free(dls_request *q)
{
    free(q->of_stage);
    q->of_stage = NULL;
}
