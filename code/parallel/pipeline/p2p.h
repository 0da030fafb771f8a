/* code/parallel/pipeline/p2p.h: from chapters/05-pipeline-runtime-interpreter.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows of activations and gradients between ranks: buffers, and two streams per peer.
 *
 *   compute   F -ready-.            .-free- next F that takes the buffer
 *   to peer             `- send ----'
 */
#ifndef DLS_PARALLEL_PIPELINE_P2P_H
#define DLS_PARALLEL_PIPELINE_P2P_H

#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the buffers */
/* Room for one micro-batch's rows between two stages. */
typedef struct dls_p2p_buffer {
    void *rows;             /* (elements) device, shared */
    cudaEvent_t ready;      /* behind the last write */
    cudaEvent_t free;       /* behind the last read */
    int used;               /* 1: free was recorded before */
    struct dls_p2p_buffer *next, *all;
} dls_p2p_buffer;

typedef struct dls_p2p {
    dls_comm *comm;
    size_t elements;        /* of a buffer */
    int dtype;
    cudaStream_t *to, *from;        /* [ranks]; NULL until used */
    dls_p2p_buffer *all;
    dls_p2p_buffer *oldest, *newest;    /* given back, in this order */
    int given, buffers;     /* given back; in all */
} dls_p2p;

/* declare the messages */
/* elements: of the largest message. Streams and buffers are made when first needed. */
dls_status dls_p2p_open(dls_p2p *p, dls_comm *comm, size_t elements, int dtype);
void dls_p2p_close(dls_p2p *p);

/* A buffer that `stream` may write. */
dls_status dls_p2p_take(dls_p2p *p, cudaStream_t stream, dls_p2p_buffer **out);

/* Says that what `stream` has done so far wrote the buffer; lets `stream` read it. */
dls_status dls_p2p_ready(dls_p2p_buffer *b, cudaStream_t stream);
dls_status dls_p2p_wait(const dls_p2p_buffer *b, cudaStream_t stream);

/* Gives the buffer back, behind what `stream` has done so far. */
dls_status dls_p2p_give(dls_p2p *p, dls_p2p_buffer *b, cudaStream_t stream);

/* Sends a buffer's first `count` elements, and gives it back; fills one that was taken
 * for it. Messages from one rank to another are received in the order of the sends. */
dls_status dls_p2p_send(dls_p2p *p, dls_p2p_buffer *b, size_t count, int peer);
dls_status dls_p2p_receive(dls_p2p *p, dls_p2p_buffer **out, size_t count, int peer);

#ifdef __cplusplus
}
#endif
#endif
