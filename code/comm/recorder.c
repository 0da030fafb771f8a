/* code/comm/recorder.c: from chapters/04-data-parallelism-faults.md. Edit the chapter, or edit here and run "make untangle". */
/* The flight recorder: shared memory, and notes in it. The layout is in recorder.h. */
#include "comm/recorder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_RECORDS = 256, MOST_RECORDS = 1 << 16 };
static const uint64_t MAGIC = 0x31306c6663657264; // "drecfl01"

/* lay out the recorder */
struct dls_recorder_head {
    uint64_t magic;
    int32_t world, records;
    double start;
};

static size_t bytes_of_rank(int records)
{
    return sizeof(dls_recorder_rank) + (size_t)records * sizeof(dls_record_slot);
}

static dls_recorder_rank *rank_at(const dls_recorder *r, int rank)
{
    char *first = (char *)(r->head + 1);
    return (dls_recorder_rank *)(first + (size_t)rank * bytes_of_rank(r->records));
}

static dls_record_slot *slot_of(const dls_recorder *r, int rank, uint64_t ticket)
{
    dls_record_slot *slots = (dls_record_slot *)(rank_at(r, rank) + 1);
    return &slots[(ticket - 1) % (uint64_t)r->records];
}

const dls_recorder_rank *dls_recorder_of(const dls_recorder *r, int rank)
{
    return rank_at(r, rank);
}

double dls_recorder_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* create the recorder */
static dls_status read_records(int *records)
{
    const char *text = getenv("DLS_RECORDER");
    char *end;
    *records = DEFAULT_RECORDS;
    if (!text || !*text)
        return DLS_OK;
    long n = strtol(text, &end, 10);
    if (*end || n < 1 || n > MOST_RECORDS)
        return DLS_FAIL(DLS_ERR_INPUT, "DLS_RECORDER=%s: expected how many operations a "
                        "rank keeps, 1 to %d", text, MOST_RECORDS);
    *records = (int)n;
    return DLS_OK;
}

/* fd -1: memory of this process alone. */
static dls_status map(int fd, int world, int records, dls_recorder *out)
{
    size_t bytes = sizeof(struct dls_recorder_head) +
                   (size_t)world * bytes_of_rank(records);
    int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (base == MAP_FAILED)
        return DLS_FAIL(DLS_ERR_MEMORY, "mapping %zu bytes of records: %s", bytes,
                        strerror(errno));
    *out = (dls_recorder){.head = base, .bytes = bytes, .fd = fd, .rank = -1,
                          .world = world, .records = records};
    return DLS_OK;
}

static void start(dls_recorder *r)
{
    r->start = dls_recorder_now();
    *r->head = (struct dls_recorder_head){MAGIC, r->world, r->records, r->start};
}

dls_status dls_recorder_create(int world, dls_recorder *out)
{
    int records;
    *out = (dls_recorder){.head = NULL, .fd = -1};
    DLS_TRY(read_records(&records));
    size_t bytes = sizeof(struct dls_recorder_head) +
                   (size_t)world * bytes_of_rank(records);
    int fd = memfd_create("dls-records", 0); // to be inherited, like the ranks' memory
    if (fd < 0 || ftruncate(fd, (off_t)bytes)) {
        if (fd >= 0)
            close(fd);
        return DLS_FAIL(DLS_ERR_MEMORY, "memory for the records of %d ranks: %s", world,
                        strerror(errno));
    }
    dls_status status = map(fd, world, records, out);
    if (status != DLS_OK) {
        close(fd);
        return status;
    }
    start(out);
    return DLS_OK;
}

/* attach to the recorder */
static dls_status check_memory(int fd, int world, struct dls_recorder_head *h)
{
    struct stat info;
    size_t bytes = sizeof *h;
    if (fstat(fd, &info) || pread(fd, h, sizeof *h, 0) != (ssize_t)sizeof *h ||
        h->magic != MAGIC || h->records < 1 || h->records > MOST_RECORDS)
        return DLS_FAIL(DLS_ERR_INPUT, "DLS_RECORDER_FD=%d: not the records of a "
                        "launcher; start the ranks with `dls run -n N`", fd);
    bytes += (size_t)world * bytes_of_rank(h->records);
    if (h->world != world || (size_t)info.st_size < bytes)
        return DLS_FAIL(DLS_ERR_INPUT, "DLS_WORLD_SIZE=%d: the launcher made records for "
                        "%d ranks", world, h->world);
    return DLS_OK;
}

static dls_status attach_shared(int fd, int world, dls_recorder *out)
{
    struct dls_recorder_head head;
    DLS_TRY(check_memory(fd, world, &head));
    DLS_TRY(map(fd, world, head.records, out));
    out->start = head.start;
    return DLS_OK;
}

static dls_status attach_private(int world, dls_recorder *out)
{
    int records;
    DLS_TRY(read_records(&records));
    DLS_TRY(map(-1, world, records, out));
    start(out);
    return DLS_OK;
}

dls_status dls_recorder_attach(int rank, int world, dls_recorder *out)
{
    const char *text = getenv("DLS_RECORDER_FD");
    *out = (dls_recorder){.head = NULL, .fd = -1};
    if (text && *text)
        DLS_TRY(attach_shared(atoi(text), world, out));
    else
        DLS_TRY(attach_private(world, out));
    out->rank = rank;
    atomic_store(&rank_at(out, rank)->pid, (int32_t)getpid());
    dls_recorder_see(out);
    return DLS_OK;
}

void dls_recorder_detach(dls_recorder *r)
{
    if (r->head)
        munmap(r->head, r->bytes);
    r->head = NULL;
}

/* copy records word by word */
static void put(dls_record_slot *slot, const dls_record *record)
{
    uint64_t word[DLS_RECORD_WORDS];
    memcpy(word, record, sizeof word);
    atomic_store_explicit(&slot->word[0], 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    for (int i = 1; i < DLS_RECORD_WORDS; i++)
        atomic_store_explicit(&slot->word[i], word[i], memory_order_relaxed);
    atomic_store_explicit(&slot->word[0], record->ticket, memory_order_release);
}

/* 1: *record is the one with this ticket; 0: it is gone, or not there yet. */
static int get(dls_record_slot *slot, uint64_t ticket, dls_record *record)
{
    uint64_t word[DLS_RECORD_WORDS];
    word[0] = atomic_load_explicit(&slot->word[0], memory_order_acquire);
    for (int i = 1; i < DLS_RECORD_WORDS; i++)
        word[i] = atomic_load_explicit(&slot->word[i], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    if (word[0] != ticket ||
        atomic_load_explicit(&slot->word[0], memory_order_relaxed) != ticket)
        return 0;
    memcpy(record, word, sizeof *record);
    return 1;
}

/* record a call */
uint64_t dls_recorder_call(dls_recorder *r, const dls_record *what)
{
    if (!r->head)
        return 0;
    dls_recorder_rank *me = rank_at(r, r->rank);
    dls_record record = *what;
    record.called = record.moved = dls_recorder_now();
    atomic_store(&me->moved, record.called); // before anything is left to do
    atomic_store(&me->seen, record.called);
    record.ticket = atomic_fetch_add(&me->calls, 1) + 1;
    put(slot_of(r, r->rank, record.ticket), &record);
    return record.ticket;
}

/* record what becomes of it */
static void set_word(dls_record_slot *slot, size_t offset, const void *value)
{
    uint64_t bits;
    memcpy(&bits, value, sizeof bits);
    atomic_store_explicit(&slot->word[offset / sizeof bits], bits, memory_order_relaxed);
}

/* The slot of a ticket that is still there, with its time of change set; else NULL. */
static dls_record_slot *touch(dls_recorder *r, uint64_t ticket, double *now)
{
    if (!r->head || ticket == 0)
        return NULL;
    dls_recorder_rank *me = rank_at(r, r->rank);
    dls_record_slot *slot = slot_of(r, r->rank, ticket);
    *now = dls_recorder_now();
    atomic_store(&me->moved, *now);
    atomic_store(&me->seen, *now);
    if (atomic_load_explicit(&slot->word[0], memory_order_relaxed) != ticket)
        return NULL;
    set_word(slot, offsetof(dls_record, moved), now);
    return slot;
}

void dls_recorder_begin(dls_recorder *r, uint64_t ticket, double virtual_time)
{
    double now;
    dls_record_slot *slot = touch(r, ticket, &now);
    if (!slot)
        return;
    set_word(slot, offsetof(dls_record, began), &now);
    set_word(slot, offsetof(dls_record, virtual_began), &virtual_time);
}

void dls_recorder_move(dls_recorder *r, uint64_t ticket, uint64_t bytes)
{
    double now;
    dls_record_slot *slot = touch(r, ticket, &now);
    if (slot)
        set_word(slot, offsetof(dls_record, bytes), &bytes);
}

void dls_recorder_end(dls_recorder *r, uint64_t ticket, uint64_t bytes,
                      double virtual_time)
{
    double now;
    dls_record_slot *slot = touch(r, ticket, &now);
    if (r->head && ticket)
        atomic_fetch_add(&rank_at(r, r->rank)->ends, 1);
    if (!slot)
        return;
    set_word(slot, offsetof(dls_record, bytes), &bytes);
    set_word(slot, offsetof(dls_record, ended), &now);
    set_word(slot, offsetof(dls_record, virtual_ended), &virtual_time);
}

void dls_recorder_see(dls_recorder *r)
{
    if (r->head)
        atomic_store(&rank_at(r, r->rank)->seen, dls_recorder_now());
}

/* read the records of a rank */
int dls_recorder_read(const dls_recorder *r, int rank, dls_record *records)
{
    uint64_t calls = atomic_load(&rank_at(r, rank)->calls);
    uint64_t kept = (uint64_t)r->records, first = calls > kept ? calls - kept + 1 : 1;
    int n = 0;
    for (uint64_t ticket = first; ticket <= calls; ticket++)
        n += get(slot_of(r, rank, ticket), ticket, &records[n]);
    return n;
}
