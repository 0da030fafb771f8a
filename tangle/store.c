/*
 * store.c - the manifest, and the plan: what to do with every file.
 *
 * build/tangle.manifest lists what the last write read and wrote, with hashes:
 *
 *   tangle-manifest 1
 *   tool 5b0c...                    this program: a changed program expands anew
 *   base 91d2...                    build/tangle.base, the chapters at that time
 *   input 77a0... chapters/01-introduction.md
 *   clean 08fe... code/cli/main.c
 *   src 3c11... build/src/code/cli/main.c
 *
 * A clean file that has neither the hash recorded nor the text wanted was edited by hand:
 * write refuses. Without a manifest (a fresh clone) the chapters of git's HEAD say what
 * tangle wrote.
 */
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const kind_names[] = {"clean", "src", "chapter"};

static uint64_t tool_hash(void)
{
    slice self;
    return slurp("/proc/self/exe", &self) ? 1 : hash_of(self);
}

static void manifest_line(struct manifest *m, slice line)
{
    char *copy = keep_text(line), *rest;
    char *kind = strtok_r(copy, " ", &rest);
    char *hash = strtok_r(NULL, " ", &rest);
    if (!kind || !hash)
        return;
    uint64_t value = strtoull(hash, &hash, 16);
    if (!strcmp(kind, "tool")) {
        m->tool = value;
    } else if (!strcmp(kind, "base")) {
        m->base = value;
    } else if (!strcmp(kind, "input")) {
        PUSH(m->inputs, (struct input){rest, value, *hash == 'm'});
    } else if (!strcmp(kind, "clean") || !strcmp(kind, "src")) {
        struct entry *e = keep(sizeof *e);
        *e = (struct entry){rest, kind[0] == 'c' ? KIND_CLEAN : KIND_SRC, {value, 0}, 1};
        if (*hash == ',')
            e->hash[e->hashes++] = strtoull(hash + 1, NULL, 16);
        PUSH(m->entries, e);
        map_put(&m->by_path, slice_of(rest), e);
    }
}

void manifest_read(struct manifest *m)
{
    slice all;
    if (slurp(MANIFEST_PATH, &all) || !starts(all, "tangle-manifest 1\n"))
        return;
    m->present = true;
    int n;
    slice *line = cut_lines(all, &n);
    for (int i = 1; i < n; i++)
        manifest_line(m, line[i]);
}

bool manifest_unchanged(const struct manifest *m, bool allow_missing)
{
    if (!m->present || m->tool != tool_hash())
        return false;
    for (size_t i = 0; i < m->inputs.n; i++) {
        slice s;
        const struct input *in = &m->inputs.at[i];
        int err = slurp(in->path, &s);
        if (in->missing ? err != ENOENT || !allow_missing : err || hash_of(s) != in->hash)
            return false;
    }
    for (size_t i = 0; i < m->entries.n; i++) {
        slice s;
        const struct entry *e = m->entries.at[i];
        if (e->hashes != 1 || slurp(e->path, &s) || hash_of(s) != e->hash[0])
            return false;
    }
    return true;
}

/* With `both` the hashes of what is still on the disk are listed as well: the text of the
 * manifest while files are being renamed. */
slice manifest_text(const struct plan *p, const struct book *b, uint64_t base, bool both)
{
    text t = {0};
    addf(&t, "tangle-manifest 1\ntool %016" PRIx64 "\nbase %016" PRIx64 "\n", tool_hash(),
         base);
    addf(&t, "input %016" PRIx64 " %s\n", both ? 0 : hash_of(b->yaml), BOOK_YAML);
    for (size_t i = 0; i < b->sources.n; i++) {
        const struct source *s = b->sources.at[i];
        if (s->missing)
            addf(&t, "input missing %s\n", s->path);
        else
            addf(&t, "input %016" PRIx64 " %s\n",
                 both || s->chapter->broken ? 0 : hash_of(s->all), s->path);
    }
    for (size_t i = 0; i < p->items.n; i++) {
        const struct item *it = p->items.at[i];
        if (it->kind == KIND_CHAPTER || (it->action == ACTION_REMOVE && !both))
            continue;
        uint64_t hash = it->action == ACTION_REMOVE ? hash_of(it->disk) : it->hash;
        addf(&t, "%s %016" PRIx64, kind_names[it->kind], hash);
        if (both && it->action == ACTION_REPLACE)
            addf(&t, ",%016" PRIx64, hash_of(it->disk));
        addf(&t, " %s\n", it->path);
    }
    return text_slice(&t);
}

struct item *plan_add(struct plan *p, const char *path, enum kind kind, slice content)
{
    struct item *it = keep(sizeof *it);
    *it = (struct item){
        .path = path, .kind = kind, .content = content, .hash = hash_of(content)};
    PUSH(p->items, it);
    map_put(&p->by_path, slice_of(path), it);
    return it;
}

static struct output *base_output(struct plan *p, const char *path)
{
    if (!p->base)
        p->base = base_load(&p->old, true);
    return map_get(&p->base->by_path, slice_of(path));
}

/* Is the text on the disk one that tangle wrote, so that nothing is lost without it? */
static bool ours(struct plan *p, const struct item *it)
{
    struct entry *e = map_get(&p->old.by_path, slice_of(it->path));
    uint64_t now = hash_of(it->disk);
    for (int i = 0; e && i < e->hashes; i++)
        if (e->hash[i] == now)
            return true;
    if (e)
        return false;
    struct output *o = base_output(p, it->path);
    return o && same(text_slice(&o->clean), it->disk);
}

static int first_difference(slice a, slice b)
{
    int line = 1;
    for (size_t i = 0; i < a.n && i < b.n && a.p[i] == b.p[i]; i++)
        line += a.p[i] == '\n';
    return line;
}

static void conflict(struct plan *p, const struct item *it)
{
    bool recorded = map_get(&p->old.by_path, slice_of(it->path));
    struct place where = at_file(it->path, 0);
    if (!recorded && !has_header(it->disk, it->path)) {
        problem(CLASS_CONFLICT, "foreign-file", where,
                "exists, and tangle did not write it; it is left alone");
        if (it->root)
            note("%s:%d wants to write it; move one of the two",
                 it->root->blocks.at[0]->src->path, it->root->blocks.at[0]->fence);
        return;
    }
    if (it->action == ACTION_REMOVE) {
        problem(
            CLASS_CONFLICT, "edited-stale", where,
            "no chapter has this file any more, but it was edited since it was written");
        note(
            "move the edit into a chapter and delete the file, or: tangle write --force");
        return;
    }
    where = at_file(it->path, first_difference(it->disk, it->content));
    slice committed;
    if (!recorded && !head_text(it->path, &committed) && same(committed, it->disk))
        problem(CLASS_CONFLICT, "edited-output", where,
                "committed out of step with its chapter");
    else if (recorded || p->base->from == BASE_HEAD)
        problem(CLASS_CONFLICT, "edited-output", where, "edited since it was written");
    else
        problem(CLASS_CONFLICT, "edited-output", where,
                "differs from its chapter, and there is no record of which of the two "
                "changed");
    note("to take the edit into the chapter: tangle untangle");
    note("to lose it: tangle write --force");
}

static void decide(struct plan *p, struct item *it, const map *absorbed, bool force)
{
    int err = slurp(it->path, &it->disk);
    if (err == ENOENT || err == ENOTDIR) {
        it->action = ACTION_CREATE;
        return;
    }
    if (err) {
        problem(CLASS_IO, "cannot-read", at_file(it->path, 0), "%s", strerror(err));
        return;
    }
    if (same(it->disk, it->content))
        return;
    it->action = ACTION_REPLACE;
    if (it->kind == KIND_SRC || (absorbed && map_get(absorbed, slice_of(it->path))) ||
        ours(p, it))
        return;
    bool tangled_once =
        map_get(&p->old.by_path, slice_of(it->path)) || has_header(it->disk, it->path);
    if (!force || !tangled_once)
        conflict(p, it);
}

/* A file that some earlier version of the book had. */
static void stale(struct plan *p, const char *path, enum kind kind, bool force)
{
    slice disk;
    struct stat st;
    if (map_get(&p->by_path, slice_of(path)) || lstat(path, &st) ||
        !S_ISREG(st.st_mode) || slurp(path, &disk))
        return;
    bool tangled_once =
        map_get(&p->old.by_path, slice_of(path)) || has_header(disk, path);
    struct item probe = {
        .path = path, .kind = kind, .action = ACTION_REMOVE, .disk = disk};
    bool mine = kind == KIND_SRC || ours(p, &probe);
    if (!mine && !tangled_once)
        return;
    if (!mine && !force) {
        conflict(p, &probe);
        return;
    }
    struct item *it = plan_add(p, path, kind, (slice){"", 0});
    it->action = ACTION_REMOVE;
    it->disk = disk;
}

struct scan {
    struct plan *plan;
    struct book *book;
    bool force;
};

static void scan_visit(void *context, const char *path)
{
    struct scan *s = context;
    if (!owner_is_broken(s->book, slice_of(path)))
        stale(s->plan, path, KIND_CLEAN, s->force);
}

/* The recorded output of a chapter with problems: neither written nor stale. */
static bool of_broken(struct plan *p, struct book *b, const struct entry *e)
{
    const char *path = strncmp(e->path, "build/src/", 10) ? e->path : e->path + 10;
    if (!owner_is_broken(b, slice_of(path)) || map_get(&p->by_path, slice_of(e->path)))
        return false;
    plan_add(p, e->path, e->kind, (slice){"", 0})->hash = e->hash[0];
    return true;
}

void plan_make(struct plan *p, struct book *b, const outputs *o, const map *absorbed,
               bool force)
{
    for (size_t i = 0; i < o->n; i++) {
        struct output *out = o->at[i];
        struct item *clean = plan_add(p, out->path, KIND_CLEAN, text_slice(&out->clean));
        struct item *src = plan_add(p, out->src_path, KIND_SRC, text_slice(&out->src));
        clean->root = src->root = out->root;
        decide(p, clean, absorbed, force);
        decide(p, src, absorbed, force);
    }
    for (size_t i = 0; i < p->old.entries.n; i++)
        if (!of_broken(p, b, p->old.entries.at[i]))
            stale(p, p->old.entries.at[i]->path, p->old.entries.at[i]->kind, force);
    struct scan s = {p, b, force};
    if (!p->old.present)
        walk_outputs(scan_visit, &s);
}

static void walk_folder(const char *folder, int depth,
                        void (*visit)(void *context, const char *path), void *context)
{
    struct dirent **found;
    int n = depth > 16 ? -1 : scandir(folder, &found, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        struct stat st;
        char *path = keepf("%s/%s", folder, found[i]->d_name);
        if (found[i]->d_name[0] != '.' && !lstat(path, &st)) {
            if (S_ISDIR(st.st_mode))
                walk_folder(path, depth + 1, visit, context);
            else if (S_ISREG(st.st_mode))
                visit(context, path);
        }
        free(found[i]);
    }
    if (n >= 0)
        free(found);
}

void walk_outputs(void (*visit)(void *context, const char *path), void *context)
{
    walk_folder("code", 0, visit, context);
    walk_folder("tests", 0, visit, context);
}
