/* code/vgpu/trace.h: from chapters/A-virtual-gpu-traces.md. Edit the chapter, or edit here and run "make untangle". */
/* Spans of what ran when, in virtual or real time; both backends, one format.
 *
 * A rank's file is itself a Chrome trace (an object with "traceEvents"; pid = rank,
 * tid = stream, times in microseconds), so that each can be opened alone. */
#ifndef DLS_VGPU_TRACE_H
#define DLS_VGPU_TRACE_H

#include "base/status.h"
#include "vgpu/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare spans and ranges */
typedef struct dls_trace_span {
    int device, stream;
    dls_gpu_kind kind;
    const char *name;     // static string
    double start, finish; // s
    double flops, bytes;
    int range;            // index of the innermost range, -1: none
} dls_trace_span;

void dls_trace_enable(int on); // off at first
int dls_trace_enabled(void);
void dls_trace_set_rank(int rank, int world);

/* Opens a range on this thread until the matching pop; `name` is kept by pointer. */
void dls_trace_range_push(const char *name);
void dls_trace_range_pop(void);
int dls_trace_range_current(void);

/* For the backends. The stream's name is copied. Without memory the span is lost and
 * counted; dls_trace_save reports it. */
void dls_trace_add(const dls_trace_span *span, const char *stream_name);
int dls_trace_count(void);
const dls_trace_span *dls_trace_span_at(int i); // NULL behind the last
void dls_trace_clear(void);

/* declare arrows */

/* The stream whose operation is asked or run next on this thread; the backend says so.
 * When that operation is over, its span is added, or it is forgotten. */
void dls_trace_place(int device, int stream);
void dls_trace_forget(int device, int stream);

/* One end of a message, at the place: `out` where it departs from rank `from`, else where
 * it arrives at rank `to`. Both ends give the same number of operation and message. */
void dls_trace_message(int out, int from, int to, uint64_t operation, unsigned message,
                       double time);

/* An event recorded in one stream was passed at `passed`; another stream waited for it
 * and goes on at `time`. */
void dls_trace_wait(int from_device, int from_stream, double passed, int device,
                    int stream, double time);

/* declare saving and merging */

/* Writes this process's spans and ranges. */
dls_status dls_trace_save(const char *path);

/* Merges `n` saved traces into a Chrome trace and a drawing of the time window
 * [from_s, to_s]; to_s <= from_s draws everything. Either output may be NULL. */
dls_status dls_trace_merge(const char *const *paths, int n, const char *chrome_path,
                           const char *svg_path, double from_s, double to_s);

#ifdef __cplusplus
}
#endif
#endif
