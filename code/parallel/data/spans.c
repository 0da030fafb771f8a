/* code/parallel/data/spans.c: from chapters/04-data-parallelism-fsdp.md. Edit the chapter, or edit here and run "make untangle". */
/* Lists of events that are kept from step to step. */
#include "parallel/data/spans.h"

#include <stdlib.h>
#include <string.h>

#include "vgpu/gpu.h"

/* make room for a span */
static dls_status make_room(dls_spans *s)
{
    int room = s->room ? 2 * s->room : 16;
    if (s->n < s->room)
        return DLS_OK;
    cudaEvent_t *more = realloc(s->events, 2 * (size_t)room * sizeof *more);
    if (!more)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory to measure %d spans", room);
    s->events = more;
    memset(more + 2 * s->room, 0, 2 * (size_t)(room - s->room) * sizeof *more);
    for (int i = 2 * s->room; i < 2 * room; i++)
        DLS_CUDA(cudaEventCreate(&more[i]));
    s->room = room;
    return DLS_OK;
}

/* begin and end a span */
dls_status dls_spans_begin(dls_spans *s, cudaStream_t stream)
{
    DLS_TRY(make_room(s));
    DLS_CUDA(cudaEventRecord(s->events[2 * s->n], stream));
    return DLS_OK;
}

dls_status dls_spans_end(dls_spans *s, cudaStream_t stream)
{
    DLS_CUDA(cudaEventRecord(s->events[2 * s->n + 1], stream));
    s->n++;
    return DLS_OK;
}

/* add up the spans */
dls_status dls_spans_seconds(const dls_spans *s, double *sum)
{
    float milliseconds;
    *sum = 0;
    for (int i = 0; i < s->n; i++) {
        DLS_CUDA(cudaEventElapsedTime(&milliseconds, s->events[2 * i],
                                      s->events[2 * i + 1]));
        *sum += milliseconds * 1e-3;
    }
    return DLS_OK;
}

void dls_spans_clear(dls_spans *s)
{
    s->n = 0;
}

void dls_spans_free(dls_spans *s)
{
    for (int i = 0; s->events && i < 2 * s->room; i++)
        if (s->events[i])
            cudaEventDestroy(s->events[i]);
    free(s->events);
    *s = (dls_spans){0};
}
