/* code/vgpu/trace_svg.c: from chapters/A-virtual-gpu-traces.md. Edit the chapter, or edit here and run "make untangle". */
/* Drawing a Gantt chart as SVG.
 *
 *   legend
 *   rank 0   ranges     ──forward──╌──backward──
 *            compute    ████ ██ ████████
 *            comm            ██████ ████
 *   axis     0      10      20 ms
 *
 * Sizes are in pixels of a chart 960 wide. Bars too thin to see are merged, so that the
 * file's size depends on the picture's and not on the number of operations. */
#include "vgpu/trace_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* lay out the chart */
enum {
    WIDTH = 960, LEFT = 132, RIGHT = 16, TOP = 40, ROW = 20, ROW_GAP = 4, RANGE_ROW = 13,
    GROUP_GAP = 10, AXIS = 30
};

enum { PLACES = 256 };

typedef struct places { // where the rows are, for the arrows
    int count, pid[PLACES], tid[PLACES];
    double y[PLACES];
} places;

typedef struct pen {
    FILE *out;
    const dls_trace_chart *chart;
    double scale; // pixels per microsecond
    places *rows;
} pen;

static double x_of(const pen *p, double us)
{
    return LEFT + (us - p->chart->from) * p->scale;
}

/* Rows of ranges have negative thread numbers: -1 outermost, -2 inside it ... */
static int is_range(int tid) { return tid < 0; }
static int row_height(int tid) { return is_range(tid) ? RANGE_ROW : ROW; }

/* write escaped text */
static void put_text(FILE *out, const char *text, int limit)
{
    for (int i = 0; text[i] && i < limit; i++)
        switch (text[i]) {
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '&': fputs("&amp;", out); break;
        case '"': fputs("&quot;", out); break;
        default: fputc((unsigned char)text[i] < 32 ? ' ' : text[i], out);
        }
}

/* write the styles */
static void put_theme(FILE *out, const char *scope, const char *ground, const char *edge,
                      const char *ink, const char *faint, const char *band)
{
    fprintf(out, "%s .ground{fill:%s;stroke:%s}%s .band{fill:%s}%s .grid{stroke:%s}"
            "%s text{fill:%s}%s .soft{fill:%s}%s .range{fill:%s;stroke:%s}"
            "%s .arrow{stroke:%s}%s .head{fill:%s}\n",
            scope, ground, edge, scope, band, scope, edge, scope, ink, scope, faint,
            scope, edge, ground, scope, ink, scope, ink);
}

static void put_styles(FILE *out)
{
    fputs("<style>\n.gantt text{font-family:Inter,'DejaVu Sans',Helvetica,sans-serif;"
          "font-size:11px}\n", out);
    put_theme(out, ".gantt", "#ffffff", "#d5dae1", "#1f2933", "#5f6b7a", "#f4f6f8");
    fputs(".gantt .k0{fill:#35699f}.gantt .k1{fill:#8a6a12}.gantt .k2{fill:#b9482f}"
          ".gantt .k3{fill:#6a5a8c}.gantt .arrow{fill:none;stroke-width:0.8;"
          "stroke-opacity:0.75}.gantt .event{stroke-dasharray:3 2}\n"
          ".gantt text.on{fill:#ffffff;font-size:10px}\n"
          "@media (prefers-color-scheme: dark){\n", out);
    put_theme(out, ".gantt", "#161b22", "#36404c", "#e3e9f0", "#9aa7b5", "#1c232c");
    fputs(".gantt text.on{fill:#ffffff}\n}\n", out);
    put_theme(out, "[data-theme=light] .gantt", "#ffffff", "#d5dae1", "#1f2933",
              "#5f6b7a", "#f4f6f8");
    put_theme(out, "[data-theme=dark] .gantt", "#161b22", "#36404c", "#e3e9f0",
              "#9aa7b5", "#1c232c");
    fputs("[data-theme] .gantt text.on{fill:#ffffff}\n</style>\n", out);
}

/* draw the axis */
static double tick_step(double span)
{
    double step = pow(10, floor(log10(span / 8)));
    while (span / step > 8)
        step *= span / step > 40 ? 5 : 2;
    return step;
}

static void draw_axis(const pen *p, double top, double bottom)
{
    double span = p->chart->to - p->chart->from, step = tick_step(span);
    double unit = span >= 2e6 ? 1e6 : span >= 2e3 ? 1e3 : 1;
    const char *name = unit > 1e3 ? "s" : unit > 1 ? "ms" : "\xc2\xb5s";
    for (int i = 0; i * step <= span * (1 + 1e-9); i++) {
        double x = LEFT + i * step * p->scale;
        fprintf(p->out, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" "
                "y2=\"%.1f\"/><text class=\"soft\" text-anchor=\"middle\" x=\"%.1f\" "
                "y=\"%.1f\">%g%s%s</text>\n", x, x, top, bottom, x, bottom + 16,
                i * step / unit, i ? "" : " ", i ? "" : name);
    }
}

/* draw the legend */
static void draw_legend(const pen *p)
{
    static const char *const names[] = {"compute", "copy", "communication", "host"};
    int used[4] = {0};
    double x = LEFT;
    for (int i = 0; i < p->chart->bar_count; i++)
        if (p->chart->bars[i].kind >= 0)
            used[p->chart->bars[i].kind] = 1;
    for (int k = 0; k < 4; k++) {
        if (!used[k])
            continue;
        fprintf(p->out, "<rect class=\"k%d\" x=\"%.0f\" y=\"15\" width=\"12\" "
                "height=\"12\" rx=\"2\"/><text x=\"%.0f\" y=\"25\">%s</text>\n", k, x,
                x + 17, names[k]);
        x += 36 + 6.2 * (double)strlen(names[k]);
    }
    double from = p->chart->from;
    if (from > 0)
        fprintf(p->out, "<text class=\"soft\" text-anchor=\"end\" x=\"%d\" y=\"25\">"
                "0 is at %.6g %s</text>\n", WIDTH - RIGHT, from / (from < 1e3 ? 1 : 1e3),
                from < 1e3 ? "\xc2\xb5s" : "ms");
}

/* draw a bar */
static void draw_bar(const pen *p, const dls_trace_bar *bar, double finish, int count,
                     double y)
{
    double a = fmax(x_of(p, bar->start), LEFT);
    double b = fmin(x_of(p, finish), WIDTH - RIGHT), width = fmax(b - a, 0.4);
    int room = (int)((width - 5) / 5.9), height = row_height(bar->tid);
    int length = (int)strlen(bar->name);
    fprintf(p->out, "<rect class=\"%s%d\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" "
            "height=\"%d\"%s><title>", bar->kind < 0 ? "range r" : "k",
            bar->kind < 0 ? 0 : bar->kind, a, y, width, height,
            width > 6 ? " rx=\"2\"" : "");
    if (count > 1)
        fprintf(p->out, "%d operations", count);
    else
        put_text(p->out, bar->name, 200);
    fprintf(p->out, ", %.4g to %.4g \xc2\xb5s</title></rect>\n", bar->start, finish);
    if (count == 1 && room >= length && length > 0) {
        fprintf(p->out, "<text class=\"%s\" text-anchor=\"middle\" x=\"%.1f\" "
                "y=\"%.1f\">", bar->kind < 0 ? "soft" : "on", a + width / 2,
                y + height - (height > 15 ? 6 : 3));
        put_text(p->out, bar->name, 200);
        fputs("</text>\n", p->out);
    }
}

/* draw a row */
/* All bars of bars[first..last) at height y; they are of one row, sorted by time. */
static void draw_row(const pen *p, int first, int last, double y)
{
    const dls_trace_bar *bars = p->chart->bars;
    for (int i = first; i < last; i++) {
        double finish = bars[i].finish;
        int count = 1, next = i + 1;
        if (finish < p->chart->from || bars[i].start > p->chart->to)
            continue;
        while (next < last && (finish - bars[i].start) * p->scale < 1.5 &&
               bars[next].kind == bars[i].kind &&
               (bars[next].start - finish) * p->scale < 0.5) {
            finish = fmax(finish, bars[next++].finish);
            count++;
        }
        draw_bar(p, &bars[i], finish, count, y);
        i = next - 1;
    }
}

static const char *row_name(const dls_trace_chart *chart, int pid, int tid)
{
    for (int i = 0; i < chart->row_count; i++)
        if (chart->rows[i].pid == pid && chart->rows[i].tid == tid)
            return chart->rows[i].name;
    return "";
}

/* draw all rows */
/* The end of the row that begins at `first`; *seen: it has a bar in the window. */
static int end_of_row(const dls_trace_chart *chart, int first, int *seen)
{
    const dls_trace_bar *bars = chart->bars;
    int i = first;
    *seen = 0;
    for (; i < chart->bar_count && bars[i].pid == bars[first].pid &&
           bars[i].tid == bars[first].tid; i++)
        *seen |= bars[i].finish >= chart->from && bars[i].start <= chart->to;
    return i;
}

static void draw_label(const pen *p, const char *name, double y, int height)
{
    fprintf(p->out, "<text class=\"soft\" text-anchor=\"end\" x=\"%d\" y=\"%.1f\">",
            LEFT - 8, y + height - (height > 15 ? 6 : 3));
    put_text(p->out, name, 14);
    fputs("</text>\n", p->out);
}

/* Draws one rank's rows from y on (nothing when p->out is NULL: only measures). */
static double draw_rank(const pen *p, int first, int last, double y)
{
    int starts[64], ends[64], count = 0, seen;
    for (int i = first; i < last && count < 64;) {
        int end = end_of_row(p->chart, i, &seen);
        if (seen) {
            starts[count] = i;
            ends[count++] = end;
        }
        i = end;
    }
    int ranges = 0;
    while (ranges < count && is_range(p->chart->bars[starts[ranges]].tid))
        ranges++;
    for (int k = 0; k < count; k++) {
        int row = k < ranges ? ranges - 1 - k : k; // outermost range first
        const dls_trace_bar *bar = &p->chart->bars[starts[row]];
        if (p->out) {
            if (!is_range(bar->tid))
                draw_label(p, row_name(p->chart, bar->pid, bar->tid), y, ROW);
            draw_row(p, starts[row], ends[row], y);
            if (p->rows->count < PLACES) {
                int i = p->rows->count++;
                p->rows->pid[i] = bar->pid;
                p->rows->tid[i] = bar->tid;
                p->rows->y[i] = y;
            }
        }
        y += row_height(bar->tid) + (is_range(bar->tid) ? 2 : ROW_GAP);
    }
    return y;
}

static double draw_ranks(const pen *p, double y)
{
    const dls_trace_chart *c = p->chart;
    pen measure = {NULL, c, p->scale, NULL};
    for (int i = 0, last; i < c->bar_count; i = last) {
        for (last = i; last < c->bar_count && c->bars[last].pid == c->bars[i].pid; last++)
            ;
        double bottom = draw_rank(&measure, i, last, y);
        if (p->out && bottom > y) {
            fprintf(p->out, "<rect class=\"band\" x=\"8\" y=\"%.1f\" width=\"%d\" "
                    "height=\"%.1f\" rx=\"3\"/><text x=\"16\" y=\"%.1f\">rank %d"
                    "</text>\n", y - 3, LEFT - 12, bottom - y + 2, y + 13,
                    c->bars[i].pid);
            draw_rank(p, i, last, y);
        }
        y = bottom > y ? bottom + GROUP_GAP : y;
    }
    return y;
}

/* draw the arrows */
enum { ARROWS = 100 };

static int place_of(const pen *p, int pid, int tid)
{
    for (int i = 0; i < p->rows->count; i++)
        if (p->rows->pid[i] == pid && p->rows->tid[i] == tid)
            return i;
    return -1;
}

static int visible(const pen *p, const dls_trace_flow *f)
{
    return f->from >= p->chart->from && f->to <= p->chart->to &&
           place_of(p, f->from_pid, f->from_tid) >= 0 && place_of(p, f->pid, f->tid) >= 0;
}

static void draw_arrow(const pen *p, const dls_trace_flow *f)
{
    double y = p->rows->y[place_of(p, f->from_pid, f->from_tid)];
    double to = p->rows->y[place_of(p, f->pid, f->tid)];
    double a = x_of(p, f->from), b = x_of(p, f->to), up = to < y ? -1 : 1;
    y += ROW / 2;
    to += up > 0 ? 1 : ROW - 1;
    double length = hypot(b - a, to - y), dx = (b - a) / length, dy = (to - y) / length;
    fprintf(p->out, "<path class=\"arrow%s\" d=\"M%.1f %.1fL%.1f %.1f\"/>"
            "<path class=\"head\" d=\"M%.1f %.1fL%.1f %.1fL%.1f %.1fz\"/>\n",
            f->kind ? " event" : "", a, y, b, to, b, to, b - 5 * dx - 2 * dy,
            to - 5 * dy + 2 * dx, b - 5 * dx + 2 * dy, to - 5 * dy - 2 * dx);
}

static void draw_arrows(const pen *p)
{
    const dls_trace_chart *c = p->chart;
    int count = 0;
    for (int i = 0; i < c->flow_count; i++)
        count += visible(p, &c->flows[i]);
    for (int i = 0; i < c->flow_count && count <= ARROWS; i++)
        if (visible(p, &c->flows[i]))
            draw_arrow(p, &c->flows[i]);
}

/* draw the chart */
dls_status dls_trace_draw(const dls_trace_chart *chart, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    places rows = {0};
    pen p = {NULL, chart, (WIDTH - LEFT - RIGHT) / (chart->to - chart->from), &rows};
    double bottom = draw_ranks(&p, TOP + 8);
    p.out = open_memstream(&text, &size);
    if (p.out == NULL)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory to draw the trace", path);
    fprintf(p.out, "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"gantt\" "
            "viewBox=\"0 0 %d %.0f\" width=\"%d\" height=\"%.0f\" role=\"img\">\n"
            "<title>Timeline of operations per rank and stream</title>\n", WIDTH,
            bottom + AXIS, WIDTH, bottom + AXIS);
    put_styles(p.out);
    fprintf(p.out, "<rect class=\"ground\" x=\"0.5\" y=\"0.5\" width=\"%d\" "
            "height=\"%.0f\" rx=\"6\"/>\n", WIDTH - 1, bottom + AXIS - 1);
    draw_axis(&p, TOP, bottom);
    draw_legend(&p);
    draw_ranks(&p, TOP + 8);
    draw_arrows(&p);
    fputs("</svg>\n", p.out);
    int failed = fclose(p.out) != 0;
    dls_status status = failed ? DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", path)
                               : dls_file_write(path, text, size);
    free(text);
    return status;
}
