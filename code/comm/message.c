/* code/comm/message.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Describing and comparing message headers. */
#include "comm/message.h"

#include <stdio.h>

#include "comm/comm.h"

/* put a message into words */
const char *dls_message_name(const dls_message *m, int receiving)
{
    switch (m->kind) {
    case DLS_MESSAGE_SEND_RECV: return receiving ? "recv" : "send";
    case DLS_MESSAGE_ALL_REDUCE: return "all-reduce";
    case DLS_MESSAGE_BROADCAST: return "broadcast";
    }
    return "an unknown operation";
}

void dls_message_describe(const dls_message *m, int receiving, char *text, size_t size)
{
    static const char *reductions[] = {"sum", "avg", "min", "max", "prod"};
    char detail[32] = "";
    const char *what = m->kind == DLS_MESSAGE_SEND_RECV ? "message" : "collective";
    if (m->kind == DLS_MESSAGE_ALL_REDUCE && m->reduce <= DLS_PROD)
        snprintf(detail, sizeof detail, " (%s)", reductions[m->reduce]);
    if (m->kind == DLS_MESSAGE_BROADCAST)
        snprintf(detail, sizeof detail, " from rank %d", m->root);
    snprintf(text, size, "%s of %llu %s%s at %.79s (%s %llu)",
             dls_message_name(m, receiving),
             (unsigned long long)m->count, dls_comm_type_name(m->dtype), detail,
             m->site, what, (unsigned long long)m->number);
}

/* compare two messages */
dls_status dls_message_match(const dls_message *ours, int us, const dls_message *theirs,
                             int them)
{
    char mine[200], other[200];
    if (ours->magic == theirs->magic && ours->kind == theirs->kind &&
        ours->dtype == theirs->dtype && ours->reduce == theirs->reduce &&
        ours->root == theirs->root && ours->count == theirs->count &&
        ours->number == theirs->number && ours->step == theirs->step &&
        ours->bytes == theirs->bytes)
        return DLS_OK;
    dls_message_describe(ours, 1, mine, sizeof mine);
    dls_message_describe(theirs, 0, other, sizeof other);
    return DLS_FAIL(DLS_ERR_COMM, "rank %d calls %s, but rank %d calls %s", us, mine,
                    them, other);
}
