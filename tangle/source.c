/*
 * source.c - one Markdown file: its blocks, its exercises, and what cmark forgives.
 *
 * cmark decides what is a fenced block (a fence inside an HTML comment, an indented block
 * or a longer fence is none) and gives its first and last line. The text of a block is
 * then taken from the file's own bytes, so that what is written back by untangle is what
 * was read. cmark closes an open fence silently at the end of the file; here that is an
 * error.
 */
#include "pool.h"
#include "tangle.h"

#include <cmark.h>
#include <string.h>

slice block_line(const struct block *b, int row)
{
    return b->src->line[b->first - 1 + row];
}

/* Bytes that a chapter must not have. Each kind is reported once in a file, at its first
 * place. */
static void check_bytes(struct source *s)
{
    bool utf8 = true, nul = true, cr = true;
    if (starts(s->all, "\xef\xbb\xbf"))
        problem(CLASS_SYNTAX, "byte-order-mark", at_span(s, 1, 1, 1),
                "the file begins with a byte order mark; UTF-8 needs none");
    for (int i = 0; i < s->lines; i++) {
        slice l = s->line[i];
        for (size_t k = 0; k < l.n;) {
            unsigned char ch = (unsigned char)l.p[k];
            struct place here = at_span(s, i + 1, 0, 1);
            size_t step =
                ch < 0x80 ? 1 : utf8_length((const unsigned char *)l.p + k, l.n - k);
            if ((step && ch && ch != '\r') || (!step && !utf8) || (!ch && !nul)) {
                k += step ? step : 1;
                continue;
            }
            here.column = characters(l.p, k) + 1;
            if (!step)
                problem(CLASS_SYNTAX, "not-utf-8", here, "byte 0x%02x is not UTF-8", ch);
            else if (!ch)
                problem(CLASS_SYNTAX, "nul-byte", here, "a NUL byte in the text");
            else if (cr)
                problem(CLASS_SYNTAX, "carriage-return", here,
                        "a carriage return; lines end in a line feed only");
            utf8 &= step != 0;
            nul &= ch != 0;
            cr &= ch != '\r';
            k += step ? step : 1;
        }
    }
}

struct fence {
    char mark;    /* ` or ~, 0 for none */
    size_t count; /* how many */
    slice rest;   /* what follows them */
    size_t indent;
};

static struct fence fence_of(slice line)
{
    struct fence f = {0};
    while (f.indent < line.n && (line.p[f.indent] == ' ' || line.p[f.indent] == '\t'))
        f.indent++;
    slice at = {line.p + f.indent, line.n - f.indent};
    if (!at.n || (at.p[0] != '`' && at.p[0] != '~'))
        return f;
    while (f.count < at.n && at.p[f.count] == at.p[0])
        f.count++;
    f.rest = trim((slice){at.p + f.count, at.n - f.count});
    if (f.count >= 3)
        f.mark = at.p[0];
    return f;
}

/* The opening fence of a block, past the marks of the containers it stands in. */
static struct fence opening(const struct block *b)
{
    slice l = b->src->line[b->fence - 1];
    size_t skip = 0;
    for (int column = 1; skip < l.n && column < b->column; skip++)
        column++;
    return fence_of((slice){l.p + skip, l.n - skip});
}

static bool closes(struct fence open, slice line)
{
    while (line.n && strchr(" \t>", line.p[0]))
        line.p++, line.n--;
    struct fence f = fence_of(line);
    return f.mark == open.mark && f.count >= open.count && !f.rest.n;
}

static bool tangled(const struct block *b)
{
    return b->fate == FATE_ROOT || b->fate == FATE_CHUNK;
}

/* A fence opened where the last one was not closed swallows the next block's opening. */
static void check_swallowed(struct block *b, struct fence open)
{
    for (int i = 0; i < b->lines; i++) {
        struct fence f = fence_of(block_line(b, i));
        if (f.mark != open.mark || f.count < open.count || !f.rest.n ||
            f.rest.p[0] != '{')
            continue;
        problem(CLASS_SYNTAX, "unclosed-fence", at_span(b->src, b->fence, b->column, 1),
                "this block is not closed before the next one opens");
        note("the next one opens at %s:%d", b->src->path, b->first + i);
        note("to show a fence inside a block, give the block a longer one");
        return;
    }
}

/* `<<name>>` alone on a line; white space around it is allowed. */
static bool reference_on(slice line, struct ref *r)
{
    slice t = trim(line);
    if (t.n < 5 || memcmp(t.p, "<<", 2) || memcmp(t.p + t.n - 2, ">>", 2) ||
        t.p[2] == '<')
        return false;
    r->indent = (int)(t.p - line.p);
    r->name = (slice){t.p + 2, t.n - 4};
    return true;
}

static void find_references(struct block *b)
{
    VEC(struct ref) found = {0};
    for (int i = 0; i < b->lines; i++) {
        struct ref r = {.in = b, .row = i};
        slice line = block_line(b, i);
        if (!memmem(line.p, line.n, "<<", 2) || !reference_on(line, &r))
            continue;
        if (chunk_name_ok(r.name))
            PUSH(found, r);
        else {
            problem(CLASS_SYNTAX, "bad-name", at_ref(&r),
                    "a reference names a chunk in small letters, digits and hyphens");
        }
    }
    b->ref = found.at;
    b->refs = (int)found.n;
}

/* Is this an indented block that shows a fence? Then its text begins with its first line. */
static bool indented(const struct block *b, cmark_node *n)
{
    slice line = b->src->line[b->fence - 1];
    slice first = slice_of(cmark_node_get_literal(n));
    const char *end = memchr(first.p, '\n', first.n);
    first = trim((slice){first.p, end ? (size_t)(end - first.p) : 0});
    return *cmark_node_get_fence_info(n) == '\0' && first.n && line.n >= first.n &&
           same(trim((slice){line.p + line.n - first.n, first.n}), first) &&
           fence_of(first).mark;
}

static void read_block(struct book *book, struct source *s, cmark_node *n)
{
    struct block *b = keep(sizeof *b);
    b->src = s;
    b->fence = cmark_node_get_start_line(n);
    b->column = cmark_node_get_start_column(n);
    int last = cmark_node_get_end_line(n);
    if (b->fence < 1 || last > s->lines || last < b->fence)
        return;
    struct fence open = opening(b);
    if (!open.mark || indented(b, n))
        return; /* an indented block: prose to us */
    b->first = b->fence + 1;
    bool closed = last > b->fence && closes(open, s->line[last - 1]);
    b->lines = last - b->fence - closed;
    for (int i = b->fence; i <= last && i <= s->lines; i++)
        s->kind[i - 1] = i == b->fence || (closed && i == last) ? LINE_FENCE : LINE_CODE;
    if (!closed) {
        problem(CLASS_SYNTAX, "unclosed-fence",
                at_span(s, b->fence, b->column, (int)open.count),
                "this block is never closed");
        return;
    }
    slice line = s->line[b->fence - 1];
    int column =
        open.rest.n ? characters(line.p, (size_t)(open.rest.p - line.p)) + 1 : b->column;
    check_swallowed(b, open);
    fate_decide(b, open.rest, column);
    if (b->fate != FATE_QUOTE && (b->column != 1 || open.indent)) {
        problem(CLASS_SYNTAX, "indented-block", at_span(s, b->fence, b->column, 3),
                "a %s block must start in column 1, outside lists and quotations",
                fate_name(b->fate));
        return;
    }
    if (tangled(b))
        find_references(b);
    PUSH(book->blocks, b);
}

static bool html_comment(cmark_node *n)
{
    const char *text = cmark_node_get_literal(n);
    return !strncmp(text + strspn(text, " "), "<!--", 4);
}

static void walk(struct book *book, struct source *s, cmark_node *parent)
{
    for (cmark_node *n = cmark_node_first_child(parent); n; n = cmark_node_next(n)) {
        cmark_node_type t = cmark_node_get_type(n);
        if (t == CMARK_NODE_CODE_BLOCK)
            read_block(book, s, n);
        else if (t == CMARK_NODE_HTML_BLOCK && html_comment(n))
            for (int i = cmark_node_get_start_line(n);
                 i <= cmark_node_get_end_line(n) && i <= s->lines; i++)
                s->kind[i - 1] = LINE_RAW;
        else if (t == CMARK_NODE_LIST || t == CMARK_NODE_ITEM ||
                 t == CMARK_NODE_BLOCK_QUOTE)
            walk(book, s, n);
    }
}

/* The id of a ::: {.exercise #id} line. */
static void find_exercise(struct book *book, struct source *s, int line)
{
    slice t = trim(s->line[line - 1]);
    size_t colons = 0;
    while (colons < t.n && t.p[colons] == ':')
        colons++;
    slice rest = trim((slice){t.p + colons, t.n - colons});
    if (colons < 3 || rest.n < 2 || rest.p[0] != '{' || rest.p[rest.n - 1] != '}')
        return;
    struct block div = {.src = s, .fence = line};
    if (!attributes_parse(s, line, (slice){rest.p + 1, rest.n - 2}, &div.attrs) ||
        !has_class(&div, "exercise"))
        return;
    slice id = {NULL, 0};
    for (size_t i = 0; i < div.attrs.n; i++)
        if (div.attrs.at[i].kind == '#')
            id = div.attrs.at[i].name;
    if (!id.p) {
        problem(CLASS_SYNTAX, "bad-exercise", at_line(s, line),
                "an exercise needs an id: #ex-…");
        return;
    }
    struct exercise *old = map_get(&book->exercise_by_name, id);
    if (old) {
        problem(CLASS_SYNTAX, "duplicate-id", at_line(s, line),
                "a second exercise with the id \"%.*s\"", FMT(id));
        note("the first is at %s:%d", old->src->path, old->line);
        return;
    }
    struct exercise *e = keep(sizeof *e);
    *e = (struct exercise){id, s, line, NULL};
    PUSH(book->exercises, e);
    map_put(&book->exercise_by_name, id, e);
}

/* `<<name>>` in the prose, which the weave makes a link of. */
static void find_mentions(struct book *book, struct source *s, int line)
{
    slice l = s->line[line - 1];
    const char *p = l.p, *end = l.p + l.n;
    while ((p = memmem(p, (size_t)(end - p), "`<<", 3))) {
        const char *from = p + 3, *to = memmem(from, (size_t)(end - from), ">>`", 3);
        p = from;
        if (!to || !chunk_name_ok((slice){from, (size_t)(to - from)}))
            continue;
        PUSH(book->mentions, (struct mention){(slice){from, (size_t)(to - from)}, s, line,
                                              characters(l.p, (size_t)(from - l.p)) + 1});
    }
}

/* Prose lines: exercises, chunks that are mentioned, and fences that are none (a backtick among the attributes). */
static void read_prose(struct book *book, struct source *s)
{
    for (int i = 1; i <= s->lines; i++) {
        if (s->kind[i - 1] != LINE_PROSE)
            continue;
        slice l = s->line[i - 1];
        if (starts(l, ":::"))
            find_exercise(book, s, i);
        else if (starts(l, "```") && fence_of(l).mark)
            problem(CLASS_SYNTAX, "not-a-fence", at_span(s, i, 1, 3),
                    "not a fence: a backtick follows on the line, or it stands in HTML");
        else
            find_mentions(book, s, i);
    }
}

void source_read(struct book *b, struct source *s)
{
    check_bytes(s);
    cmark_parser *parser = cmark_parser_new_with_mem(CMARK_OPT_DEFAULT, pool_memory());
    slice fed = s->all;
    if (memchr(fed.p, '\r',
               fed.n)) { /* reported; cmark would count a line more than we do */
        char *copy = keep_text(fed);
        for (size_t i = 0; i < fed.n; i++)
            copy[i] = copy[i] == '\r' ? ' ' : copy[i];
        fed.p = copy;
    }
    cmark_parser_feed(parser, fed.p, fed.n);
    cmark_node *doc = cmark_parser_finish(parser);
    walk(b, s, doc);
    pool_reset();
    read_prose(b, s);
}
