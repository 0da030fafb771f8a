/*
 * merge.c - `tangle untangle`: edits of outputs go back into the chapters, block by
 * block.
 *
 * Three texts meet: the base (what was written), the outputs on the disk, and the
 * chapters as they are now. For each block: changed in the outputs only, the edit is
 * taken; in the chapter only, the chapter stays; in both, alike is fine and anything else
 * is refused and shown. The new chapters are tangled in memory before anything is
 * written: where the chapter had not changed, they must give exactly the files on the
 * disk.
 */
#include "files.h"

#include <string.h>

struct change {
    struct block *base, *now; /* the block in the base and in the chapter */
    lines_of_text body;       /* as edited */
    const struct edited *in;
    int instance;
    bool changed, bad, taken;
};

struct untangle {
    struct base *base;
    struct book *book;
    outputs now; /* what the chapters give */
    VEC(struct edited *) edited;
    VEC(struct change *) changes;
    map by_block;
    map new_text; /* chapter path -> slice * */
    size_t taken;
};

static slice key_of(struct block *const *b)
{
    return (slice){(const char *)b, sizeof *b};
}

static lines_of_text body_of(const struct block *b)
{
    lines_of_text body = {0};
    for (int row = 0; row < b->lines; row++)
        PUSH(body, block_line(b, row));
    return body;
}

static bool same_body(const lines_of_text *a, const lines_of_text *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!same(a->at[i], b->at[i]))
            return false;
    return true;
}

static slice joined(const lines_of_text *body)
{
    text t = {0};
    for (size_t i = 0; i < body->n; i++) {
        add(&t, body->at[i].p, body->at[i].n);
        add(&t, "\n", 1);
    }
    return text_slice(&t);
}

static void note_diff(const lines_of_text *old, const lines_of_text *new)
{
    text t = {0};
    int n;
    diff_show(&t, joined(old), joined(new));
    slice *line = cut_lines(text_slice(&t), &n);
    for (int i = 0; i < n; i++)
        note("  %.*s", FMT(line[i]));
}

/* The line that an instance began in when the output was written. */
static int first_line(const struct output *o, int instance)
{
    for (size_t i = 0; i < o->clean_map.n; i++)
        if (o->clean_map.at[i].instance == instance &&
            o->clean_map.at[i].kind == FROM_TEXT)
            return (int)i + 1;
    return 1;
}

/* A chunk that stands in several places has to read the same in all of them. */
static void uneven(struct change *c, const struct output *other, int instance)
{
    if (c->bad)
        return;
    c->bad = true;
    lines_of_text old = body_of(c->base);
    problem(CLASS_CONFLICT, "uneven-edit", at_name(c->base),
            "\"%.*s\" was edited in one place and not alike in another",
            FMT(c->base->name));
    note("edited at %s:%d, otherwise at %s:%d", c->in->base->path,
         first_line(c->in->base, c->instance), other->path, first_line(other, instance));
    note_diff(&old, &c->body);
    note("make all places alike, or edit the chapter");
}

static void collect_instance(struct untangle *u, const struct edited *e, int i)
{
    struct block **b = &e->base->instances.at[i].block;
    struct change *c = map_get(&u->by_block, key_of(b));
    lines_of_text body = edited_body(e, i), old = body_of(*b);
    bool changed = !same_body(&body, &old);
    if (!c) {
        c = keep(sizeof *c);
        *c = (struct change){*b, NULL, body, e, i, changed, false, false};
        PUSH(u->changes, c);
        map_put(&u->by_block, key_of(b), c);
    } else if (!same_body(&body, &c->body)) {
        if (!c->changed) { /* show the edit, whichever comes first */
            struct change plain = *c;
            *c = (struct change){*b, NULL, body, e, i, true, false, false};
            uneven(c, plain.in->base, plain.instance);
        } else {
            uneven(c, e->base, i);
        }
    }
}

/* Reads every output of the base from the disk and finds the edits. */
static void collect(struct untangle *u)
{
    VEC(struct output *) unedited = {0};
    for (size_t i = 0; i < u->base->outputs.n; i++) {
        struct output *o = u->base->outputs.at[i];
        slice disk;
        if (slurp(o->path, &disk))
            continue; /* gone: write brings it back */
        if (same(disk, text_slice(&o->clean))) {
            PUSH(unedited, o);
            continue;
        }
        struct edited *e = keep(sizeof *e);
        *e = (struct edited){.base = o, .disk = disk};
        place_edits(e);
        PUSH(u->edited, e);
        for (size_t k = 0; k < o->instances.n && !e->refused; k++)
            collect_instance(u, e, (int)k);
    }
    for (size_t i = 0; i < unedited.n; i++)
        for (size_t k = 0; k < unedited.at[i]->instances.n; k++) {
            struct change *c =
                map_get(&u->by_block, key_of(&unedited.at[i]->instances.at[k].block));
            if (c && c->changed)
                uneven(c, unedited.at[i], (int)k);
        }
}

/* The block of the chapter that a block of the base is now. */
static struct block *block_now(struct untangle *u, const struct block *base)
{
    struct chunk *c = map_get(
        base->chunk->root ? &u->book->root_by_path : &u->book->chunk_by_name, base->name);
    lines_of_text old = body_of(base);
    if (!c)
        return NULL;
    struct block *same_part =
        (size_t)base->part <= c->blocks.n ? c->blocks.at[base->part - 1] : NULL;
    for (size_t i = 0; i <= c->blocks.n; i++) {
        struct block *b = i == 0 ? same_part : c->blocks.at[i - 1];
        lines_of_text body = {0};
        if (b)
            body = body_of(b);
        if (b && same_body(&body, &old))
            return b;
    }
    return same_part;
}

static void both_changed(struct change *c)
{
    lines_of_text old = body_of(c->base), now = body_of(c->now);
    problem(CLASS_CONFLICT, "both-changed", at_name(c->now),
            "\"%.*s\" was changed in the chapter and in %s", FMT(c->base->name),
            c->in->base->path);
    note("in the chapter:");
    note_diff(&old, &now);
    note("in %s:", c->in->base->path);
    note_diff(&old, &c->body);
    note("make both alike, or take one of them back; nothing was written");
}

static void merge(struct untangle *u, struct change *c)
{
    if (!c->changed || c->bad)
        return;
    c->now = block_now(u, c->base);
    if (!c->now) {
        problem(CLASS_CONFLICT, "block-gone", at_file(c->in->base->path, 0),
                "an edit of \"%.*s\", which is in the chapters no more",
                FMT(c->base->name));
        return;
    }
    lines_of_text old = body_of(c->base), now = body_of(c->now);
    if (same_body(&now, &c->body))
        return;
    if (!same_body(&now, &old)) {
        both_changed(c);
        return;
    }
    c->taken = true;
    u->taken++;
}

/* The chapter with the bodies of its changed blocks exchanged; all other bytes stay. */
static void rewrite(struct untangle *u, struct source *s)
{
    text t = {0};
    const char *from = s->all.p;
    bool any = false;
    for (size_t i = 0; i < u->book->blocks.n; i++) {
        struct block *b = u->book->blocks.at[i];
        struct change *c = NULL;
        for (size_t k = 0; k < u->changes.n && b->src == s; k++)
            if (u->changes.at[k]->taken && u->changes.at[k]->now == b)
                c = u->changes.at[k];
        if (!c)
            continue;
        const char *start = s->line[b->first - 1].p,
                   *end = s->line[b->first - 1 + b->lines].p;
        slice body = joined(&c->body);
        add(&t, from, (size_t)(start - from));
        add(&t, body.p, body.n);
        from = end;
        any = true;
    }
    if (!any)
        return;
    add(&t, from, (size_t)(s->all.p + s->all.n - from));
    slice *kept = keep(sizeof *kept);
    *kept = text_slice(&t);
    map_put(&u->new_text, slice_of(s->path), kept);
}

static int read_new(void *context, const char *path, slice *out)
{
    struct untangle *u = context;
    slice *changed = map_get(&u->new_text, slice_of(path));
    if (!changed)
        return slurp(path, out);
    *out = *changed;
    return 0;
}

static struct output *output_at(const outputs *o, const char *path)
{
    for (size_t i = 0; i < o->n; i++)
        if (!strcmp(o->at[i]->path, path))
            return o->at[i];
    return NULL;
}

/* The first line in which two texts differ, or 0. Lines of white space are empty lines, and
 * a last line without a newline is a line: tangling tidies both. */
static int first_unlike(slice want, slice disk)
{
    int an, bn;
    slice *a = cut_lines(want, &an), *b = cut_lines(disk, &bn);
    for (int i = 0; i < an || i < bn; i++)
        if (i >= an || i >= bn || (!same(a[i], b[i]) && (trim(a[i]).n || trim(b[i]).n)))
            return i + 1;
    return 0;
}

/* Where the chapter had not changed, the new chapter gives the file on the disk again. */
static void prove(struct untangle *u, const outputs *fresh)
{
    for (size_t i = 0; i < u->edited.n; i++) {
        const struct edited *e = u->edited.at[i];
        const struct output *before = output_at(&u->now, e->base->path);
        const struct output *after = output_at(fresh, e->base->path);
        if (!before || !same(text_slice(&before->clean), text_slice(&e->base->clean)))
            continue;
        slice want = after ? text_slice(&after->clean) : (slice){"", 0};
        int line = first_unlike(want, e->disk);
        if (!line)
            continue;
        problem(CLASS_CONFLICT, "no-way-back", at_file(e->base->path, line),
                "this edit cannot be expressed in the chapter's chunks");
        note("tangling it would not give this line again; edit the chapter");
    }
}

static struct book *load_new(struct untangle *u, const struct options *o, outputs *fresh)
{
    struct load_options lo = {o->allow_missing, read_new, u};
    struct book *b = book_load(&lo);
    if (problem_count()) {
        note("this is the chapter as the edit would leave it; nothing was written");
        return b;
    }
    expand(b, fresh, false);
    prove(u, fresh);
    return b;
}

static void write_all_of_it(struct untangle *u, struct plan *p, struct book *b,
                            const outputs *fresh)
{
    map absorbed = {0};
    for (size_t i = 0; i < u->edited.n; i++)
        map_put(&absorbed, slice_of(u->edited.at[i]->base->path), u);
    for (size_t i = 0; i < u->book->sources.n; i++) {
        struct source *s = u->book->sources.at[i];
        slice *changed = map_get(&u->new_text, slice_of(s->path));
        if (!changed)
            continue;
        struct item *it = plan_add(p, s->path, KIND_CHAPTER, *changed);
        it->disk = s->all;
        it->action = ACTION_REPLACE;
    }
    plan_make(p, b, fresh, &absorbed, false);
    if (!problem_count())
        plan_commit(p, b);
}

static void tell(const struct options *o, struct untangle *u)
{
    json_t *blocks = json_array();
    for (size_t i = 0; i < u->changes.n; i++) {
        struct change *c = u->changes.at[i];
        if (!c->taken)
            continue;
        if (!o->json)
            printf("%s:%d: %.*s\n", c->now->src->path, c->now->fence, FMT(c->now->name));
        json_array_append_new(blocks, json_pack("{s:s, s:i, s:o, s:s}", "file",
                                                c->now->src->path, "line", c->now->fence,
                                                "name", json_of(c->now->name), "from",
                                                c->in->base->path));
    }
    if (!o->json && u->taken)
        printf("tangle: %zu block%s changed in %zu chapter file%s\n", u->taken,
               u->taken == 1 ? "" : "s", u->new_text.n, u->new_text.n == 1 ? "" : "s");
    else if (!o->json)
        printf("tangle: no edits in code/ or tests/ to take back\n");
    result(json_pack("{s:o}", "blocks", blocks));
}

/* Without a base the chapters as they are stand in for it: every difference is an edit.
 */
static struct base *base_of_chapters(struct book *b)
{
    struct base *base = keep(sizeof *base);
    base->book = b;
    expand(b, &base->outputs, true);
    return base;
}

void command_untangle(const struct options *o)
{
    struct untangle u = {0};
    struct plan p = {0};
    outputs fresh = {0};
    if (!lock_tree())
        return;
    manifest_read(&p.old);
    u.book = load_current(o);
    if (problem_count())
        return;
    expand(u.book, &u.now, false);
    u.base = base_load(&p.old, false);
    if (u.base->from == BASE_NONE)
        u.base = base_of_chapters(u.book);
    collect(&u);
    for (size_t i = 0; i < u.changes.n; i++)
        merge(&u, u.changes.at[i]);
    if (problem_count())
        return;
    for (size_t i = 0; i < u.book->sources.n && u.taken; i++)
        rewrite(&u, u.book->sources.at[i]);
    struct book *b = u.edited.n ? load_new(&u, o, &fresh) : NULL;
    if (b && !problem_count())
        write_all_of_it(&u, &p, b, &fresh);
    if (!problem_count())
        tell(o, &u);
}
