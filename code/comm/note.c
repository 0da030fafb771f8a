/* code/comm/note.c: from chapters/04-data-parallelism-faults.md. Edit the chapter, or edit here and run "make untangle". */
/* Notes for the flight recorder: from operations to records. A process has one recorder,
 * whatever number of communicators it makes; a world of one has none. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "comm/collectives.h"
#include "comm/comm_private.h"
#include "comm/flight.h"
#include "vgpu/gpu.h"

static dls_recorder mine;
static uint64_t calls; // of this process

/* open the notes */
dls_status dls_note_open(int rank, int world)
{
    DLS_TRY(dls_fault_open(rank));
    return dls_recorder_attach(rank, world, &mine);
}

uint64_t dls_note_next(void)
{
    return calls + 1;
}

static uint64_t call(const dls_record *record)
{
    dls_fault_meet(++calls);
    return dls_recorder_call(&mine, record);
}

void dls_note_close(void)
{
    dls_recorder_detach(&mine);
}

const dls_recorder *dls_note_recorder(void)
{
    return &mine;
}

void dls_note_see(void)
{
    dls_recorder_see(&mine);
}

/* note an operation */
static void add_members(dls_record *record, const dls_comm *c)
{
    record->communicator = (uint32_t)c->context;
    for (int r = 0; r < c->world && c->context > 0; r++)
        if (c->member[r] < 64)
            record->members |= (uint64_t)1 << c->member[r];
}

/* to (size) := as much of the text as fits; to is zeros before. */
static void keep(char *to, size_t size, const char *text)
{
    memcpy(to, text, strnlen(text, size - 1));
}

static dls_record record_of(const dls_comm_op *op)
{
    const dls_message *m = &op->ours;
    const dls_comm *c = op->comm;
    int is_message = m->kind == DLS_MESSAGE_SEND_RECV;
    dls_record record = {
        .kind = is_message ? DLS_RECORD_MESSAGE : DLS_RECORD_COLLECTIVE,
        .number = m->number, .count = m->count, .receives = op->receives,
        .virtual_called = dls_gpu_host_time()};
    int peer = is_message ? op->peer : m->root;
    record.peer = peer >= 0 ? c->member[peer] : -1;
    add_members(&record, c);
    if (op->algorithm)
        keep(record.algorithm, sizeof record.algorithm, op->algorithm->name);
    keep(record.name, sizeof record.name, dls_message_name(m, op->receives));
    keep(record.type, sizeof record.type, dls_comm_type_name(m->dtype));
    keep(record.reduce, sizeof record.reduce, dls_message_reduction(m));
    keep(record.site, sizeof record.site, m->site);
    return record;
}

void dls_note_call(dls_comm_op *op)
{
    dls_record record = record_of(op);
    op->record = call(&record);
}

void dls_note_progress(dls_comm_op *op)
{
    uint64_t bytes = dls_engine_bytes(op);
    if (!op->noted)
        dls_recorder_begin(&mine, op->record, op->start);
    if (bytes >= op->noted && bytes > 0)
        dls_recorder_move(&mine, op->record, bytes);
    else if (op->noted)
        dls_recorder_see(&mine);
    op->noted = bytes + 1;
}

void dls_note_end(dls_comm_op *op)
{
    if (!op->noted)
        dls_recorder_begin(&mine, op->record, op->start);
    dls_recorder_end(&mine, op->record, op->bytes, op->now);
}

/* note a call between hosts */
uint64_t dls_note_host(const dls_comm *comm, size_t bytes, const char *site)
{
    dls_record record = {.kind = DLS_RECORD_HOST, .number = comm->host_calls,
                         .count = bytes, .peer = -1,
                         .virtual_called = dls_gpu_host_time()};
    add_members(&record, comm);
    keep(record.name, sizeof record.name, bytes ? "host all-gather" : "barrier");
    keep(record.type, sizeof record.type, "u8");
    keep(record.site, sizeof record.site, site);
    uint64_t ticket = call(&record);
    dls_recorder_begin(&mine, ticket, record.virtual_called);
    return ticket;
}

void dls_note_host_end(uint64_t ticket)
{
    dls_recorder_end(&mine, ticket, 0, dls_gpu_host_time());
}

/* write down a rank of its own */
void dls_note_failure(const char *how)
{
    const char *name = getenv("DLS_FLIGHT");
    char path[4096];
    dls_flight f = {0};
    if (!mine.head || mine.fd >= 0 || !name || !*name)
        return;
    snprintf(path, sizeof path, "%s.%d", name, mine.rank);
    dls_status status = dls_flight_take(&mine, &f);
    if (status == DLS_OK) {
        dls_flight_set_fate(&f.ranks[mine.rank], how);
        status = dls_flight_write(&f, NULL, path);
    }
    dls_flight_free(&f);
    if (status == DLS_OK)
        return;
    dls_log(DLS_LOG_WARN, "no flight record: %s", dls_status_message());
    (void)DLS_FAIL(DLS_ERR_COMM, "%s", how); // what the rank was about to say
}
