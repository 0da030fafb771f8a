/* code/comm/flight_file.c: from chapters/04-data-parallelism-faults.md. Edit the chapter, or edit here and run "make untangle". */
/* Flights as JSON files:
 *
 *   {"dls_flight": 1, "world": 4, "finding": "rank 2 has not called ...",
 *    "ranks": [{"rank": 0, "pid": 71, "fate": "", "process": "sleeps", "taken": 5.1,
 *               "moved": 3.0, "seen": 5.0, "calls": 17, "operations": [{}, ...]}, ...]}
 *
 * Times are seconds since the recorder was made. What a file says is checked before it
 * is believed: it may come from anywhere. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "comm/flight.h"

enum { VERSION = 1, MOST_RANKS = 65536 };

/* list the fields of a record */
typedef enum { TEXT, WHOLE, SMALL, REAL } field_type;

static const struct field {
    const char *name;
    field_type type;
    size_t offset, size;
} fields[] = {
#define FIELD(type, member) \
    {#member, type, offsetof(dls_record, member), sizeof(((dls_record *)0)->member)}
    FIELD(WHOLE, ticket), FIELD(SMALL, kind), FIELD(WHOLE, number),
    FIELD(SMALL, communicator), FIELD(WHOLE, members), FIELD(TEXT, name),
    FIELD(WHOLE, count), FIELD(TEXT, type), FIELD(TEXT, reduce), FIELD(SMALL, peer),
    FIELD(SMALL, receives), FIELD(TEXT, algorithm), FIELD(TEXT, site),
    FIELD(WHOLE, bytes), FIELD(REAL, called), FIELD(REAL, began), FIELD(REAL, moved),
    FIELD(REAL, ended), FIELD(REAL, virtual_called), FIELD(REAL, virtual_began),
    FIELD(REAL, virtual_ended),
#undef FIELD
};

enum { FIELDS = sizeof fields / sizeof fields[0] };

/* write a flight */
static json_t *value_of(const dls_record *record, const struct field *f)
{
    const char *at = (const char *)record + f->offset;
    uint64_t whole;
    int32_t small;
    double real;
    switch (f->type) {
    case TEXT: return json_string(at);
    case WHOLE: return memcpy(&whole, at, sizeof whole), json_integer((json_int_t)whole);
    case SMALL: return memcpy(&small, at, sizeof small), json_integer(small);
    case REAL: return memcpy(&real, at, sizeof real), json_real(real);
    }
    return NULL;
}

static json_t *operations_of(const dls_flight_rank *rank)
{
    json_t *list = json_array();
    for (int i = 0; i < rank->n; i++) {
        json_t *one = json_object();
        for (int k = 0; k < FIELDS; k++)
            json_object_set_new(one, fields[k].name, value_of(&rank->records[i],
                                                              &fields[k]));
        json_array_append_new(list, one);
    }
    return list;
}

static json_t *rank_object(const dls_flight *f, int rank)
{
    const dls_flight_rank *r = &f->ranks[rank];
    return json_pack("{si si ss ss sf sf sf sI so}", "rank", rank, "pid", r->pid, "fate",
                     r->fate, "process", r->process, "taken", r->taken, "moved", r->moved,
                     "seen", r->seen, "calls", (json_int_t)r->calls, "operations",
                     operations_of(r));
}

dls_status dls_flight_write(const dls_flight *f, const dls_finding *finding,
                            const char *path)
{
    json_t *ranks = json_array();
    for (int r = 0; r < f->world; r++)
        if (f->ranks[r].known)
            json_array_append_new(ranks, rank_object(f, r));
    json_t *all = json_pack("{si si ss so}", "dls_flight", VERSION, "world", f->world,
                            "finding", finding ? finding->text : "", "ranks", ranks);
    char *text = all ? json_dumps(all, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(all);
    if (!text)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory to write the records", path);
    dls_status status = dls_file_write(path, text, strlen(text));
    free(text);
    return status;
}

/* read the fields of a record */
/* 1: the value fits the field and is stored. */
static int store(dls_record *record, const struct field *f, const json_t *value)
{
    char *at = (char *)record + f->offset;
    json_int_t n = json_integer_value(value);
    double real = json_number_value(value);
    int32_t small = (int32_t)n;
    if (f->type == TEXT) {
        if (!json_is_string(value) || json_string_length(value) >= f->size)
            return 0;
        memcpy(at, json_string_value(value), json_string_length(value) + 1);
        return 1;
    }
    if (f->type == REAL)
        return json_is_number(value) && memcpy(at, &real, sizeof real) != NULL;
    if (!json_is_integer(value))
        return 0;
    if (f->type == WHOLE)
        return memcpy(at, &n, sizeof n) != NULL;
    return n == small && memcpy(at, &small, sizeof small) != NULL;
}

static dls_status read_record(const char *path, int rank, const json_t *from,
                              dls_record *record)
{
    *record = (dls_record){0};
    for (int k = 0; k < FIELDS; k++)
        if (!store(record, &fields[k], json_object_get(from, fields[k].name)))
            return DLS_FAIL(DLS_ERR_INPUT, "%s: rank %d: an operation's \"%s\" is "
                            "missing or not what it should be", path, rank,
                            fields[k].name);
    if (record->kind < DLS_RECORD_COLLECTIVE || record->kind > DLS_RECORD_MESSAGE)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: rank %d: an operation of kind %d: expected 1 "
                        "to 3", path, rank, record->kind);
    return DLS_OK;
}

/* read a rank */
static dls_status read_operations(const char *path, int rank, const json_t *list,
                                  dls_flight_rank *out)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list))
        return DLS_FAIL(DLS_ERR_INPUT, "%s: rank %d: \"operations\" is not a list", path,
                        rank);
    out->records = calloc(n ? n : 1, sizeof *out->records);
    if (!out->records)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %zu records", n);
    for (size_t i = 0; i < n; i++)
        DLS_TRY(read_record(path, rank, json_array_get(list, i), &out->records[i]));
    out->n = (int)n;
    return DLS_OK;
}

static dls_status read_rank(const char *path, json_t *from, dls_flight *f)
{
    int rank = -1, pid = 0;
    json_int_t calls = 0;
    const char *fate = "", *process = "";
    dls_flight_rank r = {.known = 1};
    json_t *operations = NULL;
    if (json_unpack(from, "{si si ss ss sF sF sF sI so}", "rank", &rank, "pid", &pid,
                    "fate", &fate, "process", &process, "taken", &r.taken, "moved",
                    &r.moved, "seen", &r.seen, "calls", &calls, "operations",
                    &operations) != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: an entry of \"ranks\" lacks a field", path);
    if (rank < 0 || rank >= f->world || f->ranks[rank].known)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: rank %d: %s", path, rank,
                        rank < 0 || rank >= f->world ? "not a rank of this world"
                                                     : "its record is here twice");
    /* keep the rank */
    r.pid = pid;
    r.calls = (uint64_t)calls;
    dls_flight_set_fate(&r, fate);
    snprintf(r.process, sizeof r.process, "%s", process);
    f->ranks[rank] = r;
    return read_operations(path, rank, operations, &f->ranks[rank]);
}

/* read a flight */
static dls_status read_ranks(const char *path, json_t *all, dls_flight *f)
{
    int version = 0, world = 0;
    json_t *ranks = NULL, *one;
    size_t i;
    if (json_unpack(all, "{si si so}", "dls_flight", &version, "world", &world, "ranks",
                    &ranks) != 0 || version != VERSION || !json_is_array(ranks))
        return DLS_FAIL(DLS_ERR_INPUT, "%s: not a flight record of version %d", path,
                        VERSION);
    if (world < 1 || world > MOST_RANKS || (f->world && world != f->world))
        return DLS_FAIL(DLS_ERR_INPUT, "%s: the record of a world of %d ranks: expected "
                        "%d", path, world, f->world ? f->world : 1);
    if (!f->ranks)
        f->ranks = calloc((size_t)world, sizeof *f->ranks);
    if (!f->ranks)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d ranks", world);
    f->world = world;
    json_array_foreach(ranks, i, one)
        DLS_TRY(read_rank(path, one, f));
    return DLS_OK;
}

dls_status dls_flight_read(const char *path, dls_flight *f)
{
    char *text;
    size_t size;
    json_error_t error;
    DLS_TRY(dls_file_read(path, &text, &size));
    json_t *all = json_loadb(text, size, 0, &error);
    free(text);
    if (!all)
        return DLS_FAIL(DLS_ERR_INPUT, "%s:%d: %s", path, error.line, error.text);
    dls_status status = read_ranks(path, all, f);
    json_decref(all);
    return status;
}
