/*
 * write.c - `tangle write` and `tangle check`: the chapters' outputs, written or
 * compared.
 */
#include "files.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

struct book *load_current(const struct options *o)
{
    struct load_options lo = {.allow_missing = o->allow_missing};
    return book_load(&lo);
}

static const char *plural(size_t n)
{
    return n == 1 ? "" : "s";
}

/* What was done, as a line or an object; nothing to do needs no line. */
void report_plan(const struct options *o, const struct plan *p)
{
    static const char *const verbs[] = {"kept", "created", "replaced", "removed"};
    size_t count[4] = {0};
    json_t *lists[4];
    for (int a = 0; a < 4; a++)
        lists[a] = json_array();
    for (size_t i = 0; p && i < p->items.n; i++) {
        const struct item *it = p->items.at[i];
        count[it->action]++;
        if (it->action != ACTION_KEEP)
            json_array_append_new(lists[it->action], json_string(it->path));
    }
    size_t changed = count[ACTION_CREATE] + count[ACTION_REPLACE] + count[ACTION_REMOVE];
    if (!o->json && changed)
        printf("tangle: %zu file%s written, %zu removed, %zu unchanged\n",
               count[ACTION_CREATE] + count[ACTION_REPLACE],
               plural(count[ACTION_CREATE] + count[ACTION_REPLACE]), count[ACTION_REMOVE],
               count[ACTION_KEEP]);
    json_t *v =
        json_pack("{s:b, s:i}", "changed", changed > 0, "kept", (int)count[ACTION_KEEP]);
    for (int a = 1; a < 4; a++)
        json_object_set_new(v, verbs[a], lists[a]);
    json_decref(lists[0]);
    result(v);
}

/*
 * For --keep-going: sets aside the chapters with problems, and those that refer to their
 * chunks. False when a problem belongs to no chapter; then nothing can be written.
 */
static bool leave_broken(struct book *b)
{
    if (!problems_break_chapters())
        return false;
    for (bool again = true; again;) {
        again = false;
        for (size_t i = 0; i < b->blocks.n; i++) {
            struct block *block = b->blocks.at[i];
            for (int k = 0; k < block->refs && !block->src->chapter->broken; k++) {
                struct chunk *to = block->ref[k].to;
                if (to && to->blocks.n && !to->blocks.at[0]->src->chapter->broken)
                    continue;
                block->src->chapter->broken = again = true;
            }
        }
    }
    return true;
}

void command_write(const struct options *o)
{
    struct plan p = {0};
    if (!lock_tree())
        return;
    manifest_read(&p.old);
    if (manifest_unchanged(&p.old, o->allow_missing)) {
        report_plan(o, NULL);
        return;
    }
    struct book *b = load_current(o);
    outputs out = {0};
    if (problem_count() && !(o->keep_going && leave_broken(b)))
        return;
    int before = problem_count();
    expand(b, &out, false);
    plan_make(&p, b, &out, NULL, o->force);
    if (problem_count() == before && plan_commit(&p, b))
        report_plan(o, &p);
}

/* ---- check ----------------------------------------------------------------------- */

enum { LONGEST_CHUNK = 40, LONGEST_LINE = 90 };

static void check_style(struct book *b)
{
    for (size_t i = 0; i < b->blocks.n; i++) {
        struct block *block = b->blocks.at[i];
        if (block->chunk && block->lines > LONGEST_CHUNK)
            problem(CLASS_STYLE, "long-chunk", at_name(block),
                    "%d lines; a chunk has at most %d", block->lines, LONGEST_CHUNK);
        for (int row = 0; block->fate != FATE_EXPECT && row < block->lines; row++) {
            slice line = block_line(block, row);
            int width = line.n > LONGEST_LINE ? characters(line.p, line.n) : 0;
            if (width > LONGEST_LINE)
                problem(CLASS_STYLE, "long-line",
                        at_span(block->src, block->first + row, LONGEST_LINE + 1,
                                width - LONGEST_LINE),
                        "%d columns; code has at most %d", width, LONGEST_LINE);
        }
    }
}

/* Chunks that the prose speaks of and that are not there (any more). */
static void check_mentions(struct book *b)
{
    for (size_t i = 0; i < b->mentions.n; i++) {
        struct mention *m = &b->mentions.at[i];
        if (map_get(&b->chunk_by_name, m->name))
            continue;
        guess g = guess_for(m->name);
        for (size_t k = 0; k < b->chunks.n; k++)
            guess_try(&g, b->chunks.at[k]->name);
        problem(CLASS_STYLE, "unknown-mention",
                at_span(m->src, m->line, m->column, (int)m->name.n),
                "the text mentions chunk \"%.*s\", which is not there", FMT(m->name));
        note_guess(&g);
    }
}

/* The chapter's line that a differing line of an output comes from. */
static void note_origin(const struct output *o, bool clean, int line)
{
    const origins *m = clean ? &o->clean_map : &o->src_map;
    if (line < 1 || (size_t)line > m->n)
        return;
    struct origin from = m->at[line - 1];
    const struct block *b = o->instances.at[from.instance].block;
    note("this line comes from %s:%d", b->src->path,
         from.kind == FROM_HEADER ? b->fence : b->first + from.row);
}

static void compare_form(const struct output *o, bool clean)
{
    const char *path = clean ? o->path : o->src_path;
    slice want = text_slice(clean ? &o->clean : &o->src), disk;
    int err = slurp(path, &disk);
    if (err) {
        problem(CLASS_CONFLICT, "missing-output", at_file(path, 0), "%s",
                err == ENOENT ? "is missing" : strerror(err));
        note("its root is at %s:%d; run tangle write", o->root->blocks.at[0]->src->path,
             o->root->blocks.at[0]->fence);
        return;
    }
    if (same(want, disk))
        return;
    int line = 1;
    for (size_t i = 0; i < want.n && i < disk.n && want.p[i] == disk.p[i]; i++)
        line += want.p[i] == '\n';
    problem(CLASS_CONFLICT, "not-in-step", at_file(path, line),
            "differs from its chapter");
    note_origin(o, clean, line);
    note("run tangle write after an edit of the chapter, tangle untangle after one of "
         "this file");
}

struct strangers {
    const map *known;
};

static void visit_stranger(void *context, const char *path)
{
    struct strangers *s = context;
    slice disk;
    if (map_get(s->known, slice_of(path)))
        return;
    if (!slurp(path, &disk) && has_header(disk, path))
        problem(CLASS_CONFLICT, "stale-output", at_file(path, 0),
                "no chapter has this file any more; run tangle write");
    else
        problem(CLASS_STYLE, "foreign-file", at_file(path, 0), "comes from no chapter");
}

/* Both forms against the chapters. build/src is compared when there is one: a fresh clone
 * has none, and what is committed can be checked all the same. */
static void check_lockstep(struct book *b)
{
    outputs out = {0};
    map known = {0};
    struct stat st;
    bool compiled = stat("build/src", &st) == 0;
    expand(b, &out, true);
    for (size_t i = 0; i < out.n; i++) {
        map_put(&known, slice_of(out.at[i]->path), out.at[i]);
        compare_form(out.at[i], true);
        if (compiled)
            compare_form(out.at[i], false);
    }
    struct strangers s = {&known};
    walk_outputs(visit_stranger, &s);
}

void command_check(const struct options *o)
{
    if (o->strict)
        problems_strict();
    struct book *b = load_current(o);
    check_style(b);
    check_mentions(b);
    bool whole = problem_count() == 0 || problem_class() == CLASS_STYLE;
    if (whole)
        check_lockstep(b);
    size_t roots = 0, chunks = 0;
    for (size_t i = 0; i < b->chunks.n; i++)
        *(b->chunks.at[i]->root ? &roots : &chunks) += 1;
    if (!o->json && !problem_count())
        printf("tangle: in step: %zu outputs of %zu chunks from %zu chapter file%s; %zu "
               "run%s\n",
               roots, chunks, b->sources.n, plural(b->sources.n), b->runs.n,
               plural(b->runs.n));
    result(json_pack("{s:i, s:i, s:i, s:i, s:i}", "files", (int)b->sources.n, "outputs",
                     (int)roots, "chunks", (int)chunks, "runs", (int)b->runs.n,
                     "warnings", warning_count()));
}
