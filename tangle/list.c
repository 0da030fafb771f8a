/*
 * list.c - `tangle list` and `tangle stats`: tables about the book.
 */
#include "tangle.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static int chunk_lines(const struct chunk *c)
{
    int n = 0;
    for (size_t i = 0; i < c->blocks.n; i++)
        n += c->blocks.at[i]->lines;
    return n;
}

static void list_chunks(const struct options *o, struct book *b, bool roots, json_t *all)
{
    for (size_t i = 0; i < b->chunks.n; i++) {
        struct chunk *c = b->chunks.at[i];
        if (c->root != roots || !c->blocks.n)
            continue;
        struct block *first = c->blocks.at[0];
        if (!o->json)
            printf("%-5s  %-40.*s %4d lines  %s:%d\n", roots ? "root" : "chunk",
                   FMT(c->name), chunk_lines(c), first->src->path, first->fence);
        json_array_append_new(all,
                              json_pack("{s:s, s:o, s:s, s:i, s:i, s:i, s:i}", "kind",
                                        roots ? "root" : "chunk", "name",
                                        json_of(c->name), "file", first->src->path,
                                        "line", first->fence, "blocks", (int)c->blocks.n,
                                        "lines", chunk_lines(c), "uses", (int)c->uses.n));
    }
}

static void list_runs(const struct options *o, struct book *b, json_t *all)
{
    for (size_t i = 0; i < b->runs.n; i++) {
        struct run *r = b->runs.at[i];
        struct record rec = record_read(r->id);
        const char *status = !rec.present                 ? "missing"
                             : rec.hash == record_hash(r) ? "fresh"
                                                          : "stale";
        if (!o->json)
            printf("run    %-40.*s %-10s  %s:%d\n", FMT(r->id), status,
                   r->block->src->path, r->block->fence);
        json_array_append_new(all, json_pack("{s:s, s:o, s:s, s:i, s:s}", "kind", "run",
                                             "name", json_of(r->id), "file",
                                             r->block->src->path, "line", r->block->fence,
                                             "status", status));
    }
}

static void list_exercises(const struct options *o, struct book *b, json_t *all)
{
    for (size_t i = 0; i < b->exercises.n; i++) {
        struct exercise *e = b->exercises.at[i];
        if (!o->json)
            printf("task   %-40.*s %-10s  %s:%d\n", FMT(e->name),
                   e->solution ? "solved" : "open", e->src->path, e->line);
        json_array_append_new(all,
                              json_pack("{s:s, s:o, s:s, s:i, s:b}", "kind", "exercise",
                                        "name", json_of(e->name), "file", e->src->path,
                                        "line", e->line, "solved", e->solution != NULL));
    }
}

void command_list(const struct options *o)
{
    static const char *const kinds[] = {"roots", "chunks", "runs", "exercises"};
    int asked = -1;
    for (int k = 0; k < 4 && o->argc; k++)
        asked = strcmp(o->argv[0], kinds[k]) ? asked : k;
    if (o->argc && asked < 0) {
        problem(CLASS_USAGE, "usage", (struct place){0},
                "\"%s\": expected roots, chunks, runs or exercises", o->argv[0]);
        return;
    }
    struct book *b = load_current(o);
    json_t *all = json_array();
    if (asked < 0 || asked == 0)
        list_chunks(o, b, true, all);
    if (asked < 0 || asked == 1)
        list_chunks(o, b, false, all);
    if (asked < 0 || asked == 2)
        list_runs(o, b, all);
    if (asked < 0 || asked == 3)
        list_exercises(o, b, all);
    result(all);
}

/* ---- stats ----------------------------------------------------------------------- */

struct sums {
    const char *name;
    int words, code;
    VEC(int) lengths;
};

/* Words that a reader reads: with a letter or digit in them, outside code and div fences.
 */
static int words_on(slice line)
{
    int words = 0;
    bool in = false, counted = false;
    if (starts(line, ":::"))
        return 0;
    for (size_t i = 0; i < line.n; i++) {
        unsigned char c = (unsigned char)line.p[i];
        in = !isspace(c);
        if (in && !counted && (isalnum(c) || c >= 0x80)) {
            counted = true;
            words++;
        }
        counted = in && counted;
    }
    return words;
}

static void sum_source(struct sums *s, const struct source *src)
{
    for (int i = 0; i < src->lines; i++)
        if (src->kind[i] == LINE_PROSE)
            s->words += words_on(src->line[i]);
}

static void sum_block(struct sums *s, const struct block *b)
{
    PUSH(s->lengths, b->lines);
    for (int row = 0; row < b->lines; row++)
        s->code += trim(block_line(b, row)).n > 0;
}

static int by_value(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* The smallest length that at least a share q of the blocks does not exceed. */
static int quantile(const struct sums *s, double q)
{
    if (!s->lengths.n)
        return 0;
    size_t i = (size_t)(q * (double)s->lengths.n + 0.999999);
    return s->lengths.at[i ? i - 1 : 0];
}

static void print_sums(const struct options *o, struct sums *s, json_t *rows)
{
    if (s->lengths.n)
        qsort(s->lengths.at, s->lengths.n, sizeof(int), by_value);
    double ratio = s->code ? (double)s->words / s->code : 0;
    int median = quantile(s, 0.5), p90 = quantile(s, 0.9), most = quantile(s, 1.0);
    if (!o->json)
        printf("%-24s %8d %8d %10.1f %8zu %7d %5d %5d\n", s->name, s->words, s->code,
               ratio, s->lengths.n, median, p90, most);
    json_array_append_new(rows, json_pack("{s:s, s:i, s:i, s:f, s:i, s:i, s:i, s:i}",
                                          "chapter", s->name, "words", s->words,
                                          "code_lines", s->code, "words_per_code_line",
                                          ratio, "blocks", (int)s->lengths.n, "median",
                                          median, "p90", p90, "max", most));
}

void command_stats(const struct options *o)
{
    struct book *b = load_current(o);
    struct sums total = {.name = "the book"};
    json_t *rows = json_array();
    if (!o->json)
        printf("%-24s %8s %8s %10s %8s %7s %5s %5s\n", "chapter", "words", "code",
               "words/line", "blocks", "median", "p90", "max");
    for (size_t c = 0; c < b->chapters.n; c++) {
        struct chapter *chapter = b->chapters.at[c];
        struct sums s = {.name = chapter->id};
        for (size_t i = 0; i < chapter->files.n; i++) {
            sum_source(&s, chapter->files.at[i]);
            sum_source(&total, chapter->files.at[i]);
        }
        for (size_t i = 0; i < b->blocks.n; i++)
            if (b->blocks.at[i]->chunk && b->blocks.at[i]->src->chapter == chapter) {
                sum_block(&s, b->blocks.at[i]);
                sum_block(&total, b->blocks.at[i]);
            }
        print_sums(o, &s, rows);
    }
    print_sums(o, &total, rows);
    result(rows);
}
