/* code/vgpu/trace.c: from chapters/A-virtual-gpu-traces.md. Edit the chapter, or edit here and run "make untangle". */
/* Recording spans and saving them. Recording must be cheap and must not fail: it appends
 * to a growing array, and everything expensive waits until the save. */
#include "vgpu/trace.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "vgpu/trace_internal.h"

/* keep the spans */
typedef struct range {
    const char *name;
    int outer;            // index of the enclosing range, -1: none
    int device, stream;   // of its operation in the lowest stream
    double start, finish; // extent of its operations there; start < 0: none yet
} range;

typedef struct stream_name {
    int device, stream;
    char name[32];
} stream_name;

static struct {
    int on, rank, world;
    dls_trace_span *spans;
    range *ranges;
    stream_name *streams;
    int span_count, span_capacity, range_count, range_capacity;
    int stream_count, stream_capacity, lost;
} trace = {.world = 1};

static _Thread_local int open_range = -1;

int dls_trace_grow(void *array, int count, int *capacity, size_t size)
{
    void **slot = array;
    if (count < *capacity)
        return 1;
    int wanted = *capacity ? 2 * *capacity : 256;
    void *grown = realloc(*slot, (size_t)wanted * size);
    if (grown == NULL)
        return 0;
    *slot = grown;
    *capacity = wanted;
    return 1;
}

/* open and close ranges */
void dls_trace_enable(int on) { trace.on = on; }
int dls_trace_enabled(void) { return trace.on; }
int dls_trace_count(void) { return trace.span_count; }

const dls_trace_span *dls_trace_span_at(int i)
{
    return i >= 0 && i < trace.span_count ? &trace.spans[i] : NULL;
}

int dls_trace_range_current(void) { return open_range; }

void dls_trace_set_rank(int rank, int world)
{
    trace.rank = rank;
    trace.world = world;
}

void dls_trace_clear(void)
{
    trace.span_count = trace.lost = 0; // ranges stay: open ones are known by index
    dls_trace_arrows_clear();
}

void dls_trace_range_push(const char *name)
{
    if (!trace.on || !dls_trace_grow(&trace.ranges, trace.range_count,
                                     &trace.range_capacity, sizeof *trace.ranges))
        return;
    trace.ranges[trace.range_count] = (range){.name = name, .outer = open_range,
                                              .start = -1};
    open_range = trace.range_count++;
}

void dls_trace_range_pop(void)
{
    if (open_range >= 0)
        open_range = trace.ranges[open_range].outer;
}

/* add a span */
static void name_stream(int device, int stream, const char *name)
{
    for (int i = 0; i < trace.stream_count; i++)
        if (trace.streams[i].device == device && trace.streams[i].stream == stream) {
            snprintf(trace.streams[i].name, sizeof trace.streams[i].name, "%s", name);
            return;
        }
    if (!dls_trace_grow(&trace.streams, trace.stream_count, &trace.stream_capacity,
                        sizeof *trace.streams))
        return;
    stream_name *s = &trace.streams[trace.stream_count++];
    s->device = device;
    s->stream = stream;
    snprintf(s->name, sizeof s->name, "%s", name);
}

void dls_trace_add(const dls_trace_span *span, const char *stream_name)
{
    if (!trace.on)
        return;
    if (!dls_trace_grow(&trace.spans, trace.span_count, &trace.span_capacity,
                        sizeof *trace.spans)) {
        trace.lost++;
        return;
    }
    trace.spans[trace.span_count] = *span;
    dls_trace_fasten(&trace.spans[trace.span_count++]);
    name_stream(span->device, span->stream, stream_name);
}

/* write spans as json */
static const char *const kind_names[DLS_GPU_KINDS] = {
    "compute", "copy", "communication", "host",
};

static int by_place_and_time(const void *left, const void *right)
{
    const dls_trace_span *a = left, *b = right;
    if (a->device != b->device)
        return a->device - b->device;
    if (a->stream != b->stream)
        return a->stream - b->stream;
    if (a->start != b->start)
        return a->start < b->start ? -1 : 1;
    if (a->finish != b->finish)
        return a->finish < b->finish ? -1 : 1;
    return strcmp(a->name, b->name);
}

static int by_place(const void *left, const void *right)
{
    const stream_name *a = left, *b = right;
    return a->device != b->device ? a->device - b->device : a->stream - b->stream;
}

int dls_trace_process(int device)
{
    return trace.world > 1 ? trace.rank : device;
}

static double microseconds(double seconds) { return seconds * 1e6; }

static json_t *span_json(const dls_trace_span *s)
{
    json_t *args = json_pack("{s:f, s:f}", "flops", s->flops, "bytes", s->bytes);
    if (s->range >= 0 && s->range < trace.range_count)
        json_object_set_new(args, "range", json_string(trace.ranges[s->range].name));
    return json_pack("{s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:o}", "ph", "X", "name",
                     s->name, "cat", kind_names[s->kind], "pid",
                     dls_trace_process(s->device),
                     "tid", s->stream, "ts", microseconds(s->start), "dur",
                     microseconds(s->finish - s->start), "args", args);
}

static json_t *name_json(const char *what, int pid, int tid, const char *name)
{
    return json_pack("{s:s, s:s, s:i, s:i, s:{s:s}}", "ph", "M", "name", what, "pid", pid,
                     "tid", tid, "args", "name", name);
}

/* The names of a stream's row, and of its process when it is the first of its device. */
static void write_names(json_t *events, int i)
{
    const stream_name *s = &trace.streams[i];
    int pid = dls_trace_process(s->device);
    char rank[24];
    snprintf(rank, sizeof rank, "rank %d", pid);
    if (i == 0 || dls_trace_process(s[-1].device) != pid)
        json_array_append_new(events, name_json("process_name", pid, 0, rank));
    json_array_append_new(events, name_json("thread_name", pid, s->stream, s->name));
}

/* write ranges as json */
static void extend_ranges(const dls_trace_span *span)
{
    for (int i = span->range; i >= 0; i = trace.ranges[i].outer) {
        range *r = &trace.ranges[i];
        if (r->start < 0) {
            r->device = span->device;
            r->stream = span->stream;
            r->start = span->start;
            r->finish = span->finish;
        } else if (r->device == span->device && r->stream == span->stream) {
            r->start = span->start < r->start ? span->start : r->start;
            r->finish = span->finish > r->finish ? span->finish : r->finish;
        }
    }
}

/* Sorts everything and finds the extents: afterwards nothing depends on the seed. */
static void put_in_order(void)
{
    qsort(trace.spans, (size_t)trace.span_count, sizeof *trace.spans, by_place_and_time);
    qsort(trace.streams, (size_t)trace.stream_count, sizeof *trace.streams, by_place);
    for (int i = 0; i < trace.range_count; i++)
        trace.ranges[i].start = -1;
    for (int i = 0; i < trace.span_count; i++)
        extend_ranges(&trace.spans[i]);
}

static int depth_of(int i)
{
    int depth = 0;
    for (i = trace.ranges[i].outer; i >= 0; i = trace.ranges[i].outer)
        depth++;
    return depth;
}

static void write_range(json_t *events, int i)
{
    const range *r = &trace.ranges[i];
    int depth = depth_of(i), pid = dls_trace_process(r->device);
    int tid = DLS_TRACE_RANGES + depth;
    json_array_append_new(events, json_pack(
        "{s:s, s:s, s:s, s:i, s:i, s:f, s:f}", "ph", "X", "name", r->name, "cat", "range",
        "pid", pid, "tid", tid, "ts", microseconds(r->start), "dur",
        microseconds(r->finish - r->start)));
    json_array_append_new(events, name_json("thread_name", pid, tid, "ranges"));
    json_array_append_new(events, json_pack(
        "{s:s, s:s, s:i, s:i, s:{s:i}}", "ph", "M", "name", "thread_sort_index", "pid",
        pid, "tid", tid, "args", "sort_index", depth - 64));
}

/* save a trace */
static json_t *trace_json(void)
{
    json_t *events = json_array();
    put_in_order();
    for (int i = 0; i < trace.stream_count; i++)
        write_names(events, i);
    for (int i = 0; i < trace.range_count; i++)
        if (trace.ranges[i].start >= 0)
            write_range(events, i);
    for (int i = 0; i < trace.span_count; i++)
        json_array_append_new(events, span_json(&trace.spans[i]));
    dls_trace_arrows_json(events, trace.spans, trace.span_count);
    dls_trace_counters_json(events, trace.spans, trace.span_count);
    return json_pack("{s:s, s:o}", "displayTimeUnit", "ns", "traceEvents", events);
}

dls_status dls_trace_save(const char *path)
{
    if (trace.lost > 0)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: %d spans were lost for lack of memory", path,
                        trace.lost);
    json_t *root = trace_json();
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(root);
    if (text == NULL)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory to write the trace", path);
    dls_status status = dls_file_write(path, text, strlen(text));
    free(text);
    return status;
}
