/* code/comm/plugin_mpi.c: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* The carrier of frames over MPI: dls-mpi.so, built where mpicc is found.
 *
 * Frames from one rank to another share a tag, so MPI keeps their order. */
#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm/carrier.h"

/* keep frames under way */
enum { TAG = 2026, UNDER_WAY = 4096 };

typedef struct mpi {
    dls_carrier base;
    MPI_Comm comm;
    MPI_Request request[UNDER_WAY];
    void *copy[UNDER_WAY];
    int to[UNDER_WAY], count;
    size_t bytes[UNDER_WAY], *waiting; // (world)
    char in[DLS_FRAME + 64];
    int began; // MPI: 1: by us
} mpi;

/* Frees the copies of what has been sent. */
static void settle(mpi *m)
{
    for (int i = 0, sent; i < m->count;) {
        if (MPI_Test(&m->request[i], &sent, MPI_STATUS_IGNORE) != MPI_SUCCESS || !sent) {
            i++;
            continue;
        }
        m->waiting[m->to[i]] -= m->bytes[i];
        free(m->copy[i]);
        int last = --m->count;
        m->request[i] = m->request[last];
        m->copy[i] = m->copy[last];
        m->to[i] = m->to[last];
        m->bytes[i] = m->bytes[last];
    }
}

/* push a frame with mpi */
static int mpi_push(dls_carrier *c, int to, const void *frame, size_t bytes)
{
    mpi *m = (mpi *)c;
    void *copy = malloc(bytes);
    if (!copy)
        return -1;
    while (m->count == UNDER_WAY)
        settle(m);
    memcpy(copy, frame, bytes);
    int i = m->count;
    if (MPI_Isend(copy, (int)bytes, MPI_BYTE, to, TAG, m->comm, &m->request[i]) !=
        MPI_SUCCESS) {
        free(copy);
        return -1;
    }
    m->copy[i] = copy;
    m->to[i] = to;
    m->bytes[i] = bytes;
    m->waiting[to] += bytes;
    m->count++;
    return 0;
}

static size_t mpi_backlog(dls_carrier *c, int to) { return ((mpi *)c)->waiting[to]; }

/* poll mpi */
static int poll_once(mpi *m, dls_deliver *deliver, void *to)
{
    int came = 0, there = 1, bytes = 0;
    MPI_Status status;
    settle(m);
    while (MPI_Iprobe(MPI_ANY_SOURCE, TAG, m->comm, &there, &status) == MPI_SUCCESS &&
           there) {
        MPI_Get_count(&status, MPI_BYTE, &bytes);
        if (bytes > (int)sizeof m->in ||
            MPI_Recv(m->in, bytes, MPI_BYTE, status.MPI_SOURCE, TAG, m->comm,
                     MPI_STATUS_IGNORE) != MPI_SUCCESS)
            return came;
        deliver(to, status.MPI_SOURCE, m->in, (size_t)bytes);
        came++;
    }
    return came;
}

static int mpi_poll(dls_carrier *c, double seconds, dls_deliver *deliver, void *to)
{
    mpi *m = (mpi *)c;
    double until = MPI_Wtime() + seconds;
    int came = poll_once(m, deliver, to);
    for (int asked = 0; !came && seconds > 0 && MPI_Wtime() < until; asked++) {
        struct timespec pause = {0, asked < 100 ? 10000 : 100000};
        if (asked < 50)
            sched_yield();
        else
            nanosleep(&pause, NULL);
        came = poll_once(m, deliver, to);
    }
    return came;
}

static int mpi_lost(dls_carrier *c, int rank)
{
    (void)c;
    (void)rank;
    return 0; // MPI ends the whole job when a rank is lost
}

/* open mpi */
static void mpi_close(dls_carrier *c)
{
    mpi *m = (mpi *)c;
    while (m->count > 0)
        settle(m);
    MPI_Comm_free(&m->comm);
    if (m->began)
        MPI_Finalize();
    free(m->waiting);
    free(m);
}

/* NULL: MPI can not begin, or there is no memory. */
dls_carrier *dls_mpi_open(void)
{
    int begun = 0, thread;
    mpi *m = calloc(1, sizeof *m);
    if (!m || MPI_Initialized(&begun) != MPI_SUCCESS)
        return NULL;
    if (!begun && MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &thread) !=
                      MPI_SUCCESS)
        return NULL;
    m->began = !begun;
    MPI_Comm_dup(MPI_COMM_WORLD, &m->comm);
    MPI_Comm_set_errhandler(m->comm, MPI_ERRORS_RETURN);
    m->base = (dls_carrier){.push = mpi_push, .backlog = mpi_backlog, .poll = mpi_poll,
                            .lost = mpi_lost, .close = mpi_close};
    MPI_Comm_rank(m->comm, &m->base.rank);
    MPI_Comm_size(m->comm, &m->base.world);
    m->waiting = calloc((size_t)m->base.world, sizeof *m->waiting);
    return m->waiting ? &m->base : NULL;
}
