/* code/comm/mailbox.h: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* A one-way queue of bytes between two processes: one writer, one reader, no locks.
 *
 *        taken            written
 *          v                 v
 *   | free | xxxxxxxxxxxxxxx | free |      counters grow for ever; place = counter % size
 *
 * Both sides work in place: they ask for the next contiguous stretch, fill or read it,
 * and then move their counter. So a reduction adds straight from the queue.
 * Everything is rounded up to 128 bytes: records are aligned for any type and a header
 * never wraps around. Private to comm/. */
#ifndef DLS_COMM_MAILBOX_H
#define DLS_COMM_MAILBOX_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* define a mailbox */
enum {
    DLS_MAILBOX_LINE = 128,        // two cache lines: the prefetcher works in pairs
    DLS_MAILBOX_BYTES = 256 << 10,
    DLS_MAILBOX_PIECE = 32 << 10
};

typedef struct dls_mailbox {
    _Alignas(DLS_MAILBOX_LINE) _Atomic uint64_t written; // by the sender alone
    _Alignas(DLS_MAILBOX_LINE) _Atomic uint64_t taken;   // by the receiver alone
    _Alignas(DLS_MAILBOX_LINE) unsigned char bytes[DLS_MAILBOX_BYTES];
} dls_mailbox;

/* What a record of n bytes occupies. */
static inline size_t dls_mailbox_round(size_t n)
{
    return (n + DLS_MAILBOX_LINE - 1) & ~(size_t)(DLS_MAILBOX_LINE - 1);
}

/* find room and publish */
/* Sender: the contiguous bytes that can be written at *at; 0 when full. */
static inline size_t dls_mailbox_room(dls_mailbox *box, void **at)
{
    uint64_t written = atomic_load_explicit(&box->written, memory_order_relaxed);
    uint64_t taken = atomic_load(&box->taken);
    size_t place = written % DLS_MAILBOX_BYTES;
    size_t room = DLS_MAILBOX_BYTES - (size_t)(written - taken);
    size_t to_end = DLS_MAILBOX_BYTES - place;
    *at = box->bytes + place;
    return room < to_end ? room : to_end;
}

/* Sender: n bytes, rounded up, are written and may be read. */
static inline void dls_mailbox_publish(dls_mailbox *box, size_t n)
{
    uint64_t written = atomic_load_explicit(&box->written, memory_order_relaxed);
    atomic_store(&box->written, written + dls_mailbox_round(n));
}

/* find bytes and release */
/* Receiver: the contiguous bytes that can be read at *at; 0 when empty. */
static inline size_t dls_mailbox_waiting(dls_mailbox *box, const void **at)
{
    uint64_t taken = atomic_load_explicit(&box->taken, memory_order_relaxed);
    uint64_t written = atomic_load_explicit(&box->written, memory_order_acquire);
    size_t place = taken % DLS_MAILBOX_BYTES;
    size_t waiting = (size_t)(written - taken);
    size_t to_end = DLS_MAILBOX_BYTES - place;
    *at = box->bytes + place;
    return waiting < to_end ? waiting : to_end;
}

/* Receiver: n bytes, rounded up, have been read and may be overwritten. 1: it was full,
 * or nearly; its sender may wait for room and has to be told. */
static inline int dls_mailbox_release(dls_mailbox *box, size_t n)
{
    uint64_t taken = atomic_load_explicit(&box->taken, memory_order_relaxed);
    atomic_store(&box->taken, taken + dls_mailbox_round(n));
    return atomic_load(&box->written) - taken > DLS_MAILBOX_BYTES - 2 * DLS_MAILBOX_LINE;
}

#endif
