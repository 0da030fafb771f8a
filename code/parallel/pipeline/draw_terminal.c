/* code/parallel/pipeline/draw_terminal.c: from chapters/05-pipeline-pictures-terminal.md. Edit the chapter, or edit here and run "make untangle". */
/* The picture of a pipeline as text.
 *
 *   rank 0  F0  F1  F2  F3  ..  ..  ..  B0  ==  F4  peak 4
 *
 * `per` steps of time are a cell group of `wide` characters; either per or wide is 1. */
#include <string.h>

#include "parallel/pipeline/draw_internal.h"

/* choose the cells */
typedef struct page {
    const dls_drawing *d;
    dls_text *out;
    dls_draw_totals t;
    int colour, wide, label; // cells of a step; a label's length
    int64_t per, steps;      // ticks of a cell or step; how many of them
    int left, right;         // columns of "rank 10  " and of "  peak 11.5"
} page;

static int digits(int64_t n)
{
    return n > 9 ? 1 + digits(n / 10) : 1;
}

static void choose_cells(page *p, int columns)
{
    int64_t span = p->t.to - p->t.from, room = columns - p->left - p->right;
    room = room < 16 ? 16 : room;
    for (size_t i = 0; i < p->d->count; i++) {
        const dls_box *b = &p->d->boxes[i];
        int length = 1 + digits(b->microbatch > 0 ? b->microbatch : 0) +
                     (p->d->shades > 1 ? digits(b->stage) : 0);
        p->label = length > p->label ? length : p->label;
    }
    p->per = p->t.step;
    p->steps = span / p->per;
    p->wide = p->steps * (p->label + 1) <= room ? p->label + 1 : 1;
    if (p->steps > room) {
        p->per = (span + room - 1) / room;
        p->steps = (span + p->per - 1) / p->per;
    }
}

/* label a box */
static const char letters[] = "FIWB*";

static void label_box(const page *p, const dls_box *b, dls_text *out)
{
    int k = dls_draw_kind(b);
    if (k == 4)
        dls_text_add(out, "*");
    else if (p->d->shades > 1)
        dls_text_add(out, "%d%c%d", b->stage, letters[k], b->microbatch);
    else
        dls_text_add(out, "%c%d", letters[k], b->microbatch);
}

/* colour a cell */
static void set_colour(const page *p, int kind, int shade)
{
    static const int ground[] = {44, 43, 42, 41, 47};
    if (p->colour)
        dls_text_add(p->out, "\x1b[%d;%dm", shade || kind == 1 || kind == 4 ? 30 : 97,
                     ground[kind] + (shade ? 60 : 0));
}

static void end_colour(const page *p)
{
    if (p->colour)
        dls_text_add(p->out, "\x1b[0m");
}

/* write labelled boxes */
static void write_box(const page *p, const dls_box *b, int cells)
{
    dls_text label = {0};
    label_box(p, b, &label);
    if (b->half == 1 && 2 * (int)label.size + 1 < cells) {
        dls_text_add(&label, "+");
        label_box(p, b + 1, &label);
    }
    set_colour(p, dls_draw_kind(b), b->shade);
    dls_text_add(p->out, "%s", label.data ? label.data : "");
    for (int i = (int)label.size; i < cells; i++)
        dls_text_add(p->out, "%s",
                     p->colour || i + 1 == cells || i == (int)label.size ? " " : "=");
    end_colour(p);
    p->out->lost |= label.lost;
    dls_text_free(&label);
}

static void write_idle(const page *p, int64_t steps)
{
    for (int64_t i = 0; i < steps; i++)
        dls_text_add(p->out, "%-*s", p->wide, "..");
}

static void write_boxes(const page *p, size_t first, size_t last)
{
    int64_t at = 0;
    for (size_t i = first; i < last; i++) {
        const dls_box *b = &p->d->boxes[i];
        int64_t from = (b->start - p->t.from) / p->per;
        int64_t to = (b->end - p->t.from) / p->per;
        if (dls_draw_kind(b) < 0 || from < at || to == from)
            continue;
        write_idle(p, from - at);
        write_box(p, b, (int)(to - from) * p->wide);
        at = to;
    }
    write_idle(p, p->steps - at);
}

/* find what fills a cell */
/* The kind and shade that fill most of [from, to), or -1 for idle; *i: where to look. Of
 * two that fill it alike, a pair, `turn` says which. */
static int fills(const page *p, size_t *i, size_t last, int64_t from, int64_t to,
                 int turn, int *shade)
{
    int64_t busy[DLS_DRAW_KINDS][2] = {{0}}, idle = to - from;
    int pair = 0;
    while (*i < last && p->d->boxes[*i].end <= from)
        ++*i;
    for (size_t j = *i; j < last && p->d->boxes[j].start < to; j++) {
        const dls_box *b = &p->d->boxes[j];
        int64_t a = b->start > from ? b->start : from, z = b->end < to ? b->end : to;
        if (dls_draw_kind(b) >= 0 && z > a) {
            busy[dls_draw_kind(b)][b->shade > 0] += z - a;
            idle -= z - a;
            pair |= b->half;
        }
    }
    int best = -1;
    int64_t most = idle > 0 ? idle - 1 : 0; // as long as the rank was idle is enough
    for (int k = 0; k < 2 * DLS_DRAW_KINDS; k++)
        if (busy[k / 2][k % 2] > most ||
            (turn && pair && best >= 0 && busy[k / 2][k % 2] == most)) {
            best = k;
            most = busy[k / 2][k % 2];
        }
    *shade = best < 0 ? 0 : best % 2;
    return best < 0 ? -1 : best / 2;
}

/* write single cells */
static void write_cells(const page *p, size_t first, size_t last)
{
    int before = -1, shade = 0;
    for (int64_t c = 0; c < p->steps; c++) {
        int64_t from = p->t.from + c * p->per;
        int to_be = fills(p, &first, last, from, from + p->per, c % 2, &shade);
        int now = to_be < 0 ? -1 : 2 * to_be + shade;
        if (now != before && before >= 0)
            end_colour(p);
        if (now != before && now >= 0)
            set_colour(p, to_be, shade);
        before = now;
        dls_text_add(p->out, "%c", now < 0 ? '.' : letters[to_be] | (shade ? 32 : 0));
    }
    if (before >= 0)
        end_colour(p);
}

/* write one rank */
static void write_rank(const page *p, int rank, size_t first, size_t last)
{
    dls_text_add(p->out, "rank %-*d", p->left - 5, rank);
    if (p->wide > 1)
        write_boxes(p, first, last);
    else
        write_cells(p, first, last);
    if (p->d->one) {
        int64_t peak = 0;
        for (dls_draw_walk w = {.rank = rank}; dls_draw_next(p->d, &w);)
            peak = w.held > peak ? w.held : peak;
        dls_text_add(p->out, "  peak ");
        dls_text_ratio(p->out, peak, p->d->one);
    }
    dls_text_add(p->out, "\n");
}

/* write the axis in letters */
static void write_axis(const page *p)
{
    int64_t unit = p->d->unit, every = 1, column = -1;
    static const int factors[] = {2, 5, 10};
    for (int64_t power = 1, i = 0; every * unit / p->per * p->wide < 8 &&
                                   every * unit < (int64_t)1 << 46; i++) {
        every = power * factors[i % 3];
        power *= i % 3 == 2 ? 10 : 1;
    }
    dls_text_add(p->out, "%-*s", p->left, "");
    for (int64_t u = 0; u * unit <= p->t.to - p->t.from; u += every) {
        int64_t at = u * unit / p->per * p->wide;
        for (column = column < 0 ? 0 : column; column < at; column++)
            dls_text_add(p->out, " ");
        dls_text_add(p->out, "%lld", (long long)u);
        column += digits(u);
    }
    dls_text_add(p->out, "%s%s\n", *p->d->unit_name ? " " : "", p->d->unit_name);
}

/* write the whole text */
static void write_ratio(dls_text *out, const char *name, int64_t n, int64_t d,
                        const char *unit)
{
    dls_text_add(out, "%s ", name);
    dls_text_ratio(out, n, d ? d : 1);
    dls_text_add(out, "%s%s", *unit && *unit != '%' ? " " : "", unit);
}

static void write_summary(const page *p)
{
    const dls_draw_totals *t = &p->t;
    int64_t all = t->makespan, unit = p->d->unit;
    write_ratio(p->out, "makespan", all, unit, p->d->unit_name);
    write_ratio(p->out, ", span", t->span, unit, p->d->unit_name);
    write_ratio(p->out, ", ideal", t->ideal, unit, p->d->unit_name);
    write_ratio(p->out, ", bubble/ideal", (all - t->ideal) * 100, t->ideal, "%");
    write_ratio(p->out, ", bubble/total", (all - t->ideal) * 100, all, "%");
    dls_text_add(p->out, "\n");
}

dls_status dls_draw_terminal(const dls_drawing *d, int columns, int colour,
                             dls_text *out)
{
    page p = {.d = d, .out = out, .colour = colour, .left = 6 + digits(d->ranks - 1)};
    DLS_TRY(dls_draw_total(d, &p.t));
    dls_text peak = {0};
    if (d->one)
        dls_text_ratio(&peak, p.t.peak, d->one);
    p.right = d->one ? 7 + (int)peak.size : 0;
    out->lost |= peak.lost;
    dls_text_free(&peak);
    choose_cells(&p, columns);
    dls_text_add(out, "%s\n", d->title);
    size_t i = 0;
    for (int r = 0; r < d->ranks; r++) {
        size_t first = i;
        while (i < d->count && d->boxes[i].rank == r)
            i++;
        write_rank(&p, r, first, i);
    }
    write_axis(&p);
    write_summary(&p);
    return dls_text_status(out);
}
