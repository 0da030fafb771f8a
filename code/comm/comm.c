/* code/comm/comm.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The communicator of the world: who we are, and how we come and go. */
#include "comm/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "comm/choose.h"
#include "comm/comm_private.h"
#include "comm/heap.h"
#include "comm/join.h"
#include "comm/meeting.h"
#include "comm/native.h"
#include "comm/scratch.h"
#include "comm/transport_local.h"
#include "vgpu/gpu.h"

static dls_world *the_world; // a process has one place in one job

/* read who we are */
static dls_status read_number(const char *name, int least, int most, int fallback,
                              int *out)
{
    const char *text = getenv(name);
    char *end;
    *out = fallback;
    if (!text || !*text)
        return DLS_OK;
    long value = strtol(text, &end, 10);
    if (*end || value < least || value > most)
        return DLS_FAIL(DLS_ERR_INPUT, "%s=%s: expected a number from %d to %d", name,
                        text, least, most);
    *out = (int)value;
    return DLS_OK;
}

static dls_status join_world(dls_world *all)
{
    dls_identity who;
    DLS_TRY(read_number("DLS_WORLD_SIZE", 1, DLS_LOCAL_MAX_RANKS, 1, &all->size));
    DLS_TRY(read_number("DLS_RANK", 0, all->size - 1, all->size > 1 ? -1 : 0,
                        &all->rank));
    if (all->size == 1)
        return DLS_OK;
    if (all->rank < 0)
        return DLS_FAIL(DLS_ERR_INPUT, "DLS_WORLD_SIZE=%d but DLS_RANK is not set; start "
                        "the ranks with `dls run -n %d`", all->size, all->size);
    DLS_TRY(dls_identity_read(&who));
    DLS_TRY(dls_join(&who, &all->transport));
    all->local = dls_transport_memory(all->transport);
    const char *wish = getenv("DLS_SHORTCUT");
    all->shortcuts = !(wish && strcmp(wish, "0") == 0);
    return DLS_OK;
}

/* sleep while the device is idle */
int dls_comm_give_up(dls_comm *comm)
{
    char text[DLS_LOCAL_TEXT];
    snprintf(text, sizeof text, "failed: %.1700s", dls_status_message());
    dls_note_failure(text + strlen("failed: "));
    comm->all->transport->calls->fail(comm->all->transport, text);
    return -DLS_ERR_COMM;
}

static int sleep_while_idle(void *arg)
{
    dls_note_see();
    dls_world *all = arg;
#ifndef DLS_BACKEND_cuda
    if (all->local)
        return dls_deadlock_sleep(all);
#endif
    if (all->transport->calls->quiet(all->transport))
        all->transport->calls->sleep(all->transport, 0.1);
    return 0;
}

static dls_status open_device(dls_world *all)
{
    DLS_CUDA(cudaStreamCreateWithFlags(&all->stream, cudaStreamNonBlocking));
    DLS_CUDA(dls_gpu_name_stream(all->stream, "host waits"));
    dls_gpu_set_idle(sleep_while_idle, all);
    if (all->local)
        dls_heap_open(all->local);
    return DLS_OK;
}

/* create a communicator */
static void leave_world(dls_world *all)
{
    if (all->transport) {
        dls_gpu_set_idle(NULL, NULL);
        if (all->stream)
            cudaStreamDestroy(all->stream);
        dls_note_close();
        all->transport->calls->leave(all->transport);
        all->transport->calls->close(all->transport);
    }
    pthread_mutex_destroy(&all->lock);
    the_world = NULL;
    free(all);
}

static dls_status enter_world(dls_world *all)
{
    if (dls_gpu_rank() != all->rank || dls_gpu_world() != all->size)
        return DLS_FAIL(DLS_ERR_STATE, "the device was initialised as rank %d of %d, the "
                        "communicator is rank %d of %d", dls_gpu_rank(), dls_gpu_world(),
                        all->rank, all->size);
    DLS_TRY(dls_note_open(all->rank, all->size));
    return open_device(all);
}

dls_status dls_comm_create(dls_comm **out, const dls_comm_options *options)
{
    dls_status status = DLS_OK;
    int member[DLS_COMM_RANKS];
    if (the_world)
        return DLS_FAIL(DLS_ERR_STATE, "this process has a communicator already");
    dls_world *all = calloc(1, sizeof *all);
    if (!all)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a communicator");
    *all = (dls_world){.size = 1, .next_context = 1};
    pthread_mutex_init(&all->lock, NULL);
    if (!options || !options->ignore_environment)
        DLS_TRY_GOTO(status, join_world(all), fail);
    if (all->size > 1)
        DLS_TRY_GOTO(status, enter_world(all), fail);
    dls_log_set_rank(all->rank, all->size);
    for (int r = 0; r < all->size; r++)
        member[r] = r;
    DLS_TRY_GOTO(status, dls_comm_form(all, member, all->size, 0, out), fail);
    the_world = all;
    if (dls_native_is_wanted())
        status = dls_native_open(*out, &(*out)->native);
    if (status == DLS_OK)
        status = dls_comm_want(*out, options ? options->algorithm : NULL);
    if (status != DLS_OK) {
        dls_comm_destroy(*out);
        *out = NULL;
    }
    return status;
fail:
    leave_world(all);
    return status;
}

void dls_comm_destroy(dls_comm *comm)
{
    if (!comm)
        return;
    for (int i = 0; i < DLS_COMM_SCRATCHES; i++)
        if (comm->scratch[i].memory)
            cudaFree(comm->scratch[i].memory);
    dls_engine_drop(comm->group);
    free(atomic_load(&comm->spare));
    dls_native_close(comm->native);
    dls_meeting_drop(comm->meeting);
    if (comm->all && --comm->all->communicators == 0)
        leave_world(comm->all);
    free(comm->links);
    free(comm);
}

/* keep scratch memory */
size_t dls_comm_piece(size_t bytes)
{
    size_t rounded = bytes ? 4096 : 0;
    while (rounded < bytes)
        rounded *= 2;
    return rounded;
}

/* The smallest piece of at least `bytes`: the stream's own; or an idle one, if any will
 * do. */
static int find_piece(const dls_comm *comm, size_t bytes, cudaStream_t stream, int any)
{
    int best = -1;
    for (int i = 0; i < DLS_COMM_SCRATCHES; i++) {
        const dls_comm_scratch *s = &comm->scratch[i];
        int may = s->memory && (s->stream == stream || (any && !s->used));
        if (may && s->bytes >= bytes &&
            (best < 0 || s->bytes < comm->scratch[best].bytes))
            best = i;
    }
    return best;
}

int dls_comm_scratch_take(dls_comm *comm, size_t bytes, cudaStream_t stream)
{
    int i = 0, best;
    pthread_mutex_lock(&comm->all->lock);
    while (i < DLS_COMM_SCRATCHES && comm->scratch[i].memory)
        i++;
    best = find_piece(comm, bytes, stream, i == DLS_COMM_SCRATCHES);
    if (best >= 0) {
        comm->scratch[best].used++;
        comm->scratch[best].stream = stream;
    }
    pthread_mutex_unlock(&comm->all->lock);
    if (best >= 0)
        return best;
    /* allocate more scratch memory */
    size_t rounded = dls_comm_piece(bytes);
    if (i == DLS_COMM_SCRATCHES) {
        DLS_FAIL(DLS_ERR_STATE, "more than %d operations need scratch memory at once",
                 DLS_COMM_SCRATCHES);
        return -1;
    }
    dls_memory_purpose before = dls_gpu_memory_purpose(DLS_MEM_COMMUNICATION);
    cudaError_t error = dls_gpu_alloc_shared(&comm->scratch[i].memory, rounded);
    dls_gpu_memory_purpose(before);
    if (error != cudaSuccess) {
        comm->scratch[i].memory = NULL;
        dls_gpu_fail((int)error, "scratch memory of a collective", __FILE__, __LINE__);
        return -1;
    }
    comm->scratch[i].bytes = rounded;
    comm->scratch[i].stream = stream;
    comm->scratch[i].used = 1;
    return i;
}

/* answer simple questions */
int dls_comm_rank(const dls_comm *comm)
{
    return comm->rank;
}

int dls_comm_size(const dls_comm *comm)
{
    return comm->world;
}

dls_comm_statistics dls_comm_stats(const dls_comm *comm)
{
    return comm->stats;
}
