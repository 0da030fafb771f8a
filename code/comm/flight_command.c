/* code/comm/flight_command.c: from chapters/04-data-parallelism-faults.md. Edit the chapter, or edit here and run "make untangle". */
/* dls flight: reads flight records and says where the ranks part. */
#include "comm/flight_command.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/args.h"
#include "base/table.h"
#include "comm/flight.h"

enum { ROWS = 6 }; // of the sequence

/* print the ranks */
static const char *state_of(const dls_record *r)
{
    return r->ended > 0 ? "ended" : r->began > 0 ? "begun" : "called";
}

static dls_status print_ranks(const dls_flight *f)
{
    static const dls_column columns[] = {{"rank", NULL}, {"calls", NULL},
        {"last call", NULL}, {"number", NULL}, {"state", NULL}, {"s ago", "%.1f"},
        {"process", NULL}};
    dls_table *t;
    char what[256], fate[64]; // without what an error said
    DLS_TRY(dls_table_create(&t, columns, sizeof columns / sizeof columns[0]));
    for (int r = 0; r < f->world; r++) {
        const dls_flight_rank *rank = &f->ranks[r];
        const dls_record *last = rank->n ? &rank->records[rank->n - 1] : NULL;
        if (last)
            dls_flight_name(last, what, sizeof what);
        dls_table_add_int(t, r);
        dls_table_add_int(t, (int64_t)rank->calls);
        dls_table_add_text(t, last ? what : rank->known ? "nothing" : "not recorded");
        dls_table_add_int(t, last ? (int64_t)last->number : 0);
        dls_table_add_text(t, last ? state_of(last) : "");
        dls_table_add_real(t, last ? rank->taken - last->called : 0);
        snprintf(fate, sizeof fate, "%.*s", (int)strcspn(rank->fate, ":"), rank->fate);
        dls_table_add_text(t, fate[0] ? fate : rank->process);
    }
    dls_status status = dls_table_print(t, stdout, 0);
    dls_table_free(t);
    return status;
}

/* print the sequence */
static int belongs(const dls_finding *found, const dls_record *r)
{
    const dls_record *at = &found->record;
    if (at->kind == DLS_RECORD_MESSAGE)
        return r->ticket == at->ticket;
    return r->kind == at->kind && r->communicator == at->communicator &&
           r->number <= at->number && r->number + ROWS > at->number;
}

static void add_states(dls_table *t, const dls_flight *f, int owner, const dls_record *r)
{
    static const dls_flight_state states[] = {DLS_FLIGHT_ENDED, DLS_FLIGHT_BEGUN,
                                              DLS_FLIGHT_CALLED, DLS_FLIGHT_MISSING};
    for (int s = 0; s < 4; s++) {
        char text[200];
        dls_flight_list(f, owner, r, states[s], text, sizeof text);
        dls_table_add_text(t, text[0] ? text : "-");
    }
}

static dls_status print_sequence(const dls_flight *f, const dls_finding *found)
{
    static const dls_column columns[] = {{"number", NULL}, {"operation", NULL},
        {"ended", NULL}, {"begun", NULL}, {"called", NULL}, {"not called", NULL}};
    const dls_flight_rank *witness = &f->ranks[found->witness];
    dls_table *t;
    char what[128];
    DLS_TRY(dls_table_create(&t, columns, sizeof columns / sizeof columns[0]));
    for (int i = 0; i < witness->n; i++) {
        const dls_record *r = &witness->records[i];
        if (!belongs(found, r))
            continue;
        dls_flight_name(r, what, sizeof what);
        dls_table_add_int(t, (int64_t)r->number);
        dls_table_add_text(t, what);
        add_states(t, f, found->witness, r);
    }
    dls_status status = dls_table_print(t, stdout, 0);
    dls_table_free(t);
    return status;
}

/* print the finding as json */
static dls_status print_json(const dls_flight *f, const dls_finding *found)
{
    static const char *const kinds[] = {"none", "mismatch", "missing", "stalled",
                                        "lost"};
    json_t *ranks = json_array();
    for (int r = 0; r < f->world; r++) {
        const dls_flight_rank *rank = &f->ranks[r];
        const dls_record *last = rank->n ? &rank->records[rank->n - 1] : NULL;
        json_t *one = json_pack("{si sb sI ss ss}", "rank", r, "known", rank->known,
                                "calls", (json_int_t)rank->calls, "fate", rank->fate,
                                "process", rank->process);
        if (last)
            json_object_set_new(one, "last", json_pack("{ss sI ss ss}", "operation",
                last->name, "number", (json_int_t)last->number, "site", last->site,
                "state", state_of(last)));
        json_array_append_new(ranks, one);
    }
    json_t *all = json_pack("{ss si si sI ss so}", "kind", kinds[found->kind], "rank",
                            found->rank, "witness", found->witness, "number",
                            (json_int_t)found->record.number, "finding", found->text,
                            "ranks", ranks);
    int bad = !all || json_dumpf(all, stdout, JSON_INDENT(1)) != 0;
    json_decref(all);
    putchar('\n');
    return bad ? DLS_FAIL(DLS_ERR_MEMORY, "the finding could not be printed") : DLS_OK;
}

/* read and print a flight */
static dls_status show(const dls_flight *f, int json)
{
    dls_finding found;
    dls_flight_find(f, &found);
    if (json)
        return print_json(f, &found);
    DLS_TRY(print_ranks(f));
    if (found.kind != DLS_FINDING_NONE) {
        putchar('\n');
        DLS_TRY(print_sequence(f, &found));
    }
    printf("\n%s\n", found.text);
    return DLS_OK;
}

dls_status dls_flight_command(int argc, char **argv, int *exit_code)
{
    char **files = NULL;
    int json = 0, helped;
    const dls_arg args[] = {
        {"--json", DLS_ARG_FLAG, &json, NULL, "print JSON"},
        {"FILE", DLS_ARG_REST, &files, NULL, "records of the ranks of one job"},
    };
    const dls_args spec = {"dls flight", "Says where the ranks of a failed job part.",
                           "dls flight dls-flight.json", args, 2};
    dls_flight f = {0};
    dls_status status = dls_args_parse(&spec, argc, argv, &helped);
    if (status != DLS_OK || helped)
        return status;
    for (int i = 0; status == DLS_OK && files[i]; i++)
        status = dls_flight_read(files[i], &f);
    if (status == DLS_OK)
        status = show(&f, json);
    dls_flight_free(&f);
    *exit_code = 0;
    return status;
}
