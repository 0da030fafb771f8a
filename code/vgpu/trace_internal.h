/* code/vgpu/trace_internal.h: from chapters/A-virtual-gpu-traces.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to code/vgpu: what the parts of a trace share, and what the drawing gets. */
#ifndef DLS_VGPU_TRACE_INTERNAL_H
#define DLS_VGPU_TRACE_INTERNAL_H

#include <jansson.h>

#include "base/status.h"
#include "vgpu/trace.h"

/* Thread numbers of the rows of ranges: this, plus the depth. */
enum { DLS_TRACE_RANGES = 1000000 };

/* Room for one more element of `size` bytes in *array; 0 without memory. */
int dls_trace_grow(void *array, int count, int *capacity, size_t size);

/* In one process with several devices each device is drawn as a rank of its own. */
int dls_trace_process(int device);

/* trace_arrows.c; the spans are sorted by device, stream and start. */
void dls_trace_fasten(dls_trace_span *span); // to the messages of its stream
void dls_trace_arrows_clear(void);
void dls_trace_arrows_json(json_t *events, const dls_trace_span *spans, int n);
void dls_trace_counters_json(json_t *events, const dls_trace_span *spans, int n);

/* describe the chart */
/* One bar of the chart; times in microseconds. kind: dls_gpu_kind, or -1 for a range. */
typedef struct dls_trace_bar {
    int pid, tid, kind;
    const char *name;
    double start, finish;
} dls_trace_bar;

typedef struct dls_trace_row {
    int pid, tid;
    const char *name; // the stream's
} dls_trace_row;

/* An arrow between rows; kind: 0 a message, 1 an event. */
typedef struct dls_trace_flow {
    int kind, from_pid, from_tid, pid, tid;
    double from, to;     // us
    json_int_t id;
} dls_trace_flow;

typedef struct dls_trace_chart {
    dls_trace_bar *bars;
    dls_trace_row *rows;   // sorted by pid, tid
    dls_trace_flow *flows; // complete ones first: both ends were found
    int bar_count, row_count, flow_count;
    double from, to;     // window (us)
} dls_trace_chart;

/* Writes the chart; bars are sorted by row and time. */
dls_status dls_trace_draw(const dls_trace_chart *chart, const char *path);

#endif
