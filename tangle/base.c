/*
 * base.c - the book as it was when the outputs were last in step with it.
 *
 * To tell which side of a difference changed one needs a third text. It is the snapshot
 * that write leaves in build/tangle.base; in a fresh clone, where there is none, the book
 * as committed in git's HEAD; outside git there is none, and a difference is taken for an
 * edit of the output.
 */
#include "files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void base_file(text *t, const char *path, slice all)
{
    addf(t, "file %zu %s\n", all.n, path);
    add(t, all.p, all.n);
    add(t, "\n", 1);
}

slice base_text(const struct book *b)
{
    text t = {0};
    base_file(&t, BOOK_YAML, b->yaml);
    for (size_t i = 0; i < b->sources.n; i++)
        if (!b->sources.at[i]->missing)
            base_file(&t, b->sources.at[i]->path, b->sources.at[i]->all);
    return text_slice(&t);
}

/* Splits a snapshot into its files. False when it is cut short. */
static bool base_split(slice all, map *files)
{
    while (all.n) {
        const char *end = memchr(all.p, '\n', all.n);
        if (!starts(all, "file ") || !end)
            return false;
        char *path;
        size_t n = strtoull(all.p + 5, &path, 10), head = (size_t)(end + 1 - all.p);
        if (*path != ' ' || n > all.n || head + n + 1 > all.n)
            return false;
        slice *content = keep(sizeof *content);
        *content = (slice){end + 1, n};
        map_put(files, slice_of(keep_text((slice){path + 1, (size_t)(end - path) - 1})),
                content);
        all.p += head + n + 1;
        all.n -= head + n + 1;
    }
    return true;
}

static int read_snapshot(void *context, const char *path, slice *out)
{
    slice *content = map_get(context, slice_of(path));
    if (!content)
        return ENOENT;
    *out = *content;
    return 0;
}

int head_text(const char *path, slice *out)
{
    struct process p = {0};
    char *argv[] = {"git", "cat-file", "blob", keepf("HEAD:./%s", path), NULL};
    if (process_run(argv, (slice){"", 0}, 10, true, &p) || p.exit)
        return ENOENT;
    *out = text_slice(&p.output);
    return 0;
}

static int read_head(void *context, const char *path, slice *out)
{
    (void)context;
    return head_text(path, out);
}

/* A base with problems of its own, or without outputs, is none. */
static bool base_expand(struct base *base, const struct load_options *o)
{
    size_t mark = problems_mark();
    base->book = book_load(o);
    bool ok = problems_mark() == mark;
    if (ok)
        expand(base->book, &base->outputs, true);
    ok = ok && problems_mark() == mark;
    problems_rewind(mark);
    for (size_t i = 0; ok && i < base->outputs.n; i++)
        map_put(&base->by_path, slice_of(base->outputs.at[i]->path), base->outputs.at[i]);
    return ok;
}

/* With `head_only` the snapshot is passed over: for files that the manifest does not
 * know. */
struct base *base_load(const struct manifest *m, bool head_only)
{
    struct base *base = keep(sizeof *base);
    slice all;
    map files = {0};
    if (!head_only && m->present && !slurp(BASE_PATH, &all) && hash_of(all) == m->base &&
        base_split(all, &files)) {
        struct load_options o = {true, read_snapshot, &files};
        base->from = BASE_SNAPSHOT;
        if (base_expand(base, &o))
            return base;
    }
    struct load_options o = {true, read_head, NULL};
    *base = (struct base){.from = BASE_HEAD};
    if (base_expand(base, &o))
        return base;
    *base = (struct base){.from = BASE_NONE};
    return base;
}
