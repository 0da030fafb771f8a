/* code/vgpu/trace_internal.h: from chapters/A-virtual-gpu-traces.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to code/vgpu: what the drawing gets from the merge. */
#ifndef DLS_VGPU_TRACE_INTERNAL_H
#define DLS_VGPU_TRACE_INTERNAL_H

#include "base/status.h"

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

typedef struct dls_trace_chart {
    dls_trace_bar *bars;
    dls_trace_row *rows; // sorted by pid, tid
    int bar_count, row_count;
    double from, to;     // window (us)
} dls_trace_chart;

/* Writes the chart; bars are sorted by row and time. */
dls_status dls_trace_draw(const dls_trace_chart *chart, const char *path);

#endif
