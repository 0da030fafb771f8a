/* code/comm/native.h: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* Collectives done whole by NCCL: DLS_COMM=nccl on real devices. Private to comm/. */
#ifndef DLS_COMM_NATIVE_H
#define DLS_COMM_NATIVE_H

#include "comm/comm.h"
#include "comm/message.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dls_native dls_native;

int dls_native_is_wanted(void); // DLS_COMM=nccl

/* For the members of a communicator; all of them call it. DLS_ERR_INPUT where there is
 * no NCCL, DLS_ERR_COMM when it fails. */
dls_status dls_native_open(dls_comm *comm, dls_native **out);
void dls_native_close(dls_native *native); // NULL is fine

typedef struct dls_native_call {
    dls_message_kind kind;
    const void *in;
    void *out;
    size_t count;     // as in the calls of comm.h
    int dtype, root;
    dls_reduce reduce;
} dls_native_call;

/* *taken := 1 if NCCL does this kind of collective, which is then enqueued. */
dls_status dls_native_run(dls_native *native, const dls_native_call *call,
                          cudaStream_t stream, int *taken);

#ifdef __cplusplus
}
#endif
#endif
