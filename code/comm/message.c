/* code/comm/message.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Describing and comparing message headers. */
#include "comm/message.h"

#include <stdio.h>
#include <string.h>

#include "comm/collectives.h"
#include "comm/comm.h"

/* put a message into words */
const char *dls_message_name(const dls_message *m, int receiving)
{
    static const char *const names[DLS_MESSAGE_KINDS] = {
        [DLS_MESSAGE_ALL_REDUCE] = "all-reduce", [DLS_MESSAGE_BROADCAST] = "broadcast",
        [DLS_MESSAGE_REDUCE_SCATTER] = "reduce-scatter",
        [DLS_MESSAGE_ALL_GATHER] = "all-gather", [DLS_MESSAGE_REDUCE] = "reduce",
        [DLS_MESSAGE_GATHER] = "gather", [DLS_MESSAGE_SCATTER] = "scatter",
        [DLS_MESSAGE_ALL_TO_ALL] = "all-to-all",
        [DLS_MESSAGE_ALL_TO_ALL_V] = "all-to-all-v"};
    if (m->kind == DLS_MESSAGE_SEND_RECV)
        return receiving ? "recv" : "send";
    return m->kind < DLS_MESSAGE_KINDS && names[m->kind] ? names[m->kind]
                                                         : "an unknown operation";
}

const char *dls_message_reduction(const dls_message *m)
{
    static const char *const names[] = {"sum", "avg", "min", "max", "prod"};
    int reduces = m->kind == DLS_MESSAGE_ALL_REDUCE || m->kind == DLS_MESSAGE_REDUCE ||
                  m->kind == DLS_MESSAGE_REDUCE_SCATTER;
    return reduces && m->reduce <= DLS_PROD ? names[m->reduce] : "";
}

void dls_message_describe(const dls_message *m, int receiving, char *text, size_t size)
{
    const char *what = m->kind == DLS_MESSAGE_SEND_RECV ? "message" : "collective";
    int gives = m->kind == DLS_MESSAGE_BROADCAST || m->kind == DLS_MESSAGE_SCATTER;
    char reduce[16] = "", root[32] = "";
    if (*dls_message_reduction(m))
        snprintf(reduce, sizeof reduce, " (%s)", dls_message_reduction(m));
    if (m->root >= 0)
        snprintf(root, sizeof root, " %s rank %d", gives ? "from" : "to", m->root);
    snprintf(text, size, "%s of %llu %s%s%s at %.79s (%s %llu)",
             dls_message_name(m, receiving),
             (unsigned long long)m->count, dls_comm_type_name(m->dtype), reduce, root,
             m->site, what, (unsigned long long)m->number);
}

/* write down a call site */
void dls_message_site(char *site, size_t size, const char *file, int line)
{
    char digits[12];
    size_t first = sizeof digits, used = strnlen(file, size - 1);
    do {
        digits[--first] = (char)('0' + line % 10);
        line /= 10;
    } while (line > 0);
    digits[--first] = ':';
    memcpy(site, file, used);
    while (first < sizeof digits && used < size - 1)
        site[used++] = digits[first++];
    site[used] = '\0';
}

/* compare two messages */
static const char *way_of(const dls_message *m)
{
    return m->algorithm < dls_algorithm_count ? dls_algorithms[m->algorithm].name : "?";
}

dls_status dls_message_match(const dls_message *ours, int us, const dls_message *theirs,
                             int them)
{
    char mine[200], other[200];
    if (ours->magic == theirs->magic && ours->kind == theirs->kind &&
        ours->dtype == theirs->dtype && ours->reduce == theirs->reduce &&
        ours->root == theirs->root && ours->count == theirs->count &&
        ours->number == theirs->number && ours->step == theirs->step &&
        ours->bytes == theirs->bytes && ours->algorithm == theirs->algorithm)
        return DLS_OK;
    dls_message_describe(ours, 1, mine, sizeof mine);
    dls_message_describe(theirs, 0, other, sizeof other);
    int same = ours->algorithm == theirs->algorithm;
    if (ours->kind == theirs->kind && ours->bytes != theirs->bytes && same &&
        ours->count == theirs->count)
        return DLS_FAIL(DLS_ERR_COMM, "rank %d calls %s and expects %llu bytes from rank "
                        "%d, which calls %s and sends %llu", us, mine,
                        (unsigned long long)ours->bytes, them, other,
                        (unsigned long long)theirs->bytes);
    return DLS_FAIL(DLS_ERR_COMM, "rank %d calls %s%s%s, but rank %d calls %s%s%s", us,
                    mine, same ? "" : " by the algorithm ", same ? "" : way_of(ours),
                    them, other, same ? "" : " by ", same ? "" : way_of(theirs));
}
