/* tests/parallel/test_pipeline_pictures.c: from chapters/05-pipeline-pictures-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Drawings of schedules, taken apart: boxes, totals, memory, letters, refusals. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/csv.h"
#include "parallel/pipeline/draw.h"

/* make a drawing to look at */
typedef struct picture {
    dls_schedule s;
    dls_evaluation e;
    dls_drawing d;
} picture;

static picture picture_of(const char *name, int p, int m, int v, dls_pipeline_costs cost)
{
    picture out;
    dls_schedule_options o = dls_schedule_defaults(name, p, m);
    o.chunks = v;
    o.cost = cost;
    cr_assert_eq(dls_schedule_make(&o, &out.s), DLS_OK, "%s", dls_status_message());
    cr_assert_eq(dls_evaluate(&out.s, &out.e), DLS_OK, "%s", dls_status_message());
    cr_assert_eq(dls_draw_schedule(&out.s, &out.e, &out.d), DLS_OK);
    out.d.title = name;
    return out;
}

static void close_picture(picture *p)
{
    dls_draw_free(&p->d);
    dls_evaluation_free(&p->e);
    dls_schedule_free(&p->s);
}

static char *svg_of(const dls_drawing *d)
{
    dls_text out = {0};
    cr_assert_eq(dls_draw_svg(d, &out), DLS_OK, "%s", dls_status_message());
    return out.data;
}

/* read the boxes of an svg */
typedef struct read_box {
    int kind, shade, x, y, width, height, stage, microbatch;
    double start, end;
} read_box;

/* The next box behind *at; 0 when there is none. */
static int next_box(const char **at, read_box *b)
{
    static const char letters[] = "FIWB";
    char letter, rest[32];
    while ((*at = strstr(*at, "<rect class=\"k")) != NULL) {
        int n = sscanf(*at, "<rect class=\"k%1d%1d%31[^\"]", &b->kind, &b->shade, rest);
        *at = strstr(*at, " x=");
        int found = sscanf(*at, " x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"><title>"
                           "%d%c%d, %lf to %lf", &b->x, &b->y, &b->width, &b->height,
                           &b->stage, &letter, &b->microbatch, &b->start, &b->end);
        if (found != 9)
            continue;
        cr_assert(n >= 2 && letters[b->kind] == letter, "kind %d of %c", b->kind, letter);
        return 1;
    }
    return 0;
}

/* test boxes and their places */
static void expect_boxes(picture *p, int pixels)
{
    char *svg = svg_of(&p->d);
    const char *at = svg;
    read_box b;
    for (int r = 0; r < p->s.options.ranks; r++)
        for (size_t i = 0; i < p->s.order[r].n; i++) {
            const dls_action *a = &p->s.order[r].list[i];
            cr_assert(next_box(&at, &b), "rank %d has a box too few", r);
            cr_assert_eq(b.stage, a->stage);
            cr_assert_eq(b.microbatch, a->microbatch);
            cr_assert_eq(b.kind, (int)a->kind); // F I W B are 0 1 2 3 in both
            cr_assert_eq(b.shade, p->s.placement == DLS_PLACE_BOTH ? b.microbatch % 2
                                      : b.stage / p->s.options.ranks);
            cr_assert_eq(b.start, (double)p->e.start[r][i]);
            cr_assert_eq(b.end, (double)p->e.end[r][i]);
            cr_assert_eq(b.x, 6600 + 100 * pixels * p->e.start[r][i]);
            cr_assert_eq(b.width, 100 * pixels * (p->e.end[r][i] - p->e.start[r][i]));
        }
    cr_assert_not(next_box(&at, &b), "a box too many");
    free(svg);
}

Test(pipeline_pictures, boxes_stand_where_their_times_are)
{
    const dls_pipeline_costs costs = {.F = 2, .I = 3, .W = 1, .hop = 1};
    picture p = picture_of("1f1b", 3, 4, 1, costs);
    expect_boxes(&p, 880 / (int)p.e.makespan);
    close_picture(&p);
    p = picture_of("interleaved", 2, 5, 2, costs);
    expect_boxes(&p, 880 / (int)p.e.makespan);
    close_picture(&p);
    p = picture_of("chimera", 4, 4, 1, costs);
    expect_boxes(&p, 880 / (int)p.e.makespan);
    close_picture(&p);
    p = picture_of("gpipe", 1, 1, 1, (dls_pipeline_costs){.F = 1, .I = 1, .W = 1});
    expect_boxes(&p, 880 / 3);
    p.d.until = 30;
    expect_boxes(&p, 880 / 30);
    close_picture(&p);
}

static int count(const char *text, const char *part)
{
    int n = 0;
    for (; (text = strstr(text, part)) != NULL; text += strlen(part))
        n++;
    return n;
}

Test(pipeline_pictures, curves_inks_and_labels)
{
    picture p = picture_of("interleaved", 2, 4, 2,
                           (dls_pipeline_costs){.F = 1, .I = 1, .W = 1});
    char *svg = svg_of(&p.d);
    cr_assert_eq(p.d.one, 2 * p.d.hold);
    cr_assert_eq(count(svg, "class=\"held\""), 2);
    cr_assert_eq(count(svg, ">peak 2.5</text>"), 2, "of rank 0, and of all");
    free(svg);
    close_picture(&p);
    p = picture_of("gpipe", 1, 1, 1, (dls_pipeline_costs){.F = 1, .I = 1, .W = 1});
    svg = svg_of(&p.d);
    const char *path = strstr(svg, "class=\"held\"");
    int x, floor, top, end;
    cr_assert_eq(sscanf(path, "class=\"held\" d=\"M%d %dH6600V%dH94500V%d", &x, &floor,
                        &top, &end), 4);
    cr_assert(x == 6600 && floor == end && floor - top == 1400);
    free(svg);
    close_picture(&p);
    p = picture_of("gpipe", 64, 4, 1, (dls_pipeline_costs){.F = 1, .I = 1, .W = 1});
    svg = svg_of(&p.d);
    cr_assert_eq(count(svg, ">rank "), 32);
    cr_assert_eq(count(svg, "class=\"held\""), 0);
    free(svg);
    close_picture(&p);
}

Test(pipeline_pictures, steps_shades_and_halves)
{
    picture p = picture_of("interleaved", 2, 2, 3,
                           (dls_pipeline_costs){.F = 700, .I = 700, .W = 700});
    p.d.unit = 700;
    char *svg = svg_of(&p.d);
    const char *at = svg;
    for (read_box b; next_box(&at, &b);) {
        cr_assert_eq(b.shade, b.stage / 2);
        cr_assert_eq(b.width % 100, 0);
        cr_assert_eq(b.width, (b.end - b.start) * (880 / (p.e.makespan / 700)) * 100);
    }
    free(svg);
    close_picture(&p);
    static const char csv[] = "0F0,(0F1;0B0)OVERLAP_F_B,0B1\n";
    cr_assert_eq(dls_schedule_from_csv("x", csv, strlen(csv), &p.s), DLS_OK);
    cr_assert_eq(dls_evaluate(&p.s, &p.e), DLS_OK, "%s", dls_status_message());
    cr_assert_eq(dls_draw_schedule(&p.s, &p.e, &p.d), DLS_OK);
    read_box b[4];
    svg = svg_of(&p.d);
    at = svg;
    for (int i = 0; i < 4; i++)
        cr_assert(next_box(&at, &b[i]));
    cr_assert(b[1].x == b[2].x && b[1].width == b[2].width);
    cr_assert(b[1].height == b[0].height / 2 && b[2].height == b[1].height);
    cr_assert(b[1].y == b[0].y && b[2].y == b[1].y + b[1].height);
    free(svg);
    dls_text letters = {0};
    cr_assert_eq(dls_draw_terminal(&p.d, 80, 0, &letters), DLS_OK);
    cr_assert(strstr(letters.data, "rank 0 F0 F1+B0 == B1 ==   peak 2\n"));
    dls_text_free(&letters);
    close_picture(&p);
}

/* test inks */
static double luminance(unsigned colour)
{
    static const double weights[] = {0.2126, 0.7152, 0.0722};
    double sum = 0;
    for (int i = 0; i < 3; i++) {
        double c = (colour >> (16 - 8 * i) & 255) / 255.0;
        sum += weights[i] * (c <= 0.03928 ? c / 12.92 : pow((c + 0.055) / 1.055, 2.4));
    }
    return sum;
}

static double contrast(unsigned a, unsigned b)
{
    double x = luminance(a), y = luminance(b);
    return (fmax(x, y) + 0.05) / (fmin(x, y) + 0.05);
}

static int expect_inks(const char *name, int chunks)
{
    static const unsigned inks[] = {0xffffff, 0x000000};
    picture p = picture_of(name, 1, 1, chunks,
                           (dls_pipeline_costs){.F = 1, .I = 1, .W = 1});
    char *svg = svg_of(&p.d), rule[32];
    const char *at = svg;
    int seen = 0, ink;
    for (read_box b; next_box(&at, &b); seen++) {
        unsigned colour;
        snprintf(rule, sizeof rule, ".k%d%d{fill:#", b.kind, b.shade);
        cr_assert_eq(sscanf(strstr(svg, rule) + strlen(rule), "%x", &colour), 1);
        cr_assert_eq(sscanf(strstr(at, "<text class"), "<text class=\"n%d", &ink), 1);
        cr_assert_geq(contrast(colour, inks[ink]), 4.5, "%06x, ink %d", colour, ink);
    }
    free(svg);
    close_picture(&p);
    return seen;
}

Test(pipeline_pictures, every_number_is_legible)
{
    int seen = 0;
    for (int v = 1; v <= 10; v++)
        seen += expect_inks("interleaved", v) + expect_inks("interleaved-zb", v);
    cr_assert_eq(seen, 55 * 2 + 55 * 3);
}

/* test totals and memory */
static void expect_totals(picture *p, const char *name)
{
    dls_draw_totals t;
    int64_t all = 0;
    p->d.ideal = 0;
    cr_assert_eq(dls_draw_total(&p->d, &t), DLS_OK, "%s", dls_status_message());
    cr_assert_eq(t.from, 0, "%s", name);
    cr_assert_eq(t.to, p->e.makespan, "%s", name);
    cr_assert_eq(t.span, p->e.span, "%s", name);
    cr_assert_eq(t.ideal, p->e.ideal, "%s", name);
    for (int r = 0; r < p->s.options.ranks; r++) {
        int64_t peak = 0, last = 0, time = 0;
        for (dls_draw_walk w = {.rank = r}; dls_draw_next(&p->d, &w); time = w.time) {
            cr_assert(w.time >= time, "%s: time runs back on rank %d", name, r);
            cr_assert(w.held >= 0);
            peak = w.held > peak ? w.held : peak;
            last = w.held;
        }
        cr_assert_eq(peak, p->e.peak[r], "%s: rank %d", name, r);
        all += last;
    }
    cr_assert(all == 0 || strcmp(name, "forward-only") == 0, "%s holds at its end", name);
}

Test(pipeline_pictures, totals_are_those_of_the_evaluation)
{
    int drawn = 0;
    for (int i = 0; dls_schedule_at(i); i++)
        for (int p = 1; p <= 5; p++)
            for (int m = 1; m <= 9; m += 1 + m / 3) {
                const char *name = dls_schedule_at(i)->name;
                dls_schedule_options o = dls_schedule_defaults(name, p, m);
                picture x;
                o.cost = (dls_pipeline_costs){.F = 3, .I = 2, .W = 2, .hop = p % 2};
                o.memory = (dls_pipeline_memory){3, 1};
                if (dls_schedule_make(&o, &x.s) != DLS_OK)
                    continue; // not every combination exists
                cr_assert_eq(dls_evaluate(&x.s, &x.e), DLS_OK);
                cr_assert_eq(dls_draw_schedule(&x.s, &x.e, &x.d), DLS_OK);
                expect_totals(&x, o.name);
                close_picture(&x);
                drawn++;
            }
    cr_assert(drawn > 150, "only %d schedules could be drawn", drawn);
}

/* test letters */
static void expect_letters(dls_drawing *d, int columns, int colour, const char *expected)
{
    dls_text out = {0};
    cr_assert_eq(dls_draw_terminal(d, columns, colour, &out), DLS_OK);
    cr_assert_str_eq(out.data, expected);
    dls_text_free(&out);
}

static const dls_pipeline_costs ones = {.F = 1, .I = 1, .W = 1};

Test(pipeline_pictures, letters_to_the_tick)
{
    picture p = picture_of("1f1b", 2, 3, 1, ones);
    expect_letters(&p.d, 80, 0,
                   "1f1b\n"
                   "rank 0 F0 F1 .. .. B0 == F2 B1 == .. B2 ==   peak 2\n"
                   "rank 1 .. F0 B0 == F1 B1 == F2 B2 == .. ..   peak 1\n"
                   "       0              5              10\n"
                   "makespan 12, span 12, ideal 9, bubble/ideal 33.33%, "
                   "bubble/total 25%\n");
    expect_letters(&p.d, 50, 0,
                   "1f1b\n"
                   "rank 0 FF..BBFBB.BB  peak 2\n"
                   "rank 1 .FBBFBBFBB..  peak 1\n"
                   "       0         10\n"
                   "makespan 12, span 12, ideal 9, bubble/ideal 33.33%, "
                   "bubble/total 25%\n");
    close_picture(&p);
}

Test(pipeline_pictures, letters_of_chunks_and_units)
{
    picture p = picture_of("interleaved", 2, 2, 2, ones);
    dls_text few = {0};
    cr_assert_eq(dls_draw_terminal(&p.d, 40, 0, &few), DLS_OK);
    cr_assert(strstr(few.data, "rank 0 FFff..bb.bbBBBB  peak 2\n"
                               "rank 1 .FFfbbfbbBBBB..  peak 1.5\n"), "%s", few.data);
    dls_text_free(&few);
    p.d.one = 0;
    p.d.unit = 2;
    p.d.unit_name = "ms";
    expect_letters(&p.d, 80, 0,
                   "interleaved\n"
                   "rank 0 0F0 0F1 2F0 2F1 ..  ..  2B0 === ..  2B1 === 0B0 === 0B1 === \n"
                   "rank 1 ..  1F0 1F1 3F0 3B0 === 3F1 3B1 === 1B0 === 1B1 === ..  ..  \n"
                   "       0       1       2       3       4       5       6       7 ms\n"
                   "makespan 7.5 ms, span 7.5 ms, ideal 6 ms, bubble/ideal 25%, "
                   "bubble/total 20%\n");
    close_picture(&p);
}

Test(pipeline_pictures, letters_in_colour_and_to_scale)
{
    picture p = picture_of("1f1b", 1, 2, 1, ones);
    p.d.one = 0;
    expect_letters(&p.d, 80, 1,
                   "1f1b\n"
                   "rank 0 \x1b[97;44mF0 \x1b[0m\x1b[97;41mB0    \x1b[0m"
                   "\x1b[97;44mF1 \x1b[0m\x1b[97;41mB1    \x1b[0m\n"
                   "       0              5\n"
                   "makespan 6, span 6, ideal 6, bubble/ideal 0%, bubble/total 0%\n");
    close_picture(&p);
    p = picture_of("gpipe", 2, 4, 1,
                   (dls_pipeline_costs){.F = 5, .I = 3, .W = 2, .hop = 1});
    p.d.one = 0; // 52 ticks in 16 cells: 4 to a cell, 13 cells
    expect_letters(&p.d, 20, 0,
                   "gpipe\n"
                   "rank 0 FFFFF...BBBBB\n"
                   "rank 1 .FFFFFFBBBBB.\n"
                   "       0           50\n"
                   "makespan 52, span 52, ideal 40, bubble/ideal 30%, "
                   "bubble/total 23.07%\n");
    close_picture(&p);
}

/* test columns */
/* The area between an outline and the floor of its row; *to: where the path ends. */
static double area_of(const char *path, const char **to)
{
    int x, y, floor, now, n;
    double area = 0;
    sscanf(path, " d=\"M%d %d%n", &x, &floor, &n);
    y = floor;
    for (path += n; sscanf(path, "H%dV%d%n", &now, &n, &n) == 2; path += n) {
        int height;
        sscanf(path, "H%dV%d%n", &now, &height, &n);
        area += (double)(now - x) * (floor - y);
        x = now;
        y = height;
    }
    cr_assert_eq(y, floor, "an outline that does not come down");
    *to = path;
    return area;
}

Test(pipeline_pictures, columns_have_the_area_of_the_time)
{
    picture p = picture_of("1f1b", 64, 1024, 1, ones);
    p.d.width = 1200;
    char *svg = svg_of(&p.d);
    cr_assert_lt(strlen(svg), 1 << 20);
    const char *at = svg;
    cr_assert_not(next_box(&at, &(read_box){0}), "boxes of a quarter of a pixel");
    double plot = (1200 - 66 - 14) * 100, row = 900;
    int outlines = 0;
    for (at = svg; (at = strstr(at, "<path class=\"k3")); outlines++) {
        double area = area_of(strstr(at, " d="), &at);
        double busy = plot * (double)p.e.busy[outlines] / (double)p.e.makespan;
        cr_assert_float_eq(area / row, busy, plot / 32 + 300);
    }
    cr_assert_eq(outlines, 64);
    free(svg);
    close_picture(&p);
}

/* test what is not drawn */
static void expect_refusal(const dls_box *boxes, size_t n, const char *words)
{
    dls_drawing d = {.title = "", .boxes = boxes, .count = n, .ranks = 2, .shades = 1,
                     .unit = 1, .unit_name = ""};
    dls_text out = {0};
    cr_assert_eq(dls_draw_svg(&d, &out), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), words), "%s", dls_status_message());
    cr_assert_eq(dls_draw_terminal(&d, 80, 0, &out), DLS_ERR_INPUT);
    cr_assert_eq(out.size, 0);
}

Test(pipeline_pictures, boxes_that_cannot_be)
{
    expect_refusal((dls_box[]){{.rank = 2}}, 1, "box 0: rank 2 of a drawing with 2");
    expect_refusal((dls_box[]){{.rank = -1}}, 1, "box 0: rank -1");
    expect_refusal((dls_box[]){{.start = 2, .end = 1}}, 1, "box 0: from 2 to 1");
    expect_refusal((dls_box[]){{.start = -((int64_t)1 << 43) - 1}}, 1, "within 2^43");
    expect_refusal((dls_box[]){{.end = ((int64_t)1 << 43) + 1}}, 1, "expected times");
    expect_refusal((dls_box[]){{.rank = 1}, {.rank = 0}}, 2, "box 1 of rank 0");
    expect_refusal((dls_box[]){{.start = 1, .end = 2}, {.start = 0, .end = 2}}, 2,
                   "box 1 of rank 0 at 0: expected rank after rank, each by start");
}

Test(pipeline_pictures, a_measured_run)
{
    const dls_box boxes[] = {
        {.start = 1000007, .end = 3000010, .rank = 1, .kind = DLS_DO_F},
        {.start = 3000010, .end = 3000010, .rank = 1, .kind = DLS_DO_B},
        {.start = 3000010, .end = 9000000, .rank = 1, .kind = DLS_DO_SEND_B},
        {.start = 4000007, .end = 5000007, .rank = 1, .kind = DLS_DO_STEP,
         .microbatch = -1}};
    dls_drawing d = {.title = "<a&b>", .boxes = boxes, .count = 4, .ranks = 3,
                     .shades = 1, .unit = 1000000, .unit_name = "ms",
                     .hold = 3, .keep = 3, .one = 2};
    char *svg = svg_of(&d);
    cr_assert(strstr(svg, "<title>&lt;a&amp;b&gt;</title>"));
    cr_assert(strstr(svg, ">&lt;a&amp;b&gt;</text>"));
    cr_assert(strstr(svg, ">makespan 2\xc2\xa0ms<"), "of the passes");
    cr_assert(strstr(svg, ">peak 1.5<"));
    cr_assert(strstr(svg, "<title>0F0, 0 to 2 ms</title>"));
    cr_assert(strstr(svg, "<title>3 to 4 ms</title>"), "the step");
    cr_assert_not(strstr(svg, "nan"));
    free(svg);
    expect_letters(&d, 31, 0, // 16 cells of 250,000 ticks
                   "<a&b>\n"
                   "rank 0 ................  peak 0\n"
                   "rank 1 FFFFFFFF....****  peak 1.5\n"
                   "rank 2 ................  peak 0\n"
                   "       0       2       4 ms\n"
                   "makespan 2 ms, span 2 ms, ideal 2 ms, bubble/ideal 0%, "
                   "bubble/total 0%\n");
    d.count = 0;
    free(svg_of(&d)); // nothing at all is still a picture
}

Test(pipeline_pictures, overlaps_and_empty_boxes)
{
    dls_draw_totals t;
    const dls_box both[] = {{.start = 0, .end = 4, .kind = DLS_DO_F},
                            {.start = 2, .end = 6, .kind = DLS_DO_B}};
    const dls_box empty[] = {{.start = 5, .end = 5, .kind = DLS_DO_F},
                             {.start = 5, .end = 5, .kind = DLS_DO_B}};
    dls_drawing d = {.boxes = both, .count = 2, .ranks = 1, .shades = 1, .hold = 1,
                     .keep = 1, .one = 1};
    cr_assert_eq(dls_draw_total(&d, &t), DLS_OK);
    cr_assert_eq(t.ideal, 6, "what overlaps counts once");
    d.boxes = empty;
    int64_t peak = 0;
    for (dls_draw_walk w = {0}; dls_draw_next(&d, &w);) {
        cr_assert(w.held >= 0, "freed before it was held");
        peak = w.held > peak ? w.held : peak;
    }
    cr_assert_eq(peak, 1);
}

/* test the growing text */
Test(pipeline_pictures, ratios_are_cut)
{
    static const struct { int64_t n, d; const char *text; } table[] = {
        {23, 2, "11.5"}, {1, 3, "0.33"}, {2, 3, "0.66"}, {-1, 4, "-0.25"}, {5, 1, "5"},
        {199, 200, "0.99"}, {1, 100, "0.01"}, {1, 1000, "0"}, {110, 100, "1.1"},
        {0, 7, "0"},
        {((int64_t)1 << 55), INT64_MAX, "0"}, {INT64_MAX / 2 + 1, INT64_MAX, "0.5"}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        dls_text t = {0};
        dls_text_ratio(&t, table[i].n, table[i].d);
        cr_expect_str_eq(t.data, table[i].text);
        dls_text_free(&t);
    }
}

Test(pipeline_pictures, a_text_grows_and_escapes)
{
    char long_piece[2000];
    memset(long_piece, '.', sizeof long_piece);
    long_piece[sizeof long_piece - 1] = 0;
    dls_text t = {0};
    for (int i = 0; i < 1000; i++)
        dls_text_add(&t, "%d,%s", i, i == 500 ? long_piece : "");
    dls_text_xml(&t, "a<b>&\"c\n");
    cr_assert_eq(t.size, strlen(t.data));
    cr_assert_eq(dls_text_status(&t), DLS_OK);
    cr_assert(strstr(t.data, "499,500,...") && strstr(t.data, "...501,502,"));
    cr_assert(strstr(t.data, "999,a&lt;b&gt;&amp;&quot;c "));
    dls_text_free(&t);
}
