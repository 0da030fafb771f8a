/* code/comm/window.c: from chapters/08-dispatch-nodes-one-sided.md. Edit the chapter, or edit here and run "make untangle". */
/* Windows: written by others, read here. See window.h. */
#include "comm/window.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm_private.h"
#include "comm/heap.h"
#include "vgpu/gpu.h"

/* define a window */
typedef struct signal {
    _Alignas(64) _Atomic uint64_t turn; // whose rows are there; the last to be written
    double departure;                   // virtual s
    uint64_t bytes;
} signal;

struct dls_window {
    dls_comm *comm;
    int slots;
    size_t slot, half;                  // bytes
    char *base, *at[DLS_COMM_RANKS];    // this rank's; every rank's, as seen from here
    uint64_t turn;                      // begun so far
    dls_window_statistics stats;
};

/* open a window of rows */
static size_t line(size_t n) { return (n + 255) / 256 * 256; }

static dls_status see_all(dls_window *w)
{
    uint64_t offset, all[DLS_COMM_RANKS];
    dls_comm *c = w->comm;
    if (!c->all->local || !dls_heap_is_used() ||
        !dls_heap_find(w->base, 2 * w->half, &offset))
        offset = DLS_PRIVATE;
    DLS_TRY(dls_comm_all_gather_host(c, &offset, sizeof offset, all));
    for (int r = 0; r < c->world; r++) {
        w->at[r] = r == c->rank ? w->base : NULL;
        if (all[r] != DLS_PRIVATE && offset != DLS_PRIVATE && r != c->rank)
            w->at[r] = dls_heap_at(c->all->local, c->member[r], all[r]);
        if (!w->at[r] || all[r] == DLS_PRIVATE)
            return DLS_FAIL(DLS_ERR_INPUT, "one-sided: the memory of rank %d is not to be "
                            "seen from rank %d; expected virtual GPUs of one machine",
                            c->member[r], c->member[c->rank]);
    }
    return DLS_OK;
}

static size_t half_bytes(int ranks, int slots, size_t bytes)
{
    return line(ranks * sizeof(signal)) + line(slots * sizeof(int))
         + line((size_t)slots * bytes);
}

size_t dls_window_bytes(int ranks, int slots, size_t bytes)
{
    return 2 * half_bytes(ranks, slots, bytes);
}

/* take memory for a window */
dls_status dls_window_open(dls_window **out, dls_comm *comm, int slots, size_t bytes)
{
    dls_window *w = calloc(1, sizeof *w);
    if (!w)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a window");
    *w = (dls_window){.comm = comm, .slots = slots, .slot = bytes};
    w->half = half_bytes(comm->world, slots, bytes);
    w->stats.memory = 2 * w->half;
    dls_memory_purpose before = dls_gpu_memory_purpose(DLS_MEM_COMMUNICATION);
    cudaError_t error = dls_gpu_alloc_shared((void **)&w->base, 2 * w->half);
    dls_gpu_memory_purpose(before);
    dls_status s = DLS_OK;
    if (error != cudaSuccess)
        DLS_TRY_GOTO(s, dls_gpu_fail((int)error, "a window", __FILE__, __LINE__), fail);
    for (int h = 0; h < 2; h++)
        memset(w->base + h * w->half, 0, line(comm->world * sizeof(signal)));
    DLS_TRY_GOTO(s, see_all(w), fail);
    *out = w;
    return DLS_OK;
fail:
    dls_window_close(w);
    return s;
}

/* close a window of rows */
void dls_window_close(dls_window *w)
{
    if (w)
        cudaFree(w->base);
    free(w);
}

dls_window_statistics dls_window_stats(const dls_window *w) { return w->stats; }

/* find places in a window */
// Of the half of a turn, in rank r's window.
static char *half_of(const dls_window *w, int r, uint64_t turn)
{
    return w->at[r] + turn % 2 * w->half;
}

static signal *signal_of(const dls_window *w, int r, uint64_t turn, int from)
{
    return (signal *)half_of(w, r, turn) + from;
}

static int *counts_of(const dls_window *w, int r, uint64_t turn)
{
    return (int *)(half_of(w, r, turn) + line(w->comm->world * sizeof(signal)));
}

static char *slot_of(const dls_window *w, int r, uint64_t turn, int slot)
{
    return (char *)counts_of(w, r, turn) + line(w->slots * sizeof(int)) +
           (size_t)slot * w->slot;
}

/* put rows into windows */
/* put rows at once */
typedef struct turn {
    dls_window *window;
    dls_window_rows rows;
    uint64_t number;
    const char *from;
    char *to;
    int *came;
    const char *file;
} turn;

static int per_rank(const turn *x) { return x->window->slots / x->window->comm->world; }

// Of block k for rank r: its number here, and its slot there.
static int block_of(const turn *x, int r, int k, int *slot)
{
    int n = x->window->comm->world, me = x->window->comm->rank, per = per_rank(x);
    int by_rank = x->rows.order == DLS_BY_RANK;
    *slot = by_rank ? k * n + me : me * per + k;
    return by_rank ? r * per + k : k * n + r;
}

/* check what is put */
static int are_right(const turn *x)
{
    const dls_window_rows *rows = &x->rows;
    int n = x->window->slots;
    if (rows->check && rows->check(rows->count, n) != DLS_OK)
        return 0;
    for (int b = 0; b < n; b++)
        if (rows->count[b] < 0 || rows->count[b] > rows->room) {
            DLS_FAIL(DLS_ERR_STATE, "one-sided: %d rows in block %d; there is room for %d",
                     rows->count[b], b, rows->room);
            return 0;
        }
    return 1;
}

/* write the blocks */
// Writes the blocks for rank r; *from: where they begin, by rank. Returns the bytes.
static size_t write_blocks(const turn *x, int r, const char **from)
{
    const dls_window *w = x->window;
    size_t bytes = 0;
    for (int k = 0, slot; k < per_rank(x); k++) {
        int block = block_of(x, r, k, &slot), count = x->rows.count[block];
        size_t size = count * x->rows.row;
        if (x->rows.order == DLS_BY_BLOCK)
            *from = x->from + (size_t)block * x->rows.room * x->rows.row;
        counts_of(w, r, x->number)[slot] = count;
        if (size)
            memcpy(slot_of(w, r, x->number, slot), *from, size);
        *from += size;
        bytes += sizeof count + size;
    }
    return bytes;
}

/* order the messages */
// The rank that is message d's; d = 0: this one.
static int peer_of(const dls_comm *c, int d)
{
    int P = c->per_node > 0 ? c->per_node : c->world, N = c->world / P;
    int node = (c->rank / P + d / P) % N, place = (c->rank % P + d % P) % P;
    return node * P + place;
}

// The messages of the turn as a step of an algorithm, from which times follow.
static void list_messages(dls_step *step, const dls_comm *c, const size_t *bytes)
{
    dls_step_clear(step);
    for (int d = 1; d < c->world; d++)
        dls_step_send(step, peer_of(c, d), DLS_IN, 0, bytes[peer_of(c, d)]);
}

/* raise the signals */
static void raise_signals(const turn *x, const dls_step *step, const double *departure)
{
    dls_window *w = x->window;
    for (int i = 0; i < step->sends; i++) {
        int r = step->send[i].peer;
        signal *s = signal_of(w, r, x->number, w->comm->rank);
        s->departure = departure[i];
        s->bytes = step->send[i].count;
        w->stats.bytes[r] += s->bytes;
        w->stats.messages++;
        atomic_store_explicit(&s->turn, x->number, memory_order_release);
        dls_local_ring(w->comm->all->local, w->comm->member[r]);
    }
}

/* run a put */
static int put_run(void *arg, double start, double *finish)
{
    turn *x = arg;
    const dls_comm *c = x->window->comm;
    size_t bytes[DLS_COMM_RANKS];
    double departure[DLS_COMM_RANKS];
    const char *from = x->from;
    dls_step step;
    if (!are_right(x))
        return dls_comm_give_up(x->window->comm);
    for (int r = 0; r < c->world; r++)
        bytes[r] = write_blocks(x, r, &from);
    list_messages(&step, c, bytes);
    *finish = dls_departures(c->links, c->world, c->rank, &step, 1, start, departure);
    raise_signals(x, &step, departure);
    return 0;
}

/* take rows from windows */
/* wait for signals */
// The rank that has not raised its signal; -1: all have.
static int who_is_missing(const turn *x)
{
    const dls_comm *c = x->window->comm;
    for (int d = 1; d < c->world; d++) {
        int r = (c->rank + d) % c->world;
        const signal *s = signal_of(x->window, c->rank, x->number, r);
        if (atomic_load_explicit(&s->turn, memory_order_acquire) != x->number)
            return r;
    }
    return -1;
}

/* compute the arrivals */
static double arrival_of_all(const turn *x)
{
    const dls_comm *c = x->window->comm;
    double departure[DLS_COMM_RANKS], arrival[DLS_COMM_RANKS];
    dls_step step;
    dls_step_clear(&step);
    for (int d = 1; d < c->world; d++) {
        int r = (c->rank + d) % c->world;
        const signal *s = signal_of(x->window, c->rank, x->number, r);
        departure[step.receives] = s->departure;
        dls_step_receive(&step, r, DLS_OUT, 0, s->bytes);
    }
    return dls_arrivals(c->links, c->world, c->rank, &step, 1, 0, departure, arrival);
}

static void describe_take(void *arg, char *text, size_t size)
{
    const turn *x = arg;
    int r = who_is_missing(x);
    snprintf(text, size, "waits for the rows of turn %llu of rank %d",
             (unsigned long long)x->number, r < 0 ? r : x->window->comm->member[r]);
}

/* look for lost ranks */
static int look_for_signals(const turn *x)
{
    const dls_comm *c = x->window->comm;
    dls_transport *t = c->all->transport;
    int r = who_is_missing(x);
    char doing[DLS_LOCAL_WAIT];
    if (r < 0)
        return 1;
    int ended = t->calls->fate(t, c->member[r]) != DLS_FATE_RUNNING;
    if ((!ended && !t->calls->failed(t)) || who_is_missing(x) != r)
        return 0;
    describe_take((void *)x, doing, sizeof doing);
    if (t->calls->check(t, doing) == DLS_OK)
        DLS_FAIL(DLS_ERR_COMM, "rank %d has finished, but rank %d %s", c->member[r],
                 c->all->rank, doing);
    return dls_comm_give_up(x->window->comm);
}

/* run a take */
static int take_ready(void *arg, double *earliest)
{
    turn *x = arg;
    pthread_mutex_lock(&x->window->comm->all->lock);
    int ready = look_for_signals(x);
    pthread_mutex_unlock(&x->window->comm->all->lock);
    *earliest = ready > 0 ? arrival_of_all(x) : 0;
    return ready;
}

static int take_run(void *arg, double start, double *finish)
{
    const turn *x = arg;
    const dls_window *w = x->window;
    if (x->came)
        memcpy(x->came, counts_of(w, w->comm->rank, x->number), sizeof(int) * w->slots);
    *finish = start;
    return 0;
}

/* take rows out */
static int unpack_run(void *arg, double start, double *finish)
{
    turn *x = arg;
    const dls_window *w = x->window;
    const dls_window_rows *rows = &x->rows;
    int me = w->comm->rank;
    const int *counts = counts_of(w, me, x->number);
    char *to = x->to;
    (void)start, (void)finish;
    for (int s = 0; s < w->slots; s++) {
        size_t size = counts[s] * rows->row, room = rows->room * rows->row;
        if (rows->order == DLS_BY_RANK && counts[s] != rows->count[s]) {
            DLS_FAIL(DLS_ERR_STATE, "one-sided: %d rows came back to slot %d, where %d "
                     "had left", counts[s], s, rows->count[s]);
            return dls_comm_give_up(w->comm);
        }
        memcpy(to, slot_of(w, me, x->number, s), size);
        if (rows->order == DLS_BY_BLOCK)
            memset(to + size, 0, room - size);
        to += rows->order == DLS_BY_BLOCK ? room : size;
    }
    return 0;
}

/* enqueue a turn */
static dls_status enqueue(const dls_gpu_op *op, const turn *what, cudaStream_t stream)
{
    turn *x = malloc(sizeof *x);
    if (!x)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a turn of a window");
    *x = *what;
    DLS_CUDA(dls_gpu_enqueue(stream, op, x));
    return DLS_OK;
}

static dls_status check_rows(const dls_window *w, const dls_window_rows *rows)
{
    return rows->room * rows->row <= w->slot ? DLS_OK
        : DLS_FAIL(DLS_ERR_INPUT, "one-sided: %d rows of %zu bytes; a slot has %zu bytes",
                   rows->room, rows->row, w->slot);
}

/* enqueue a put */
dls_status dls_window_put(dls_window *w, const dls_window_rows *rows, const void *from,
                          cudaStream_t stream)
{
    DLS_TRY(check_rows(w, rows));
    turn x = {.window = w, .rows = *rows, .number = ++w->turn, .from = from};
    w->stats.turns++;
    dls_gpu_op put = {.name = "put", .kind = DLS_GPU_COMMUNICATION, .run = put_run,
                      .destroy = free, .file = __FILE__, .line = __LINE__};
    return enqueue(&put, &x, stream);
}

/* enqueue a take */
dls_status dls_window_take(dls_window *w, const dls_window_rows *rows, void *to, int *came,
                           cudaStream_t stream)
{
    turn x = {.window = w, .rows = *rows, .number = w->turn, .to = to, .came = came};
    double bytes = (double)w->slots * rows->room * rows->row;
    dls_gpu_op take = {.name = "wait for rows", .kind = DLS_GPU_COMMUNICATION,
                       .ready = take_ready, .run = take_run, .describe = describe_take,
                       .destroy = free, .file = __FILE__, .line = __LINE__};
    dls_gpu_op unpack = {.name = "take rows", .kind = DLS_GPU_COMPUTE, .planned = 1,
                         .work = DLS_WORK_ELEMENTWISE, .bytes = 2 * bytes,
                         .run = unpack_run, .destroy = free};
    DLS_TRY(check_rows(w, rows));
    DLS_TRY(enqueue(&take, &x, stream));
    return enqueue(&unpack, &x, stream);
}
