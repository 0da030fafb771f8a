/* code/parallel/pipeline/draw_svg.c: from chapters/05-pipeline-pictures.md. Edit the chapter, or edit here and run "make untangle". */
/* The picture of a pipeline as SVG.
 *
 *   title                                       coordinates are integers, hundredths
 *   totals, legend      (broken into lines)     of a pixel; `y` runs down while drawing
 *   rank 0  |████ ████ ..  ████|
 *   peak 4  |  __---___        |
 *   axis    0        10       20
 *
 * Where boxes would be thinner than 1.5 pixels, a rank's row shows columns instead: of
 * each column of 3 pixels, what part of that time went to F, I, W and B. 64 ranks with
 * 1,024 micro-batches are then some hundred kilobytes and not some ten million. */
#include <string.h>

#include "parallel/pipeline/draw_internal.h"

/* lay out the sheet */
enum {
    PX = 100, LEFT = 66 * PX, RIGHT = 14 * PX, LINE = 18 * PX, AXIS = 30 * PX,
    COLUMN = 3 * PX
};

typedef struct sheet {
    const dls_drawing *d;
    dls_text *out;
    dls_draw_totals t;
    int width, plot;       // of the picture, of the part right of the labels
    int row, curve, pitch; // heights: boxes, memory, from row to row
    int64_t scale, per;    // x = LEFT + (time - t.from) * scale / per
    int columns;           // draw columns instead of boxes
} sheet;

static int x_of(const sheet *s, int64_t time)
{
    return LEFT + (int)((time - s->t.from) * s->scale / s->per);
}

static void lay_out(sheet *s)
{
    const dls_drawing *d = s->d;
    int64_t until = d->until > s->t.to ? d->until : s->t.to;
    int64_t steps = (until - s->t.from) / s->t.step;
    s->width = (d->width ? d->width : 960) * PX;
    s->plot = s->width - LEFT - RIGHT;
    int64_t pixels = steps ? s->plot / PX / steps : 0;
    s->scale = pixels >= 8 ? pixels * PX : s->plot;
    s->per = pixels >= 8 ? s->t.step : until - s->t.from;
    s->per = s->per ? s->per : 1;
    int many = d->ranks > 8 ? 640 / d->ranks - 1 : 24;
    s->row = (many > 24 ? 24 : many < 5 ? 5 : many) * PX;
    s->curve = d->one && d->ranks <= 16 ? (d->ranks <= 8 ? 16 : 12) * PX : 0;
    s->pitch = s->row + s->curve + (s->curve ? 5 : 1) * PX;
    int64_t most = (int64_t)s->t.drawn * PX * 3 / 2;
    s->columns = most > (int64_t)d->ranks * s->plot;
}

/* choose the colours */
static const int base_colours[DLS_DRAW_KINDS][3] = {
    {0, 114, 178}, {230, 159, 0}, {0, 158, 115}, {213, 94, 0}, {125, 125, 125},
};

/* The colour of a kind's chunk `shade` of `shades`, as 0xRRGGBB. */
static unsigned colour_of(int kind, int shade, int shades)
{
    unsigned all = 0;
    int white = shades > 1 ? 65 * shade / (shades - 1) : 0;
    for (int c = 0; c < 3; c++) {
        int base = base_colours[kind][c];
        all = all << 8 | (unsigned)(base + (255 - base) * white / 100);
    }
    return all;
}

static int needs_dark_ink(unsigned c)
{
    return 299 * (c >> 16) + 587 * (c >> 8 & 255) + 114 * (c & 255) > 100 * 1000;
}

/* write the pictures styles */
static void write_theme(dls_text *out, const char *scope, int dark)
{
    static const char *const paper[] = {"#ffffff", "#161b22"};
    static const char *const line[] = {"#d5dae1", "#36404c"};
    static const char *const ink[] = {"#1f2933", "#e3e9f0"};
    static const char *const soft[] = {"#5f6b7a", "#9aa7b5"};
    static const char *const idle[] = {"#edf0f3", "#232b35"};
    dls_text_add(out, "%s .paper{fill:%s;stroke:%s}%s .grid{stroke:%s}%s text{fill:%s}"
                 "%s .soft{fill:%s}%s .idle{fill:%s}%s .held{fill:%s;stroke:%s}"
                 "%s .edge{stroke:%s}\n", scope, paper[dark], line[dark], scope,
                 line[dark], scope, ink[dark], scope, soft[dark], scope, idle[dark],
                 scope, idle[dark], soft[dark], scope, paper[dark]);
}

static void write_styles(const sheet *s)
{
    dls_text *out = s->out;
    dls_text_add(out, "<style>\n.pipeline text{font:1100px Inter,'DejaVu Sans',Helvetica,"
                 "sans-serif}.pipeline .title{font-weight:bold;font-size:1250px}"
                 ".pipeline text.tight{font-size:900px}"
                 ".pipeline rect,.pipeline path,.pipeline line{stroke-width:100}\n");
    write_theme(out, ".pipeline", 0);
    dls_text_add(out, "@media (prefers-color-scheme: dark){\n");
    write_theme(out, ".pipeline", 1);
    dls_text_add(out, "}\n");
    write_theme(out, "[data-theme=light] .pipeline", 0);
    write_theme(out, "[data-theme=dark] .pipeline", 1);
    for (int k = 0; k < DLS_DRAW_KINDS; k++)
        for (int c = 0; c < s->d->shades; c++)
            dls_text_add(out, ".pipeline .k%d%d{fill:#%06x}", k, c,
                         colour_of(k, c, s->d->shades));
    dls_text_add(out, "\n.pipeline text.n0{fill:#ffffff}.pipeline text.n1{fill:#000000}"
                 "\n[data-theme] .pipeline text.n0{fill:#ffffff}"
                 "[data-theme] .pipeline text.n1{fill:#000000}\n</style>\n");
}

/* flow items into lines */
typedef struct flow {
    int x, y; // where the next item begins; the baseline
} flow;

/* An item of `length` characters behind `before` hundredths of a pixel: moves on. */
static int place_item(const sheet *s, flow *f, int before, size_t length)
{
    int need = before + 630 * (int)length;
    if (f->x > 12 * PX && f->x + need > s->width - RIGHT) {
        f->x = 12 * PX;
        f->y += LINE;
    }
    int x = f->x;
    f->x += need + 14 * PX;
    return x;
}

static void put_item(const sheet *s, flow *f, const char *name, int64_t n, int64_t d,
                     const char *unit)
{
    dls_text t = {0};
    dls_text_add(&t, "%s ", name);
    dls_text_ratio(&t, n, d ? d : 1);
    dls_text_add(&t, "%s%s", *unit ? "\xc2\xa0" : "", unit);
    int x = place_item(s, f, 0, t.size);
    dls_text_add(s->out, "<text x=\"%d\" y=\"%d\">%s</text>\n", x, f->y,
                 t.data ? t.data : "");
    s->out->lost |= t.lost;
    dls_text_free(&t);
}

/* write the heading */
static void put_title(const sheet *s, flow *f)
{
    size_t room = (size_t)(s->width - 2 * f->x) / 760;
    const char *at = s->d->title;
    for (size_t n = strlen(at); n > 0; f->y += LINE, n = strlen(at)) {
        size_t part = n;
        for (size_t i = room < n ? room : 0; i > 0 && part == n; i--)
            part = at[i] == ' ' ? i : n;
        dls_text_add(s->out, "<text class=\"title\" x=\"%d\" y=\"%d\">", f->x, f->y);
        for (size_t i = 0; i < part; i++)
            dls_text_xml(s->out, (char[]){at[i], 0});
        dls_text_add(s->out, "</text>\n");
        at += part + (at[part] == ' ');
    }
}

static void write_totals(const sheet *s, flow *f)
{
    const dls_draw_totals *t = &s->t;
    int64_t all = t->makespan, unit = s->d->unit;
    put_item(s, f, "makespan", all, unit, s->d->unit_name);
    put_item(s, f, "span", t->span, unit, s->d->unit_name);
    put_item(s, f, "ideal", t->ideal, unit, s->d->unit_name);
    put_item(s, f, "bubble/ideal", (all - t->ideal) * 100, t->ideal, "%");
    put_item(s, f, "bubble/total", (all - t->ideal) * 100, all, "%");
    if (s->d->one)
        put_item(s, f, "peak", t->peak, s->d->one, "");
}

static void put_key(const sheet *s, flow *f, const char *class, const char *name)
{
    int x = place_item(s, f, 18 * PX, strlen(name));
    dls_text_add(s->out, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"1200\" "
                 "height=\"1200\"/><text class=\"soft\" x=\"%d\" y=\"%d\">%s</text>\n",
                 class, x, f->y - 10 * PX, x + 17 * PX, f->y, name);
}

static void put_words(const sheet *s, flow *f, const char *words)
{
    int x = place_item(s, f, 0, strlen(words));
    dls_text_add(s->out, "<text class=\"soft\" x=\"%d\" y=\"%d\">%s</text>\n", x, f->y,
                 words);
}

static void write_legend(const sheet *s, flow *f)
{
    static const char *const names[] = {"F forward", "I input gradient",
                                        "W weight gradient", "B whole backward",
                                        "step, reduction"};
    int used[DLS_DRAW_KINDS] = {0}, pairs = 0;
    for (size_t i = 0; i < s->d->count; i++)
        if (dls_draw_kind(&s->d->boxes[i]) >= 0) {
            used[dls_draw_kind(&s->d->boxes[i])] = 1;
            pairs |= s->d->boxes[i].half;
        }
    for (int k = 0; k < DLS_DRAW_KINDS; k++) {
        char class[] = {'k', (char)('0' + k), '0', 0};
        if (used[k])
            put_key(s, f, class, names[k]);
    }
    put_key(s, f, "idle", "idle");
    if (s->d->shades > 1)
        put_key(s, f, "k01", s->d->lighter ? s->d->lighter : "lighter: later chunks");
    if (pairs)
        put_words(s, f, "one above the other: a pair");
}

/* draw the axis of time */
static int64_t mark_step(const sheet *s)
{
    static const int factors[] = {1, 2, 5};
    int64_t power = 1;
    for (int i = 0; i < 54; i++) {
        int64_t units = factors[i % 3] * power;
        if (units * s->d->unit > ((int64_t)1 << 46) ||
            units * s->d->unit * s->scale / s->per >= 48 * PX)
            return units;
        power *= i % 3 == 2 ? 10 : 1;
    }
    return power;
}

static void draw_axis(const sheet *s, int top, int bottom)
{
    int64_t step = mark_step(s), unit = s->d->unit;
    int64_t until = s->d->until > s->t.to ? s->d->until : s->t.to;
    for (int64_t u = 0; u * unit <= until - s->t.from; u += step) {
        int x = x_of(s, s->t.from + u * unit);
        dls_text_add(s->out, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%d\" "
                     "y2=\"%d\"/><text class=\"soft\" text-anchor=\"middle\" x=\"%d\" "
                     "y=\"%d\">%lld%s%s</text>\n", x, x, top, bottom, x,
                     bottom + 15 * PX, (long long)u,
                     u || !*s->d->unit_name ? "" : "\xc2\xa0",
                     u ? "" : s->d->unit_name);
    }
}

/* draw one box */
static void draw_box(const sheet *s, const dls_box *b, int y)
{
    static const char letters[] = "FIWB";
    int x = x_of(s, b->start), width = x_of(s, b->end) - x, k = dls_draw_kind(b);
    int height = b->half ? s->row / 2 : s->row;
    y += b->half == 2 ? height : 0;
    dls_text_add(s->out, "<rect class=\"k%d%d%s\" x=\"%d\" y=\"%d\" width=\"%d\" "
                 "height=\"%d\"><title>", k, b->shade, width >= 4 * PX ? " edge" : "", x,
                 y, width, height);
    if (k < 4)
        dls_text_add(s->out, "%d%c%d, ", b->stage, letters[k], b->microbatch);
    dls_text_ratio(s->out, b->start - s->t.from, s->d->unit);
    dls_text_add(s->out, " to ");
    dls_text_ratio(s->out, b->end - s->t.from, s->d->unit);
    dls_text_add(s->out, " %s</title></rect>", s->d->unit_name);
    int digits = b->microbatch > 99 ? 3 : b->microbatch > 9 ? 2 : 1;
    if (k < 4 && height >= 11 * PX && width >= digits * 6 * PX)
        dls_text_add(s->out, "<text class=\"n%d%s\" text-anchor=\"middle\" x=\"%d\" "
                     "y=\"%d\">%d</text>",
                     needs_dark_ink(colour_of(k, b->shade, s->d->shades)),
                     width < (digits * 7 + 2) * PX ? " tight" : "", x + width / 2,
                     y + height / 2 + 4 * PX, b->microbatch);
    dls_text_add(s->out, "\n");
}

/* draw a row of columns */
enum { COLUMNS_MAX = 1600, LEVELS = 16 };
typedef struct pile {
    int64_t busy[COLUMNS_MAX][DLS_DRAW_KINDS];
} pile;

/* Adds a box's time to the columns it touches; column i begins at i * COLUMN. */
static void add_to_columns(const sheet *s, const dls_box *b, pile *p, int n)
{
    int64_t from = (b->start - s->t.from) * s->scale / s->per / COLUMN;
    for (int64_t i = from; i < n; i++) {
        int64_t left = s->t.from + i * COLUMN * s->per / s->scale;
        int64_t right = s->t.from + (i + 1) * COLUMN * s->per / s->scale;
        if (left >= b->end)
            return;
        left = b->start > left ? b->start : left;
        right = b->end < right ? b->end : right;
        p->busy[i][dls_draw_kind(b)] += right > left ? right - left : 0;
    }
}

static void draw_outline(const sheet *s, const pile *p, int n, int kind, int y)
{
    int level = 0, started = 0;
    for (int i = 0; i <= n; i++) {
        int64_t sum = 0, column = COLUMN * s->per / s->scale;
        for (int k = 0; k <= kind && i < n; k++)
            sum += p->busy[i][k];
        int now = (int)((sum * LEVELS + column / 2) / (column ? column : 1));
        now = now > LEVELS ? LEVELS : now;
        if (now == level)
            continue;
        if (!started++)
            dls_text_add(s->out, "<path class=\"k%d0\" d=\"M%d %d", kind,
                         LEFT + i * COLUMN, y + s->row);
        dls_text_add(s->out, "H%dV%d", LEFT + i * COLUMN,
                     y + s->row - s->row * now / LEVELS);
        level = now;
    }
    if (started)
        dls_text_add(s->out, "z\"/>\n");
}

static void draw_columns(const sheet *s, size_t first, size_t last, int y)
{
    static _Thread_local pile p;
    int n = s->plot / COLUMN + 1;
    n = n > COLUMNS_MAX ? COLUMNS_MAX : n;
    memset(&p, 0, sizeof p);
    for (size_t i = first; i < last; i++)
        if (dls_draw_kind(&s->d->boxes[i]) >= 0)
            add_to_columns(s, &s->d->boxes[i], &p, n);
    for (int k = DLS_DRAW_KINDS - 1; k >= 0; k--)
        draw_outline(s, &p, n, k, y);
}

/* draw the memory */
static void draw_memory(const sheet *s, int rank, int y)
{
    dls_text *out = s->out;
    int64_t peak = 0, last = 0, most = s->t.peak ? s->t.peak : 1;
    int bottom = y + s->curve, height = s->curve - 2 * PX;
    dls_text_add(out, "<path class=\"held\" d=\"M%d %d", LEFT, bottom);
    dls_draw_walk w = {.rank = rank}, now;
    for (int more = dls_draw_next(s->d, &w); more;) {
        now = w;
        peak = now.held > peak ? now.held : peak;
        more = dls_draw_next(s->d, &w);
        if ((more && w.time == now.time) || now.held == last)
            continue;
        last = now.held;
        dls_text_add(out, "H%dV%d", x_of(s, now.time),
                     bottom - (int)(last * height / most));
    }
    dls_text_add(out, "V%d\"/><text class=\"soft\" text-anchor=\"end\" x=\"%d\" y=\"%d\">"
                 "peak ", bottom, LEFT - 6 * PX, bottom - 2 * PX);
    dls_text_ratio(out, peak, s->d->one);
    dls_text_add(out, "</text>\n");
}

/* draw the ranks */
static void draw_rank(const sheet *s, int rank, size_t first, size_t last, int y)
{
    int every = (12 * PX + s->pitch - 1) / s->pitch;
    if (rank % every == 0)
        dls_text_add(s->out, "<text text-anchor=\"end\" x=\"%d\" y=\"%d\">rank %d"
                     "</text>\n", LEFT - 6 * PX,
                     y + (s->row < 12 * PX ? 5 * PX : s->row / 2 + 4 * PX), rank);
    if (s->columns)
        draw_columns(s, first, last, y);
    for (size_t i = first; i < last && !s->columns; i++)
        if (dls_draw_kind(&s->d->boxes[i]) >= 0)
            draw_box(s, &s->d->boxes[i], y);
    if (s->curve)
        draw_memory(s, rank, y + s->row);
}

static void draw_ranks(const sheet *s, int y)
{
    size_t i = 0;
    for (int r = 0; r < s->d->ranks; r++, y += s->pitch) {
        size_t first = i;
        while (i < s->d->count && s->d->boxes[i].rank == r)
            i++;
        draw_rank(s, r, first, i, y);
    }
}

static void draw_bands(const sheet *s, int y)
{
    int64_t until = s->d->until > s->t.to ? s->d->until : s->t.to;
    for (int r = 0; r < s->d->ranks; r++, y += s->pitch)
        dls_text_add(s->out, "<rect class=\"idle\" x=\"%d\" y=\"%d\" width=\"%d\" "
                     "height=\"%d\"/>\n", LEFT, y, x_of(s, until) - LEFT, s->row);
}

/* draw the whole svg */
static int draw_inside(sheet *s)
{
    flow f = {12 * PX, 20 * PX};
    put_title(s, &f);
    write_totals(s, &f);
    f = (flow){12 * PX, f.y + LINE};
    write_legend(s, &f);
    int top = f.y + 12 * PX, bottom = top + s->d->ranks * s->pitch;
    draw_bands(s, top);
    draw_axis(s, top, bottom);
    draw_ranks(s, top);
    return bottom + AXIS;
}

dls_status dls_draw_svg(const dls_drawing *d, dls_text *out)
{
    dls_text inside = {0};
    sheet s = {.d = d, .out = &inside};
    DLS_TRY(dls_draw_total(d, &s.t));
    lay_out(&s);
    int height = draw_inside(&s);
    s.out = out;
    dls_text_add(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"pipeline\" "
                 "viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n"
                 "<title>", s.width, height, s.width / PX, height / PX);
    dls_text_xml(out, d->title);
    dls_text_add(out, "</title>\n");
    write_styles(&s);
    dls_text_add(out, "<rect class=\"paper\" x=\"50\" y=\"50\" width=\"%d\" "
                 "height=\"%d\" rx=\"600\"/>\n%s</svg>\n", s.width - 100, height - 100,
                 inside.data ? inside.data : "");
    out->lost |= inside.lost;
    dls_text_free(&inside);
    return dls_text_status(out);
}
