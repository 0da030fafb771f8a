/* code/comm/message.h: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* What a message says about itself, and whether that is what the receiver expects.
 * Private to comm/. */
#ifndef DLS_COMM_MESSAGE_H
#define DLS_COMM_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "comm/mailbox.h"

/* define a message header */
typedef enum dls_message_kind {
    DLS_MESSAGE_SEND_RECV = 1,
    DLS_MESSAGE_ALL_REDUCE,
    DLS_MESSAGE_BROADCAST,
    DLS_MESSAGE_REDUCE_SCATTER,
    DLS_MESSAGE_ALL_GATHER,
    DLS_MESSAGE_REDUCE,
    DLS_MESSAGE_GATHER,
    DLS_MESSAGE_SCATTER,
    DLS_MESSAGE_ALL_TO_ALL,
    DLS_MESSAGE_ALL_TO_ALL_V,
    DLS_MESSAGE_KINDS
} dls_message_kind;

typedef struct dls_message {
    uint32_t magic;
    uint8_t kind, dtype, reduce, algorithm;
    int32_t root;      // world rank; -1: the operation has none
    uint32_t step;     // how many messages of this operation went this way before
    uint64_t number;   // which collective, or which message from this sender
    uint64_t count;    // elements of the whole operation
    uint64_t bytes;    // that follow this header
    double departure;  // virtual time, s
    char site[80];     // file:line of the sender's call
} dls_message;

_Static_assert(sizeof(dls_message) == DLS_MAILBOX_LINE, "a header is one record");

/* "all-reduce", "send", ...: a constant string. */
const char *dls_message_name(const dls_message *m, int receiving);

/* "sum", "avg" ...; "" if the operation does not reduce. */
const char *dls_message_reduction(const dls_message *m);

/* Writes "all-reduce of 100 f32 (sum) at FILE:LINE (collective 17)". */
void dls_message_describe(const dls_message *m, int receiving, char *text, size_t size);

/* site (size) := "FILE:LINE", as much of it as fits. */
void dls_message_site(char *site, size_t size, const char *file, int line);

/* DLS_OK if `theirs`, from rank `them`, is what `ours` of rank `us` expects. Otherwise
 * DLS_ERR_COMM with both descriptions. */
dls_status dls_message_match(const dls_message *ours, int us, const dls_message *theirs,
                             int them);

#endif
