/* code/vgpu/trace_merge.c: from chapters/A-virtual-gpu-traces.md. Edit the chapter, or edit here and run "make untangle". */
/* Merging saved traces. The files come from disk and may be anything: each event is
 * checked, and what is wrong is reported with its file and number. */
#include "vgpu/trace.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "vgpu/trace_internal.h"

/* load one trace */
/* *out: a new reference to the file's object, with an array "traceEvents". */
static dls_status load_trace(const char *path, json_t **out)
{
    char *text;
    size_t size;
    json_error_t error;
    DLS_TRY(dls_file_read(path, &text, &size));
    *out = json_loadb(text, size, 0, &error);
    free(text);
    if (*out == NULL)
        return DLS_FAIL(DLS_ERR_INPUT, "%s:%d: not JSON: %s", path, error.line,
                        error.text);
    if (!json_is_array(json_object_get(*out, "traceEvents"))) {
        json_decref(*out);
        *out = NULL; // the caller releases what it holds
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected an object with an array "
                        "\"traceEvents\"", path);
    }
    return DLS_OK;
}

/* take bars and rows from events */
static int kind_of(const char *category)
{
    static const char *const names[] = {"compute", "copy", "communication", "host"};
    for (int i = 0; i < 4; i++)
        if (category && strcmp(names[i], category) == 0)
            return i;
    return -1;
}

/* Rows of ranges are numbered -1, -2 ... in the chart, outermost first. */
static int row_of(int tid, const char *category)
{
    int range = category && strcmp(category, "range") == 0;
    return range && tid >= DLS_TRACE_RANGES ? DLS_TRACE_RANGES - 1 - tid : tid;
}

static void add_flow(dls_trace_chart *chart, json_t *event, char phase)
{
    dls_trace_flow f = {.from = NAN, .to = NAN, .id = -1};
    const char *category = "";
    double time = NAN;
    int pid = 0, tid = 0;
    json_unpack(event, "{s?s s?I s?i s?i s?F}", "cat", &category, "id", &f.id, "pid",
                &pid, "tid", &tid, "ts", &time);
    f.kind = strcmp(category, "message") != 0;
    if (phase == 's') {
        f.from_pid = pid;
        f.from_tid = tid;
        f.from = time;
    } else {
        f.pid = pid;
        f.tid = tid;
        f.to = time;
    }
    chart->flows[chart->flow_count++] = f;
}

static dls_status add_event(dls_trace_chart *chart, json_t *event, const char *path,
                            size_t number)
{
    const char *phase = "", *name = "", *category = NULL, *stream = "";
    int pid = 0, tid = 0;
    double start = NAN, length = NAN;
    json_unpack(event, "{s?s s?s s?s s?i s?i s?F s?F s?{s?s}}", "ph", &phase, "name",
                &name, "cat", &category, "pid", &pid, "tid", &tid, "ts", &start, "dur",
                &length, "args", "name", &stream);
    if (strcmp(phase, "M") == 0 && strcmp(name, "thread_name") == 0)
        chart->rows[chart->row_count++] = (dls_trace_row){pid, tid, stream};
    if (strcmp(phase, "s") == 0 || strcmp(phase, "f") == 0)
        add_flow(chart, event, *phase);
    if (strcmp(phase, "X") != 0)
        return DLS_OK;
    if (!isfinite(start) || !isfinite(length) || length < 0)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: event %zu '%s': expected numbers ts and "
                        "dur >= 0", path, number, name);
    if (length == 0)
        return DLS_OK;
    chart->bars[chart->bar_count++] =
        (dls_trace_bar){pid, row_of(tid, category), kind_of(category), name, start,
                        start + length};
    return DLS_OK;
}

static dls_status add_events(dls_trace_chart *chart, json_t *root, const char *path)
{
    json_t *events = json_object_get(root, "traceEvents"), *event;
    size_t n = json_array_size(events), i;
    size_t bars = (size_t)chart->bar_count + n, rows = (size_t)chart->row_count + n;
    void *grown_bars = realloc(chart->bars, (bars + 1) * sizeof *chart->bars);
    if (grown_bars)
        chart->bars = grown_bars;
    void *grown_rows = realloc(chart->rows, (rows + 1) * sizeof *chart->rows);
    if (grown_rows)
        chart->rows = grown_rows;
    size_t flows = (size_t)chart->flow_count + n;
    void *grown_flows = realloc(chart->flows, (flows + 1) * sizeof *chart->flows);
    if (grown_flows)
        chart->flows = grown_flows;
    if (grown_bars == NULL || grown_rows == NULL || grown_flows == NULL)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory for %zu events", path, n);
    json_array_foreach(events, i, event)
        DLS_TRY(add_event(chart, event, path, i));
    return DLS_OK;
}

/* sort the chart */
static int by_row_and_time(const void *left, const void *right)
{
    const dls_trace_bar *a = left, *b = right;
    if (a->pid != b->pid)
        return a->pid < b->pid ? -1 : 1;
    if (a->tid != b->tid)
        return a->tid < b->tid ? -1 : 1;
    return a->start < b->start ? -1 : a->start > b->start;
}

static int by_row(const void *left, const void *right)
{
    const dls_trace_row *a = left, *b = right;
    if (a->pid != b->pid)
        return a->pid < b->pid ? -1 : 1;
    return a->tid < b->tid ? -1 : a->tid > b->tid;
}

static int by_number(const void *left, const void *right)
{
    const dls_trace_flow *a = left, *b = right;
    if (a->kind != b->kind)
        return a->kind - b->kind;
    if (a->id != b->id)
        return a->id < b->id ? -1 : 1;
    return isnan(a->from) - isnan(b->from); // the start first
}

/* Joins the ends of arrows; chart->flows has the complete ones afterwards. */
static void join_flows(dls_trace_chart *chart)
{
    dls_trace_flow *f = chart->flows;
    int joined = 0;
    qsort(f, (size_t)chart->flow_count, sizeof *f, by_number);
    for (int i = 0; i + 1 < chart->flow_count; i++) {
        const dls_trace_flow *to = &f[i + 1];
        if (f[i].kind != to->kind || f[i].id != to->id || !isfinite(f[i].from) ||
            !isfinite(to->to))
            continue;
        f[joined++] = (dls_trace_flow){f[i].kind, f[i].from_pid, f[i].from_tid, to->pid,
                                       to->tid, f[i].from, to->to, to->id};
        i++;
    }
    chart->flow_count = joined;
}

static void sort_chart(dls_trace_chart *chart, double from_s, double to_s)
{
    double first = INFINITY, last = 0;
    qsort(chart->bars, (size_t)chart->bar_count, sizeof *chart->bars, by_row_and_time);
    qsort(chart->rows, (size_t)chart->row_count, sizeof *chart->rows, by_row);
    join_flows(chart);
    for (int i = 0; i < chart->bar_count; i++) {
        first = fmin(first, chart->bars[i].start);
        last = fmax(last, chart->bars[i].finish);
    }
    int all = !(to_s > from_s);
    chart->from = all ? (chart->bar_count ? first : 0) : from_s * 1e6;
    chart->to = all ? last : to_s * 1e6;
    if (chart->to <= chart->from)
        chart->to = chart->from + 1; // an empty trace still has an axis
}

/* write the merged trace */
static dls_status write_chrome(json_t *const *roots, int n, const char *path)
{
    json_t *all = json_array();
    json_t *merged = json_pack("{s:s, s:o}", "displayTimeUnit", "ns", "traceEvents", all);
    for (int i = 0; i < n; i++)
        json_array_extend(all, json_object_get(roots[i], "traceEvents"));
    const size_t flags = JSON_COMPACT | JSON_REAL_PRECISION(12);
    char *text = merged ? json_dumps(merged, flags) : NULL;
    json_decref(merged);
    if (text == NULL)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory to write the trace", path);
    dls_status status = dls_file_write(path, text, strlen(text));
    free(text);
    return status;
}

/* merge traces */
dls_status dls_trace_merge(const char *const *paths, int n, const char *chrome_path,
                           const char *svg_path, double from_s, double to_s)
{
    dls_trace_chart chart = {0};
    dls_status status = DLS_OK;
    json_t **roots = calloc((size_t)n + 1, sizeof *roots);
    if (roots == NULL)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory to merge %d traces", n);
    for (int i = 0; i < n; i++) {
        DLS_TRY_GOTO(status, load_trace(paths[i], &roots[i]), done);
        DLS_TRY_GOTO(status, add_events(&chart, roots[i], paths[i]), done);
    }
    sort_chart(&chart, from_s, to_s);
    if (chrome_path)
        DLS_TRY_GOTO(status, write_chrome(roots, n, chrome_path), done);
    if (svg_path)
        DLS_TRY_GOTO(status, dls_trace_draw(&chart, svg_path), done);
done:
    for (int i = 0; i < n; i++)
        json_decref(roots[i]);
    free(roots);
    free(chart.bars);
    free(chart.rows);
    free(chart.flows);
    return status;
}
