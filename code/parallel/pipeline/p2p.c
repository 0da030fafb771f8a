/* code/parallel/pipeline/p2p.c: from chapters/05-pipeline-runtime-interpreter.md. Edit the chapter, or edit here and run "make untangle". */
/* Buffers that go round, and messages on streams of their own. */
#include "parallel/pipeline/p2p.h"

#include <stdio.h>
#include <stdlib.h>

#include "vgpu/gpu.h"

/* make a buffer */
static dls_status fill_buffer(const dls_p2p *p, dls_p2p_buffer *b)
{
    size_t bytes = p->elements * dls_comm_type_size(p->dtype);
    dls_memory_purpose before = dls_gpu_memory_purpose(DLS_MEM_COMMUNICATION);
    cudaError_t e = dls_gpu_alloc_shared(&b->rows, bytes);
    dls_gpu_memory_purpose(before);
    if (e == cudaErrorMemoryAllocation)
        return DLS_FAIL(DLS_ERR_MEMORY, "%zu bytes for a message do not fit on the "
                        "device", bytes);
    DLS_CUDA(e);
    DLS_CUDA(cudaEventCreateWithFlags(&b->ready, cudaEventDisableTiming));
    DLS_CUDA(cudaEventCreateWithFlags(&b->free, cudaEventDisableTiming));
    return DLS_OK;
}

static dls_status new_buffer(dls_p2p *p, dls_p2p_buffer **out)
{
    dls_p2p_buffer *b = calloc(1, sizeof *b);
    if (!b)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a message");
    b->all = p->all;
    p->all = b;
    p->buffers++;
    *out = b;
    return fill_buffer(p, b);
}

/* take and give a buffer */
enum { SPARE = 2 };     // buffers that may be on their way while one is written

dls_status dls_p2p_take(dls_p2p *p, cudaStream_t stream, dls_p2p_buffer **out)
{
    if (p->given <= SPARE)
        return new_buffer(p, out);
    *out = p->oldest;
    p->oldest = p->oldest->next;
    p->given--;
    if ((*out)->used)
        DLS_CUDA(cudaStreamWaitEvent(stream, (*out)->free, 0));
    return DLS_OK;
}

dls_status dls_p2p_give(dls_p2p *p, dls_p2p_buffer *b, cudaStream_t stream)
{
    DLS_CUDA(cudaEventRecord(b->free, stream));
    b->used = 1;
    b->next = NULL;
    if (p->given++ > 0)
        p->newest->next = b;
    else
        p->oldest = b;
    p->newest = b;
    return DLS_OK;
}

dls_status dls_p2p_ready(dls_p2p_buffer *b, cudaStream_t stream)
{
    DLS_CUDA(cudaEventRecord(b->ready, stream));
    return DLS_OK;
}

dls_status dls_p2p_wait(const dls_p2p_buffer *b, cudaStream_t stream)
{
    DLS_CUDA(cudaStreamWaitEvent(stream, b->ready, 0));
    return DLS_OK;
}

/* send and receive */
static dls_status stream_of(dls_p2p *p, cudaStream_t *streams, int peer, const char *what,
                            cudaStream_t *out)
{
    char name[32];
    if (peer < 0 || peer >= dls_comm_size(p->comm))
        return DLS_FAIL(DLS_ERR_STATE, "a message %s rank %d of %d", what, peer,
                        dls_comm_size(p->comm));
    if (!streams[peer]) {
        DLS_CUDA(cudaStreamCreateWithFlags(&streams[peer], cudaStreamNonBlocking));
        snprintf(name, sizeof name, "%s %d", what, peer);
        DLS_CUDA(dls_gpu_name_stream(streams[peer], name));
    }
    *out = streams[peer];
    return DLS_OK;
}

dls_status dls_p2p_send(dls_p2p *p, dls_p2p_buffer *b, size_t count, int peer)
{
    cudaStream_t stream;
    DLS_TRY(stream_of(p, p->to, peer, "to", &stream));
    DLS_TRY(dls_p2p_wait(b, stream));
    if (count > 0)
        DLS_TRY(dls_comm_send(p->comm, b->rows, count, p->dtype, peer, stream));
    return dls_p2p_give(p, b, stream);
}

dls_status dls_p2p_receive(dls_p2p *p, dls_p2p_buffer **out, size_t count, int peer)
{
    cudaStream_t stream;
    DLS_TRY(stream_of(p, p->from, peer, "from", &stream));
    DLS_TRY(dls_p2p_take(p, stream, out));
    if (count > 0)
        DLS_TRY(dls_comm_recv(p->comm, (*out)->rows, count, p->dtype, peer, stream));
    return dls_p2p_ready(*out, stream);
}

/* open and close the messages */
dls_status dls_p2p_open(dls_p2p *p, dls_comm *comm, size_t elements, int dtype)
{
    size_t n = (size_t)dls_comm_size(comm);
    *p = (dls_p2p){.comm = comm, .elements = elements, .dtype = dtype};
    p->to = calloc(n, sizeof *p->to);
    p->from = calloc(n, sizeof *p->from);
    return p->to && p->from ? DLS_OK
        : DLS_FAIL(DLS_ERR_MEMORY, "no memory for the streams of %zu ranks", n);
}

void dls_p2p_close(dls_p2p *p)
{
    for (int i = 0; p->to && p->from && i < dls_comm_size(p->comm); i++)
        for (int k = 0; k < 2; k++) {
            cudaStream_t stream = k ? p->from[i] : p->to[i];
            if (stream)
                cudaStreamDestroy(stream);
        }
    while (p->all) {
        dls_p2p_buffer *b = p->all;
        p->all = b->all;
        if (b->ready)
            cudaEventDestroy(b->ready);
        if (b->free)
            cudaEventDestroy(b->free);
        cudaFree(b->rows);
        free(b);
    }
    free(p->to);
    free(p->from);
    *p = (dls_p2p){0};
}
