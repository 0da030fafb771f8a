/* code/comm/local.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The memory shared by the ranks of a machine: creation, bells, fates.
 * The layout is in local.h. */
#include "comm/local.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const uint64_t MAGIC = 0x32306c61636f6c64; // "dlocal02"

/* lay out the shared memory */
static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Where the heaps begin, behind `bytes`; 0: there are none. The launcher makes them. */
static off_t find_heaps(int fd, int rank, int world, size_t bytes)
{
    struct rlimit limit;
    struct stat info;
    off_t heaps = (off_t)round_up(bytes, (size_t)2 << 20);
    off_t end = heaps + (off_t)world * (off_t)DLS_LOCAL_HEAP;
    if (rank < 0 && (getrlimit(RLIMIT_FSIZE, &limit) || limit.rlim_cur < (rlim_t)end ||
                     ftruncate(fd, end)))
        return 0;
    return fstat(fd, &info) == 0 && info.st_size >= end ? heaps : 0;
}

/* Maps the descriptor and finds the parts. */
static dls_status map(int fd, int rank, int world, dls_local *out)
{
    size_t ranks = round_up(sizeof(dls_local_head), DLS_MAILBOX_LINE);
    size_t bytes = round_up(ranks + (size_t)world * sizeof(dls_local_rank), 4096);
    size_t each = round_up((size_t)world * sizeof(dls_local_post) +
                           (size_t)world * world * sizeof(dls_mailbox), 4096);
    if (rank < 0 && ftruncate(fd, (off_t)(bytes + DLS_LOCAL_CONTEXTS * each)))
        return DLS_FAIL(DLS_ERR_MEMORY, "shared memory for %d ranks: %s", world,
                        strerror(errno));
    off_t heaps = find_heaps(fd, rank, world, bytes + DLS_LOCAL_CONTEXTS * each);
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return DLS_FAIL(DLS_ERR_MEMORY, "mapping %zu bytes shared by %d ranks: %s",
                        bytes, world, strerror(errno));
    *out = (dls_local){.head = base, .bytes = bytes, .context_bytes = each, .fd = fd,
                       .rank = rank, .world = world, .heaps = heaps};
    out->ranks = (dls_local_rank *)((char *)base + ranks);
    return DLS_OK;
}

dls_status dls_local_open(dls_local *local, int context)
{
    off_t from = (off_t)(local->bytes + (size_t)context * local->context_bytes);
    if (local->context[context])
        return DLS_OK;
    void *at = mmap(NULL, local->context_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                    local->fd, from);
    if (at == MAP_FAILED)
        return DLS_FAIL(DLS_ERR_MEMORY, "mapping %zu bytes of communicator %d: %s",
                        local->context_bytes, context, strerror(errno));
    local->context[context] = at;
    return DLS_OK;
}

dls_local_post *dls_local_posts(const dls_local *local, int context, int rank)
{
    return (dls_local_post *)local->context[context] + rank;
}

dls_mailbox *dls_local_box(const dls_local *local, int context, int from, int to)
{
    dls_mailbox *boxes = (dls_mailbox *)dls_local_posts(local, context, local->world);
    return &boxes[(size_t)from * (size_t)local->world + (size_t)to];
}

/* create the shared memory */
dls_status dls_local_create(int world, dls_local *out)
{
    if (world < 1 || world > DLS_LOCAL_MAX_RANKS)
        return DLS_FAIL(DLS_ERR_INPUT, "%d ranks: expected 1 to %d", world,
                        DLS_LOCAL_MAX_RANKS);
    int fd = memfd_create("dls-ranks", 0); // without CLOEXEC: it is meant to be inherited
    if (fd < 0)
        return DLS_FAIL(DLS_ERR_MEMORY, "shared memory for %d ranks: %s", world,
                        strerror(errno));
    dls_status status = map(fd, -1, world, out);
    if (status != DLS_OK) {
        close(fd);
        return status;
    }
    out->head->world = (uint32_t)world;
    out->head->magic = MAGIC;
    return DLS_OK;
}

/* spread the ranks over the cores */
/* Moves this thread to a core by its rank's number, and leaves it free to be moved. */
static void spread(int rank)
{
    cpu_set_t all, one;
    int core = 0;
    if (sched_getaffinity(0, sizeof all, &all))
        return; // more cores than fit
    for (int turn = rank % CPU_COUNT(&all); turn > 0 || !CPU_ISSET(core, &all); core++)
        turn -= CPU_ISSET(core, &all);
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    if (sched_setaffinity(0, sizeof one, &one) == 0)
        sched_setaffinity(0, sizeof all, &all);
}

/* attach to the shared memory */
dls_status dls_local_attach(int fd, int rank, int world, dls_local *out)
{
    dls_local_head head;
    struct stat info;
    if (fstat(fd, &info) || pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head ||
        head.magic != MAGIC)
        return DLS_FAIL(DLS_ERR_INPUT, "DLS_ARENA_FD=%d: not the shared memory of a "
                        "launcher; start the ranks with `dls run -n N`", fd);
    if ((int)head.world != world)
        return DLS_FAIL(DLS_ERR_INPUT,
                        "DLS_WORLD_SIZE=%d: the launcher made shared memory "
                        "for %u ranks", world, head.world);
    DLS_TRY(map(fd, rank, world, out));
    DLS_TRY(dls_local_open(out, 0));
    atomic_store(&out->ranks[rank].pid, (int32_t)getpid());
    spread(rank);
    return DLS_OK;
}

void dls_local_detach(dls_local *local)
{
    for (int i = 0; i < DLS_LOCAL_CONTEXTS; i++)
        if (local->context[i])
            munmap(local->context[i], local->context_bytes);
    if (local->head)
        munmap(local->head, local->bytes);
    *local = (dls_local){.head = NULL};
}

/* ring a bell */
void dls_local_ring(dls_local *local, int to)
{
    dls_local_rank *rank = &local->ranks[to];
    atomic_fetch_add(&rank->bell, 1);
    if (atomic_load(&rank->asleep))
        syscall(SYS_futex, &rank->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void dls_local_ring_all(dls_local *local)
{
    for (int r = 0; r < local->world; r++)
        dls_local_ring(local, r);
}

/* record a fate */
void dls_local_fail(dls_local *local, int rank, dls_status status, const char *text,
                    size_t quoted)
{
    dls_local_rank *record = &local->ranks[rank];
    uint32_t nobody = 0;
    if (atomic_load(&record->fate) == DLS_FATE_FAILED)
        return; // the first report is the one that matters
    record->status = (int32_t)status;
    record->quoted = (uint32_t)(quoted ? quoted : sizeof record->failure);
    snprintf(record->failure, sizeof record->failure, "%s", text);
    atomic_store(&record->fate, DLS_FATE_FAILED);
    atomic_compare_exchange_strong(&local->head->culprit, &nobody, (uint32_t)rank + 1);
    dls_local_ring_all(local);
}

void dls_local_done(dls_local *local, int rank)
{
    uint32_t running = DLS_FATE_RUNNING;
    atomic_compare_exchange_strong(&local->ranks[rank].fate, &running, DLS_FATE_DONE);
    dls_local_ring_all(local);
}

int dls_local_fate(const dls_local *local, int rank)
{
    return (int)atomic_load(&local->ranks[rank].fate);
}

dls_status dls_local_check(const dls_local *local, const char *doing)
{
    uint32_t culprit = atomic_load(&local->head->culprit);
    if (!culprit)
        return DLS_OK;
    const dls_local_rank *first = &local->ranks[culprit - 1];
    if ((int)culprit - 1 == local->rank && first->quoted >= sizeof first->failure)
        return DLS_FAIL(DLS_ERR_COMM, "rank %d %s", local->rank, first->failure);
    return DLS_FAIL(DLS_ERR_COMM, "rank %d %.*s; this rank %s", (int)culprit - 1,
                    (int)first->quoted, first->failure, doing);
}

/* sleep until the bell rings */
enum { LINGER = 2000, SPIN = 200, YIELD = 20 }; // looks at the bell; that take as long

static _Thread_local uint32_t heard; // the bell when this thread last looked around

int dls_local_quiet(const dls_local *local)
{
    uint32_t bell = atomic_load(&local->ranks[local->rank].bell), before = heard;
    heard = bell;
    return bell == before;
}

uint32_t dls_local_heard(void) { return heard; }

/* 1: a rank that we wait for needs the core that we run on. */
static int is_in_the_way(dls_local *local)
{
    _Atomic int32_t *ours = &local->ranks[local->rank].core;
    int core = sched_getcpu(), shared = 0;
    if (atomic_load_explicit(ours, memory_order_relaxed) != core)
        atomic_store_explicit(ours, core, memory_order_relaxed);
    for (int r = 0; r < local->world && !shared; r++)
        shared = (local->awaited >> r & 1) && r != local->rank &&
                 atomic_load_explicit(&local->ranks[r].core,
                                      memory_order_relaxed) == core;
    return shared;
}

void dls_local_make_way(dls_local *local)
{
    if (local->awaited && is_in_the_way(local))
        sched_yield();
}

static inline void pause_core(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#endif
}

int dls_local_linger(dls_local *local)
{
    const _Atomic uint32_t *bell = &local->ranks[local->rank].bell;
    for (int left = LINGER; left > 0; left -= YIELD) {
        int spin = is_in_the_way(local) ? 1 : SPIN;
        for (; spin > 0; spin--, left--) {
            if (atomic_load(bell) != heard)
                return 1;
            pause_core();
        }
        sched_yield();
    }
    return 0;
}

int dls_local_sleep(dls_local *local, double seconds)
{
    dls_local_rank *me = &local->ranks[local->rank];
    struct timespec limit = {(time_t)seconds, (long)(1e9 * (seconds - (long)seconds))};
    atomic_fetch_add(&me->asleep, 1);
    long rc = syscall(SYS_futex, &me->bell, FUTEX_WAIT, heard, &limit, NULL, 0);
    int timed_out = rc < 0 && errno == ETIMEDOUT;
    atomic_fetch_sub(&me->asleep, 1);
    return timed_out;
}
