/* code/vgpu/trace_arrows.c: from chapters/A-virtual-gpu-traces.md. Edit the chapter, or edit here and run "make untangle". */
/* Arrows between the bars of a trace, and counters above them.
 *
 * Ends of messages are recorded as they come and fastened when their operation is over;
 * waits are fastened when the trace is saved, for only then are all spans there. Both are
 * sorted before they are written, so that nothing depends on the order of execution. */
#include "vgpu/trace.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/trace_internal.h"

/* record arrows */
typedef enum arrow_kind { SENT, RECEIVED, WAITED } arrow_kind;

typedef struct arrow {
    arrow_kind kind;
    int device, stream;       // of a message's end, or of the stream that waits
    int from_device, from_stream;
    double time, passed;      // s; passed: of the event
    double start, finish;     // of a message's span; finish < 0: not over yet
    uint64_t id;
} arrow;

static struct { arrow *all; int count, capacity, loose; } arrows;
static _Thread_local int place_device = -1, place_stream;

void dls_trace_place(int device, int stream)
{
    place_device = device;
    place_stream = stream;
}

void dls_trace_arrows_clear(void) { arrows.count = arrows.loose = 0; }

static void record(arrow a)
{
    if (a.device >= 0 &&
        dls_trace_grow(&arrows.all, arrows.count, &arrows.capacity, sizeof a)) {
        arrows.all[arrows.count++] = a;
        arrows.loose += a.kind != WAITED;
    }
}

static int is_loose(const arrow *a, int device, int stream)
{
    return a->kind != WAITED && a->finish < 0 && a->device == device &&
           a->stream == stream;
}

void dls_trace_fasten(dls_trace_span *span)
{
    int first = arrows.count; // of the loose ends, wherever they belong
    for (int loose = arrows.loose; loose > 0; ) {
        const arrow *a = &arrows.all[--first];
        loose -= a->kind != WAITED && a->finish < 0;
        if (a->kind == SENT && is_loose(a, span->device, span->stream))
            span->start = fmin(span->start, a->time);
    }
    for (int i = first; i < arrows.count; i++)
        if (is_loose(&arrows.all[i], span->device, span->stream)) {
            arrows.all[i].start = span->start;
            arrows.all[i].finish = span->finish;
            arrows.loose--;
        }
}

void dls_trace_forget(int device, int stream)
{
    int kept = 0;
    for (int i = 0; i < arrows.count && arrows.loose > 0; i++)
        if (!is_loose(&arrows.all[i], device, stream))
            arrows.all[kept++] = arrows.all[i];
    if (arrows.loose > 0) {
        arrows.loose -= arrows.count - kept;
        arrows.count = kept;
    }
}

void dls_trace_message(int out, int from, int to, uint64_t operation, unsigned message,
                       double time)
{
    uint64_t pair = ((uint64_t)(from & 1023) << 10) | (uint64_t)(to & 1023);
    record((arrow){.kind = out ? SENT : RECEIVED, .device = place_device,
                   .stream = place_stream, .time = time, .finish = -1,
                   .id = pair << 33 | (operation & 0x1ffff) << 16 | (message & 0xffff)});
}

void dls_trace_wait(int from_device, int from_stream, double passed, int device,
                    int stream, double time)
{
    if (dls_trace_enabled() && (from_device != device || from_stream != stream))
        record((arrow){.kind = WAITED, .device = device, .stream = stream, .time = time,
                       .from_device = from_device, .from_stream = from_stream,
                       .passed = passed});
}

/* find the span at a time */
static int place_of(const dls_trace_span *s, int device, int stream)
{
    return s->device != device ? s->device - device : s->stream - stream;
}

/* Index of the first span of the place that starts behind `time`. */
static int first_behind(const dls_trace_span *spans, int n, int device, int stream,
                        double time)
{
    int low = 0, high = n;
    while (low < high) {
        int middle = low + (high - low) / 2, c = place_of(&spans[middle], device, stream);
        if (c < 0 || (c == 0 && spans[middle].start <= time))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The last span of the place that starts at or before `time` and has a length. */
static const dls_trace_span *span_before(const dls_trace_span *spans, int n, int device,
                                         int stream, double time)
{
    for (int i = first_behind(spans, n, device, stream, time) - 1;
         i >= 0 && place_of(&spans[i], device, stream) == 0; i--)
        if (spans[i].finish > spans[i].start)
            return &spans[i];
    return NULL;
}

static const dls_trace_span *span_from(const dls_trace_span *spans, int n, int device,
                                       int stream, double time)
{
    for (int i = first_behind(spans, n, device, stream, nextafter(time, 0));
         i < n && place_of(&spans[i], device, stream) == 0; i++)
        if (spans[i].finish > spans[i].start)
            return &spans[i];
    return NULL;
}

/* write messages as json */
static double inside(const dls_trace_span *s, double time)
{
    double length = s->finish - s->start;
    return fmin(fmax(time, s->start), s->finish - fmin(1e-9, length / 4));
}

/* One end of an arrow; phase: "s" or "f". */
static json_t *end_json(const char *phase, const char *name, uint64_t id,
                        const dls_trace_span *s, double time)
{
    json_t *end = json_pack("{s:s, s:s, s:s, s:I, s:i, s:i, s:f}", "ph", phase, "cat",
                            name, "name", name, "id", (json_int_t)id, "pid",
                            dls_trace_process(s->device), "tid", s->stream, "ts",
                            inside(s, time) * 1e6);
    if (*phase == 'f') // fasten to the bar around it, not to the next one
        json_object_set_new(end, "bp", json_string("e"));
    return end;
}

static int by_all(const void *left, const void *right)
{
    const arrow *a = left, *b = right;
    if (a->kind != b->kind)
        return a->kind < b->kind ? -1 : 1;
    if (a->id != b->id)
        return a->id < b->id ? -1 : 1;
    if (a->device != b->device || a->stream != b->stream)
        return a->device != b->device ? a->device - b->device : a->stream - b->stream;
    if (a->time != b->time)
        return a->time < b->time ? -1 : 1;
    if (a->from_device != b->from_device)
        return a->from_device - b->from_device;
    if (a->from_stream != b->from_stream)
        return a->from_stream - b->from_stream;
    return a->passed < b->passed ? -1 : a->passed > b->passed;
}

static void write_message(json_t *events, const arrow *a)
{
    dls_trace_span s = {.device = a->device, .stream = a->stream, .start = a->start,
                        .finish = a->finish};
    if (a->finish > a->start)
        json_array_append_new(events, end_json(a->kind == SENT ? "s" : "f", "message",
                                               a->id, &s, a->time));
}

/* write waits as json */
static void write_wait(json_t *events, const arrow *a, const dls_trace_span *spans, int n,
                       int number)
{
    const dls_trace_span *from = span_before(spans, n, a->from_device, a->from_stream,
                                             nextafter(a->passed, 0));
    const dls_trace_span *to = span_from(spans, n, a->device, a->stream, a->time);
    uint64_t id = (uint64_t)dls_trace_process(a->device) << 33 | (uint64_t)number;
    if (from == NULL || to == NULL || from->finish > to->start)
        return;
    json_array_append_new(events, end_json("s", "event", id, from, from->finish));
    json_array_append_new(events, end_json("f", "event", id, to, to->start));
}

void dls_trace_arrows_json(json_t *events, const dls_trace_span *spans, int n)
{
    qsort(arrows.all, (size_t)arrows.count, sizeof *arrows.all, by_all);
    for (int i = 0; i < arrows.count; i++)
        if (arrows.all[i].kind == WAITED)
            write_wait(events, &arrows.all[i], spans, n, i + 1);
        else
            write_message(events, &arrows.all[i]);
}

/* write counters as json */
typedef struct change { double time, flops, bytes; int count; } change;

static int by_time(const void *left, const void *right)
{
    const change *a = left, *b = right;
    if (a->time != b->time)
        return a->time < b->time ? -1 : 1;
    return a->count - b->count; // ends before beginnings
}

static void write_changes(json_t *events, int device, change *c, int n)
{
    double flops = 0, bytes = 0;
    int under_way = 0;
    qsort(c, (size_t)n, sizeof *c, by_time);
    for (int i = 0; i < n; i++) {
        under_way += c[i].count;
        flops = under_way ? flops + c[i].flops : 0;
        bytes = under_way ? bytes + c[i].bytes : 0;
        if (i + 1 < n && c[i + 1].time == c[i].time)
            continue;
        json_array_append_new(events, json_pack(
            "{s:s, s:s, s:i, s:f, s:{s:f}}", "ph", "C", "name", "arithmetic", "pid",
            dls_trace_process(device), "ts", c[i].time * 1e6, "args", "TFLOP/s",
            flops * 1e-12));
        json_array_append_new(events, json_pack(
            "{s:s, s:s, s:i, s:f, s:{s:f}}", "ph", "C", "name", "memory traffic", "pid",
            dls_trace_process(device), "ts", c[i].time * 1e6, "args", "GB/s",
            bytes * 1e-9));
    }
}

void dls_trace_counters_json(json_t *events, const dls_trace_span *spans, int n)
{
    change *c = malloc((size_t)(2 * n + 1) * sizeof *c);
    for (int first = 0, last, count; c && first < n; first = last) {
        int device = spans[first].device;
        count = 0;
        for (last = first; last < n && spans[last].device == device; last++) {
            const dls_trace_span *s = &spans[last];
            double length = s->finish - s->start;
            if (s->kind > DLS_GPU_COPY || length <= 0)
                continue;
            c[count++] = (change){s->start, s->flops / length, s->bytes / length, 1};
            c[count++] = (change){s->finish, -s->flops / length, -s->bytes / length, -1};
        }
        write_changes(events, device, c, count);
    }
    free(c);
}
