/* code/vgpu/record.h: from chapters/07-planner-record.md. Edit the chapter, or edit here and run "make untangle". */
/* Noting operations instead of executing them; virtual backend only.
 *
 *   dls_gpu_record();                      from here on nothing runs
 *   ... code that enqueues ...
 *   dls_gpu_recorded(&notes, &n, &host);   what it would have done, and how long it takes
 */
#ifndef DLS_VGPU_RECORD_H
#define DLS_VGPU_RECORD_H

#include "vgpu/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define a note */
typedef enum dls_gpu_note_type {
    DLS_NOTE_WORK, DLS_NOTE_RECORD, DLS_NOTE_WAIT
} dls_gpu_note_type;

/* An operation: of which stream, enqueued when on the host's clock (s from the start of
 * the recording), how long it takes. */
typedef struct dls_gpu_note {
    const char *name;
    dls_gpu_note_type type;
    dls_gpu_kind kind;
    dls_work work;
    int stream;
    int awaited;                // of a wait: the note it waits for; -1: none of these
    double enqueued, duration, flops, bytes;
} dls_gpu_note;

/* refuse to record on a real device */
#ifdef DLS_BACKEND_cuda
static inline dls_status dls_gpu_record(void)
{
    return DLS_FAIL(DLS_ERR_STATE, "predictions are made by the virtual backend");
}

static inline dls_status dls_gpu_recorded(const dls_gpu_note **out, int *n, double *host)
{
    *out = NULL;
    *n = 0;
    *host = 0;
    return dls_gpu_record();
}
#else
/* declare the recording */
/* Everything enqueued in this process from now on is noted and dropped. */
dls_status dls_gpu_record(void);

/* Ends it. *out (n) in the order of the calls, until the next recording; *host: how far
 * the host's clock went. DLS_ERR_MEMORY: some were lost. */
dls_status dls_gpu_recorded(const dls_gpu_note **out, int *n, double *host);

/* dls_gpu_enqueue for an operation that takes `seconds`. */
cudaError_t dls_gpu_enqueue_for(cudaStream_t stream, const dls_gpu_op *op, void *arg,
                                double seconds);
#endif

#ifdef __cplusplus
}
#endif
#endif
