/* code/parallel/data/spans.h: from chapters/04-data-parallelism-fsdp.md. Edit the chapter, or edit here and run "make untangle". */
/* Stretches of streams, measured by events. */
#ifndef DLS_PARALLEL_DATA_SPANS_H
#define DLS_PARALLEL_DATA_SPANS_H

#include <cuda_runtime.h>

#include "base/status.h"

typedef struct dls_spans {
    cudaEvent_t *events;        // two for each span
    int n, room;                // spans of now; that there are events for
} dls_spans;

/* What is enqueued on the stream between the two calls is one span. They do not nest. */
dls_status dls_spans_begin(dls_spans *s, cudaStream_t stream);
dls_status dls_spans_end(dls_spans *s, cudaStream_t stream);

/* The sum of the spans; their streams must have been synchronised. */
dls_status dls_spans_seconds(const dls_spans *s, double *sum);
void dls_spans_clear(dls_spans *s); // forgets the spans, not the events
void dls_spans_free(dls_spans *s);

#endif
