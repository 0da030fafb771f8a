/*
 * where.c - `tangle where FILE:LINE`: from a chapter's line to the files, and back.
 *
 * An output that was edited since it was written is lined up with what it should be
 * first, so that the answer is right for the lines that are still the chapter's.
 */
#include "files.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *answers;

static void answer(const struct options *o, const char *file, int line,
                   const struct chunk *c)
{
    if (!o->json)
        printf("%s:%d  %.*s\n", file, line, FMT(c->name));
    json_array_append_new(answers,
                          json_pack("{s:s, s:i, s:o}", "file", file, "line", line,
                                    c->root ? "root" : "chunk", json_of(c->name)));
}

static struct place asked(const char *file, int line)
{
    return at_file(file, line);
}

/* ---- from a chapter -------------------------------------------------------------- */

static struct block *block_at(struct book *b, const struct source *s, int line,
                              struct block **nearest)
{
    *nearest = NULL;
    for (size_t i = 0; i < b->blocks.n; i++) {
        struct block *block = b->blocks.at[i];
        if (block->src != s)
            continue;
        if (block->chunk && line >= block->fence && line <= block->first + block->lines)
            return block;
        if (block->chunk && block->fence < line)
            *nearest = block;
    }
    return NULL;
}

static void lines_of(const struct options *o, const struct output *out,
                     const struct block *b, int row, bool clean)
{
    const origins *m = clean ? &out->clean_map : &out->src_map;
    for (size_t i = 0; i < m->n; i++) {
        struct origin from = m->at[i];
        if (out->instances.at[from.instance].block != b || from.row != row)
            continue;
        if (from.kind == FROM_TEXT || (from.kind == FROM_COMMENT && clean))
            answer(o, clean ? out->path : out->src_path, (int)i + 1, b->chunk);
    }
}

static void from_chapter(const struct options *o, struct book *b, const outputs *out,
                         const struct source *s, int line)
{
    struct block *near, *block = block_at(b, s, line, &near);
    if (line < 1 || line > s->lines) {
        problem(CLASS_REFERENCE, "no-such-line", asked(s->path, 0),
                "has %d lines, not %d", s->lines, line);
        return;
    }
    if (!block) {
        problem(CLASS_REFERENCE, "not-code", at_line(s, line),
                "this line is not tangled");
        if (near)
            note("the last tangled block before it is \"%.*s\" at line %d",
                 FMT(near->name), near->fence);
        return;
    }
    int row = line - block->first;
    row = row < 0 ? 0 : row >= block->lines && row > 0 ? block->lines - 1 : row;
    for (size_t i = 0; i < out->n; i++) {
        lines_of(o, out->at[i], block, row, true);
        lines_of(o, out->at[i], block, row, false);
    }
}

/* ---- from an output -------------------------------------------------------------- */

/* The line of `want` that line `line` of `disk` is, or 0 when it is of the disk only. */
static int line_before_edit(slice want, slice disk, int line)
{
    int an, bn, shift = 0;
    slice *a = cut_lines(want, &an), *b = cut_lines(disk, &bn);
    hunks h = {0};
    diff_lines(a, an, b, bn, &h);
    for (size_t i = 0; i < h.n && h.at[i].b < line; i++) {
        if (line <= h.at[i].b + h.at[i].bn)
            return 0;
        shift = h.at[i].a + h.at[i].an - h.at[i].b - h.at[i].bn;
    }
    return line + shift;
}

static void from_output(const struct options *o, const struct output *out, bool clean,
                        int line)
{
    const char *path = clean ? out->path : out->src_path;
    const origins *m = clean ? &out->clean_map : &out->src_map;
    slice want = text_slice(clean ? &out->clean : &out->src), disk;
    int at = line;
    if (!slurp(path, &disk) && !same(disk, want))
        at = line_before_edit(want, disk, line);
    if (line > 0 && at == 0) {
        problem(CLASS_CONFLICT, "edited-line", asked(path, line),
                "this line is an edit that is in no chapter yet");
        note("tangle untangle takes it into the chapter");
        return;
    }
    if (at < 1 || (size_t)at > m->n) {
        problem(CLASS_REFERENCE, "no-such-line", asked(path, 0), "has no line %d", line);
        return;
    }
    struct origin from = m->at[at - 1];
    struct block *b = out->instances.at[from.instance].block;
    answer(o, b->src->path, from.kind == FROM_HEADER ? b->fence : b->first + from.row,
           b->chunk);
}

/* ---- the command ----------------------------------------------------------------- */

static bool find(const struct options *o, struct book *b, const outputs *out,
                 const char *file, int line)
{
    for (size_t i = 0; i < b->sources.n; i++)
        if (!strcmp(b->sources.at[i]->path, file) && !b->sources.at[i]->missing) {
            from_chapter(o, b, out, b->sources.at[i], line);
            return true;
        }
    for (size_t i = 0; i < out->n; i++)
        if (!strcmp(out->at[i]->path, file) || !strcmp(out->at[i]->src_path, file)) {
            from_output(o, out->at[i], !strcmp(out->at[i]->path, file), line);
            return true;
        }
    return false;
}

static void not_found(struct book *b, const outputs *out, const char *file)
{
    guess g = guess_for(slice_of(file));
    for (size_t i = 0; i < b->sources.n; i++)
        guess_try(&g, slice_of(b->sources.at[i]->path));
    for (size_t i = 0; i < out->n; i++)
        guess_try(&g, slice_of(out->at[i]->path));
    problem(CLASS_REFERENCE, "no-such-file", asked(file, 0),
            "neither a chapter nor an output");
    note_guess(&g);
}

void command_where(const struct options *o)
{
    char *file = keep_text(slice_of(o->argv[0])), *end, *colon = strchr(file, ':');
    long line = colon ? strtol(colon + 1, &end, 10) : 0;
    if (!colon || line < 1 || line > 10000000 || (*end && *end != ':')) {
        problem(CLASS_USAGE, "usage", (struct place){0}, "\"%s\": expected FILE:LINE",
                file);
        return;
    }
    *colon = '\0';
    struct book *b = load_current(o);
    outputs out = {0};
    if (problem_count())
        return;
    expand(b, &out, true);
    answers = json_array();
    const char *here = keepf("%s%s", o->prefix ? o->prefix : "", file);
    while (!strncmp(here, "./", 2))
        here += 2;
    char cwd[4096]; /* compilers may print the whole path */
    if (file[0] == '/' && getcwd(cwd, sizeof cwd) && starts(slice_of(file), cwd))
        here = file + strlen(cwd) + 1;
    if (!find(o, b, &out, here, (int)line) && !find(o, b, &out, file, (int)line))
        not_found(b, &out, file);
    result(json_pack("{s:s, s:i, s:o}", "file", here, "line", (int)line, "answers",
                     answers));
}
