/*
 * problem.c - the report: every problem of a run, in the order of the book.
 *
 * A problem looks like a compiler's message, so that editors can jump to it:
 *
 *   chapters/04-x.md:12:5: error: no chunk is named "reduce-scater" [undefined-chunk]
 *      12 |     <<reduce-scater>>
 *         |     ^~~~~~~~~~~~~~~~~
 *         = did you mean "reduce-scatter"?
 */
#include "tangle.h"

#include <stdlib.h>
#include <string.h>

struct item_of_report {
    enum class class;
    const char *code, *message;
    struct place where;
    VEC(const char *) notes;
    size_t serial;
};

static VEC(struct item_of_report) report;
static bool strict;

struct place at_line(const struct source *src, int line)
{
    return at_span(src, line, 1, 0);
}

struct place at_span(const struct source *src, int line, int column, int width)
{
    return (struct place){src->path, src, line, column, width};
}

struct place at_ref(const struct ref *r)
{
    slice line = block_line(r->in, r->row);
    return at_span(r->in->src, r->in->first + r->row,
                   characters(line.p, (size_t)r->indent) + 1, (int)r->name.n + 4);
}

struct place at_name(const struct block *b)
{
    return at_span(b->src, b->fence, b->name_column, characters(b->name.p, b->name.n));
}

struct place at_file(const char *path, int line)
{
    return (struct place){path, NULL, line, line ? 1 : 0, 0};
}

void problem(enum class c, const char *code, struct place where, const char *format, ...)
{
    char *message = NULL;
    va_list ap;
    va_start(ap, format);
    if (vasprintf(&message, format, ap) < 0)
        message = NULL;
    va_end(ap);
    struct item_of_report p = {
        .class = c, .code = code, .where = where, .serial = report.n};
    p.message = keep_text(slice_of(message ? message : format));
    free(message);
    PUSH(report, p);
}

void note(const char *format, ...)
{
    char *message = NULL;
    va_list ap;
    va_start(ap, format);
    if (vasprintf(&message, format, ap) >= 0 && report.n)
        PUSH(report.at[report.n - 1].notes, keep_text(slice_of(message)));
    va_end(ap);
    free(message);
}

void note_guess(const guess *g)
{
    if (g->best.p)
        note("did you mean \"%.*s\"?", FMT(g->best));
}

static bool is_warning(const struct item_of_report *p)
{
    return p->class == CLASS_STYLE && !strict;
}

int problem_count(void)
{
    int n = 0;
    for (size_t i = 0; i < report.n; i++)
        n += !is_warning(&report.at[i]);
    return n;
}

int warning_count(void)
{
    return (int)report.n - problem_count();
}

enum class problem_class(void) {
    enum class first = CLASS_NONE; for (size_t i = 0; i < report.n; i++){
        enum class c = report.at[i].class;
        if (!is_warning(&report.at[i]) && (first == CLASS_NONE || c < first)) first = c;}
return first;
}

size_t problems_mark(void)
{
    return report.n;
}

void problems_rewind(size_t mark)
{
    report.n = mark;
}

bool problems_break_chapters(void)
{
    bool all = true;
    for (size_t i = 0; i < report.n; i++) {
        const struct item_of_report *p = &report.at[i];
        struct chapter *c = p->where.src ? p->where.src->chapter : NULL;
        if (c && !is_warning(p))
            c->broken = true;
        all = all && (c || is_warning(p));
    }
    return all;
}

void problems_strict(void)
{
    strict = true;
}

/* Chapters in the book's order, then other files by name; the order found breaks ties. */
static int compare(const void *a, const void *b)
{
    const struct item_of_report *x = a, *y = b;
    int ox = x->where.src ? x->where.src->order : 1 << 30;
    int oy = y->where.src ? y->where.src->order : 1 << 30;
    if (ox != oy)
        return ox < oy ? -1 : 1;
    int by_file =
        strcmp(x->where.file ? x->where.file : "", y->where.file ? y->where.file : "");
    if (by_file)
        return by_file;
    if (x->where.line != y->where.line)
        return x->where.line < y->where.line ? -1 : 1;
    return x->serial < y->serial ? -1 : x->serial > y->serial;
}

/* The source line and a caret under the place; tabs of the line are repeated so that both
 * align. */
static void print_caret(FILE *out, const struct place *w)
{
    if (!w->src || !w->src->line || w->line < 1 || w->line > w->src->lines)
        return;
    slice line = w->src->line[w->line - 1];
    fprintf(out, "%5d | ", w->line);
    for (size_t i = 0; i < line.n; i++)
        fputc(line.p[i] == '\0' || line.p[i] == '\r' ? '?' : line.p[i], out);
    fputs("\n      | ", out);
    int column = 1;
    for (size_t i = 0; i < line.n && column < w->column; i++) {
        if (((unsigned char)line.p[i] & 0xc0) == 0x80)
            continue;
        fputc(line.p[i] == '\t' ? '\t' : ' ', out);
        column++;
    }
    fputc('^', out);
    for (int i = 1; i < w->width; i++)
        fputc('~', out);
    fputc('\n', out);
}

static void print_one(FILE *out, const struct item_of_report *p)
{
    if (p->where.file) {
        fputs(p->where.file, out);
        if (p->where.line)
            fprintf(out, ":%d", p->where.line);
        if (p->where.line && p->where.column)
            fprintf(out, ":%d", p->where.column);
        fputs(": ", out);
    } else {
        fputs("tangle: ", out);
    }
    fprintf(out, "%s: %s [%s]\n", is_warning(p) ? "warning" : "error", p->message,
            p->code);
    print_caret(out, &p->where);
    for (size_t i = 0; i < p->notes.n; i++)
        fprintf(out, "      = %s\n", p->notes.at[i]);
}

void problems_print(FILE *out)
{
    if (!report.n)
        return;
    qsort(report.at, report.n, sizeof *report.at, compare);
    for (size_t i = 0; i < report.n; i++)
        print_one(out, &report.at[i]);
}

static const char *class_name(enum class c)
{
    static const char *name[] = {"none",      "run",      "usage", "syntax",
                                 "reference", "conflict", "io",    "style"};
    return name[c];
}

json_t *problems_json(void)
{
    json_t *all = json_array();
    if (report.n)
        qsort(report.at, report.n, sizeof *report.at, compare);
    for (size_t i = 0; i < report.n; i++) {
        const struct item_of_report *p = &report.at[i];
        json_t *notes = json_array();
        for (size_t j = 0; j < p->notes.n; j++)
            json_array_append_new(notes, json_of(slice_of(p->notes.at[j])));
        json_t *one = json_pack("{s:s, s:s, s:s, s:o, s:o}", "severity",
                                is_warning(p) ? "warning" : "error", "class",
                                class_name(p->class), "code", p->code, "message",
                                json_of(slice_of(p->message)), "notes", notes);
        if (p->where.file)
            json_object_set_new(one, "file", json_string(p->where.file));
        if (p->where.line)
            json_object_set_new(one, "line", json_integer(p->where.line));
        if (p->where.column)
            json_object_set_new(one, "column", json_integer(p->where.column));
        json_array_append_new(all, one);
    }
    return all;
}
