/*
 * expand.c - from roots to the two texts of every output.
 *
 * Clean text: a header comment, and a comment with the chunk's name where a chunk is
 * expanded. Compiler's text: the same lines without these comments, with a #line
 * directive at the start of every block and after every reference, so that each line
 * carries the chapter's line number. Along the way a map is kept: for each line of a
 * text, the block and the row it comes from.
 */
#include "tangle.h"

#include <string.h>

/* A book of forty lines can ask for 2^40 (a refers to b twice, b to c twice, ...). */
enum { MOST_BLOCKS = 1000000, MOST_BYTES = 64 << 20, MOST_DEEP = 200 };

struct expansion {
    struct output *out;
    enum lang lang;
    bool maps, full;
    int depth;
};

static const char *comment_open(enum lang l)
{
    switch (l) {
    case LANG_YAML:
    case LANG_SH:
    case LANG_MAKE: return "# ";
    case LANG_LUA: return "-- ";
    case LANG_TEXT:
    case LANG_JSON:
    case LANG_OTHER: return NULL;
    default: return "/* ";
    }
}

static const char *comment_close(enum lang l)
{
    const char *open = comment_open(l);
    return open && open[0] == '/' ? " */" : "";
}

static bool directives(enum lang l)
{
    return l == LANG_C || l == LANG_CUDA || l == LANG_CPP;
}

#define HEADER_TAIL ". Edit the chapter, or edit here and run \"make untangle\"."

/* Does a file's text begin like one that tangle wrote for this path? */
bool has_header(slice content, const char *path)
{
    if (starts(content, "#!")) {
        const char *end = memchr(content.p, '\n', content.n);
        if (!end)
            return false;
        content = (slice){end + 1, content.n - (size_t)(end + 1 - content.p)};
    }
    const char *end = memchr(content.p, '\n', content.n);
    slice line = {content.p, end ? (size_t)(end - content.p) : content.n};
    const char *mark = keepf(" %s: from chapters/", path);
    return memmem(line.p, line.n, mark, strlen(mark)) &&
           memmem(line.p, line.n, HEADER_TAIL, sizeof HEADER_TAIL - 1);
}

static void map_clean(struct expansion *e, int instance, int row, enum origin_kind kind)
{
    if (e->maps)
        PUSH(e->out->clean_map, (struct origin){instance, row, kind});
}

static void map_src(struct expansion *e, int instance, int row, enum origin_kind kind)
{
    if (e->maps)
        PUSH(e->out->src_map, (struct origin){instance, row, kind});
}

static void put_line(text *t, slice indent, slice line)
{
    if (trim(line).n) {
        add(t, indent.p, indent.n);
        add(t, line.p, line.n);
    }
    add(t, "\n", 1);
}

static void put_directive(struct expansion *e, int instance, const struct block *b,
                          int row)
{
    if (!directives(e->lang))
        return;
    addf(&e->out->src, "#line %d \"%s\"\n", b->first + row, b->src->path);
    map_src(e, instance, row, FROM_LINE);
}

static void put_header(struct expansion *e, const struct block *b)
{
    const char *open = comment_open(e->lang);
    if (!open)
        return;
    addf(&e->out->clean, "%s%s: from %s%s%s\n", open, e->out->path, b->src->path,
         HEADER_TAIL, comment_close(e->lang));
    map_clean(e, 0, 0, FROM_HEADER);
}

static void put_comment(struct expansion *e, int instance, slice indent,
                        const struct ref *r)
{
    const char *open = comment_open(e->lang);
    if (!open)
        return;
    text *t = &e->out->clean;
    add(t, indent.p, indent.n);
    add(t, open, strlen(open));
    size_t from = t->n;
    add(t, r->name.p, r->name.n);
    for (size_t i = from; i < t->n; i++)
        if (t->p[i] == '-')
            t->p[i] = ' ';
    addf(t, "%s\n", comment_close(e->lang));
    map_clean(e, instance, r->row, FROM_COMMENT);
}

/* The indentation of an expanded chunk: that of the block around it and of the reference.
 */
static slice deeper(slice outer, slice line, int indent)
{
    if (!outer.n)
        return (slice){line.p, (size_t)indent};
    char *p = keep(outer.n + (size_t)indent + 1);
    memcpy(p, outer.p, outer.n);
    memcpy(p + outer.n, line.p, (size_t)indent);
    return (slice){p, outer.n + (size_t)indent};
}

static void expand_chunk(struct expansion *e, struct chunk *c, slice indent, int parent,
                         int ref_row);

static void expand_block(struct expansion *e, struct block *b, slice indent, int parent,
                         int ref_row)
{
    int me = (int)e->out->instances.n, next = 0;
    PUSH(e->out->instances, (struct instance){b, indent, parent, ref_row});
    if (b->chunk->root) {
        slice first = b->lines ? block_line(b, 0) : (slice){"", 0};
        if (!starts(first, "#!"))
            put_header(e, b);
    }
    put_directive(e, me, b, 0);
    for (int row = 0; row < b->lines && !e->full; row++) {
        slice line = block_line(b, row);
        if (next < b->refs && b->ref[next].row == row) {
            struct ref *r = &b->ref[next++];
            slice in = deeper(indent, line, r->indent);
            put_comment(e, me, in, r);
            expand_chunk(e, r->to, in, me, row);
            put_directive(e, me, b, row + 1);
            continue;
        }
        put_line(&e->out->clean, indent, line);
        map_clean(e, me, row, FROM_TEXT);
        put_line(&e->out->src, indent, line);
        map_src(e, me, row, FROM_TEXT);
        if (row == 0 && b->chunk->root && starts(line, "#!"))
            put_header(e, b);
    }
}

static void expand_chunk(struct expansion *e, struct chunk *c, slice indent, int parent,
                         int ref_row)
{
    e->full |= ++e->depth > MOST_DEEP || e->out->instances.n > MOST_BLOCKS ||
               e->out->src.n > MOST_BYTES;
    for (size_t i = 0; i < c->blocks.n && !e->full; i++)
        expand_block(e, c->blocks.at[i], indent, parent, ref_row);
    e->depth--;
}

void expand(struct book *b, outputs *out, bool maps)
{
    for (size_t i = 0; i < b->chunks.n; i++) {
        struct chunk *c = b->chunks.at[i];
        if (!c->root || c->blocks.at[0]->src->chapter->broken)
            continue;
        struct output *o = keep(sizeof *o);
        o->root = c;
        o->path = keep_text(c->name);
        o->src_path = keepf("build/src/%s", o->path);
        struct expansion e = {.out = o, .lang = c->blocks.at[0]->lang, .maps = maps};
        expand_chunk(&e, c, (slice){"", 0}, -1, 0);
        if (e.full)
            problem(
                CLASS_REFERENCE, "too-large", at_name(c->blocks.at[0]),
                "\"%s\" expands to more than %d MB, or its chunks nest deeper than %d",
                o->path, MOST_BYTES >> 20, MOST_DEEP);
        PUSH(*out, o);
    }
}
