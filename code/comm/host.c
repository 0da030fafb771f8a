/* code/comm/host.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Collectives between host threads: all-gather over bulletin boards, barrier.
 * A page on every board, two boards per rank used in turn:
 *
 *   page p is posted on board p % 2 when everybody has posted page p - 1,
 *   which everybody does only after reading all of page p - 2. */
#include <stdio.h>
#include <string.h>

#include "comm/comm_private.h"
#include "vgpu/gpu.h"

/* define a host all gather in progress */
typedef struct gathering {
    dls_comm *comm;
    const char *mine;
    char *all;
    size_t bytes, first, n; // of the contribution; where this page begins; its size
    int posted, peer;       // this page is on our board; whose page is read next
    int done;
    double entered, latest; // virtual host time of ours, and of the last to enter
    char site[96];
} gathering;

/* post a page */
static void post_page(gathering *g)
{
    dls_transport *t = g->comm->all->transport;
    dls_local_board board = {.bytes = g->bytes, .time = g->entered};
    size_t left = g->bytes - g->first;
    g->n = left < DLS_LOCAL_BOARD ? left : DLS_LOCAL_BOARD;
    snprintf(board.site, sizeof board.site, "%s", g->site);
    if (g->n)
        memcpy(board.data, g->mine + g->first, g->n);
    t->calls->post(t, g->comm->context, g->comm->pages, &board);
    g->posted = 1;
    g->peer = 0;
}

/* read a page */
static int complain(gathering *g, const dls_local_board *board, const char *doing)
{
    dls_comm *c = g->comm;
    if (board)
        DLS_FAIL(DLS_ERR_COMM,
                 "rank %d gathers %zu bytes at %s, but rank %d gathers %llu "
                 "at %.95s", c->all->rank, g->bytes, g->site, c->member[g->peer],
                 (unsigned long long)board->bytes, board->site);
    else
        DLS_FAIL(DLS_ERR_COMM, "rank %d has finished, but rank %d %s",
                 c->member[g->peer], c->all->rank, doing);
    return -1;
}

/* 1: read; 0: not posted yet; -1: failed. */
static int read_page(gathering *g)
{
    dls_comm *c = g->comm;
    dls_transport *t = c->all->transport;
    int peer = c->member[g->peer], fate = t->calls->fate(t, peer);
    const dls_local_board *board = t->calls->look(t, c->context, peer, c->pages);
    /* go on waiting for the page */
    if (!board) {
        char *waits = c->all->host_waits;
        snprintf(waits, sizeof c->all->host_waits,
                 "waits in a barrier or host all-gather at %s for rank %d", g->site, peer);
        if (t->calls->check(t, waits) != DLS_OK)
            return -1;
        return fate == DLS_FATE_DONE ? complain(g, NULL, waits) : 0;
    }
    if (board->bytes != g->bytes)
        return complain(g, board, NULL);
    if (g->n)
        memcpy(g->all + (size_t)g->peer * g->bytes + g->first, board->data, g->n);
    g->latest = board->time > g->latest ? board->time : g->latest;
    return 1;
}

/* gather page by page */
static int gather_ready(void *arg, double *earliest)
{
    gathering *g = arg;
    int got = 1;
    *earliest = g->latest;
    if (g->done)
        return 1;
    do {
        if (!g->posted)
            post_page(g);
        while (g->peer < g->comm->world && (got = read_page(g)) > 0)
            g->peer++;
        if (got < 0)
            return dls_comm_give_up(g->comm);
        if (got == 0)
            return 0;
        g->comm->pages++;
        g->first += g->n;
        g->posted = 0;
    } while (g->first < g->bytes);
    g->comm->all->host_waits[0] = 0;
    *earliest = g->latest;
    return g->done = 1;
}

/* wait for the host all gather */
static void gather_describe(void *arg, char *text, size_t size)
{
    gathering *g = arg;
    snprintf(text, size, "rank %d in a barrier or host all-gather at %s",
             g->comm->member[g->peer], g->site);
}

int dls_host_awaited(const dls_gpu_op *op, const void *arg)
{
    const gathering *g = arg;
    return op->ready == gather_ready && !g->done ? g->comm->member[g->peer] : -1;
}

dls_status dls_comm_all_gather_host_at(dls_comm *comm, const void *mine, size_t bytes,
                                       void *all, const char *file, int line)
{
    if (comm->world == 1 || !comm->all) {
        for (int r = 0; bytes && r < comm->world; r++)
            memcpy((char *)all + r * bytes, mine, bytes);
        return DLS_OK;
    }
    gathering g = {.comm = comm, .mine = mine, .all = all, .bytes = bytes,
                   .entered = dls_gpu_host_time()};
    dls_message_site(g.site, sizeof g.site, file, line);
    uint64_t record = dls_note_host(comm, bytes, g.site);
    comm->host_calls++;
/* wait by ourselves on a real device */
#ifdef DLS_BACKEND_cuda
    double earliest;
    int ready;
    while ((ready = gather_ready(&g, &earliest)) == 0)
        if (comm->all->transport->calls->quiet(comm->all->transport))
            comm->all->transport->calls->sleep(comm->all->transport, 0.1);
    if (ready > 0)
        dls_note_host_end(record);
    return ready > 0 ? DLS_OK : DLS_ERR_COMM;
#endif
    dls_gpu_op op = {.name = bytes ? "host all-gather" : "barrier", .kind = DLS_GPU_HOST,
                     .ready = gather_ready, .describe = gather_describe, .file = file,
                     .line = line};
    DLS_CUDA(dls_gpu_enqueue(comm->all->stream, &op, &g));
    DLS_CUDA((cudaStreamSynchronize)(comm->all->stream)); // not a call to be noted
    dls_note_host_end(record);
    return DLS_OK;
}

dls_status dls_comm_barrier_at(dls_comm *comm, const char *file, int line)
{
    char nothing = 0;
    return dls_comm_all_gather_host_at(comm, &nothing, 0, &nothing, file, line);
}
