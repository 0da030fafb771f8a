/*
 * place.c - which block does an edited line of an output belong to?
 *
 * The edited file is compared with the text that was written. A line that is gone is gone
 * from the block it came from; a new line belongs to the block of the line above it, or,
 * directly under the comment that names a chunk, to that chunk; where its indentation is
 * too small for that block, to the block of the line below, or to one that encloses both.
 * An edit that spans blocks is taken apart by pairing the old lines with the new ones
 * that resemble them most. Nothing here has to be certain: merge.c tangles the result and
 * compares.
 */
#include "files.h"

#include <string.h>

static const struct instance *instance_of(const struct edited *e, int i)
{
    return &e->base->instances.at[i];
}

static bool fits(const struct edited *e, int instance, slice line)
{
    slice indent = instance_of(e, instance)->indent;
    return !trim(line).n || (line.n >= indent.n && !memcmp(line.p, indent.p, indent.n));
}

static bool all_fit(const struct edited *e, int instance, int from, int n)
{
    for (int i = from; i < from + n; i++)
        if (!fits(e, instance, e->line[i]))
            return false;
    return true;
}

static void insert(struct edited *e, int instance, int row, slice line)
{
    size_t cut = trim(line).n ? instance_of(e, instance)->indent.n : line.n;
    slice bare = {line.p + cut, line.n - cut};
    PUSH(e->rows[instance][row + 1].after, bare);
}

static void refuse(struct edited *e, int disk_line, const char *code, const char *format,
                   slice name)
{
    e->refused = true;
    problem(CLASS_CONFLICT, code, at_file(e->base->path, disk_line + 1), format,
            FMT(name));
}

struct spot {
    int instance, row; /* after this row; -1 is before the first */
};

/* The places where lines inserted before base line `at` may belong, best first. */
static int spots_for(const struct edited *e, int at, struct spot *spot, int most)
{
    const origins *m = &e->base->clean_map;
    int n = 0;
    if (at > 0 && m->at[at - 1].kind == FROM_TEXT)
        spot[n++] = (struct spot){m->at[at - 1].instance, m->at[at - 1].row};
    if ((size_t)at < m->n && m->at[at].kind != FROM_HEADER)
        spot[n++] = (struct spot){m->at[at].instance, m->at[at].row - 1};
    if (at > 0 && m->at[at - 1].kind == FROM_COMMENT)
        spot[n++] = (struct spot){m->at[at - 1].instance, m->at[at - 1].row};
    for (int i = n ? spot[0].instance : -1; i >= 0 && n < most;) {
        const struct instance *child = instance_of(e, i);
        if (child->parent >= 0)
            spot[n++] = (struct spot){child->parent, child->row};
        i = child->parent;
    }
    return n;
}

static void place_insertion(struct edited *e, const struct hunk *h)
{
    struct spot spot[16];
    int n = spots_for(e, h->a, spot, 16);
    for (int i = 0; i < n; i++) {
        if (!all_fit(e, spot[i].instance, h->b, h->bn))
            continue;
        for (int k = 0; k < h->bn; k++)
            insert(e, spot[i].instance, spot[i].row, e->line[h->b + k]);
        return;
    }
    refuse(e, h->b, "no-place",
           n ? "indented less than the chunk around it%.*s"
             : "the first line names the chapter and must stay%.*s",
           (slice){"", 0});
}

/* How alike two lines are, 0 to 1000, their white space at the ends aside. */
static int likeness(slice a, slice b)
{
    a = trim(a);
    b = trim(b);
    size_t longer = a.n > b.n ? a.n : b.n;
    return longer ? 1000 - (int)(1000 * (size_t)edit_distance(a, b) / longer) : 1000;
}

enum { ALIKE = 400, MOST_PAIRS = 40000 };

/* Pairs old and new lines of a hunk in order so that the sum of their likeness is
 * largest. */
static int *pair_lines(const struct edited *e, const struct hunk *h)
{
    int w = h->bn + 1, *pair = keep((size_t)h->an * sizeof *pair);
    for (int i = 0; h->an == h->bn && i < h->an; i++)
        pair[i] = i; /* as many as before: line by line */
    if (h->an == h->bn)
        return pair;
    int *best = keep((size_t)(h->an + 1) * (size_t)w * sizeof *best);
    int *like = keep((size_t)(h->an + 1) * (size_t)w * sizeof *like);
    for (int i = h->an - 1; i >= 0; i--)
        for (int k = h->bn - 1; k >= 0; k--) {
            int s = likeness(e->base_line[h->a + i], e->line[h->b + k]);
            like[i * w + k] = s < ALIKE ? 0 : s;
            int paired =
                like[i * w + k] ? like[i * w + k] + best[(i + 1) * w + k + 1] : 0;
            int skip = best[(i + 1) * w + k] > best[i * w + k + 1] ? best[(i + 1) * w + k]
                                                                   : best[i * w + k + 1];
            best[i * w + k] = paired > skip ? paired : skip;
        }
    for (int i = 0, k = 0; i < h->an; i++) {
        while (k < h->bn && best[i * w + k] == best[i * w + k + 1])
            k++;
        bool paired = k < h->bn && like[i * w + k] &&
                      best[i * w + k] == like[i * w + k] + best[(i + 1) * w + k + 1];
        pair[i] = paired ? k++ : -1;
    }
    return pair;
}

/* Gives the new lines from..upto of a hunk to the block of its i-th old line. */
static bool place_lines(struct edited *e, const struct hunk *h, int i, int from, int upto)
{
    const struct origin *o = &e->base->clean_map.at[h->a + i];
    for (int k = from; k < upto; k++) {
        if (!fits(e, o->instance, e->line[h->b + k])) {
            refuse(e, h->b + k, "no-place", "indented less than its chunk \"%.*s\"",
                   instance_of(e, o->instance)->block->name);
            return false;
        }
        insert(e, o->instance, o->row, e->line[h->b + k]);
    }
    return true;
}

/* New lines that resemble no old one go with the line above them; the first, with the first. */
static void place_across(struct edited *e, const struct hunk *h)
{
    int *pair = pair_lines(e, h), owner = 0, next = 0;
    for (int i = 0; i < h->an; i++) {
        if (pair[i] < 0)
            continue;
        if (next > 0 && !place_lines(e, h, owner, next, pair[i]))
            return;
        next = next > 0 ? pair[i] : 0;
        owner = i;
        if (!place_lines(e, h, owner, next, pair[i] + 1))
            return;
        next = pair[i] + 1;
    }
    place_lines(e, h, owner, next, h->bn);
}

static void place_change(struct edited *e, const struct hunk *h)
{
    const struct origin *from = e->base->clean_map.at + h->a;
    bool one = true;
    for (int i = 0; i < h->an; i++) {
        const struct block *b = instance_of(e, from[i].instance)->block;
        if (from[i].kind == FROM_TEXT) {
            one = one && from[i].instance == from[0].instance;
            e->rows[from[i].instance][from[i].row + 1].gone = true;
            continue;
        }
        bool header = from[i].kind == FROM_HEADER;
        refuse(e, h->b, "mark-changed",
               header ? "the first line names the chapter and must stay%.*s"
                      : "the comment that marks a chunk in \"%.*s\" must stay",
               header ? (slice){"", 0} : b->name);
        note("it was: %.*s", FMT(trim(e->base_line[h->a + i])));
        note("to add, drop or rename a chunk, edit the chapter");
        return;
    }
    if (!one && (long)h->an * h->bn > MOST_PAIRS)
        refuse(e, h->b, "no-place",
               "too large an edit across chunks; edit the chapter%.*s", (slice){"", 0});
    else if (!one)
        place_across(e, h);
    else if (all_fit(e, from[0].instance, h->b, h->bn))
        for (int k = 0; k < h->bn; k++)
            insert(e, from[0].instance, from[0].row, e->line[h->b + k]);
    else
        refuse(e, h->b, "no-place", "indented less than its chunk \"%.*s\"",
               instance_of(e, from[0].instance)->block->name);
}

/* Finds the edits of one output and puts each into rows[] of the instance it belongs to.
 */
void place_edits(struct edited *e)
{
    int base_lines;
    e->base_line = cut_lines(text_slice(&e->base->clean), &base_lines);
    e->line = cut_lines(e->disk, &e->lines);
    e->rows = keep((e->base->instances.n + 1) * sizeof *e->rows);
    for (size_t i = 0; i < e->base->instances.n; i++)
        e->rows[i] =
            keep((size_t)(e->base->instances.at[i].block->lines + 1) * sizeof **e->rows);
    hunks h = {0};
    diff_lines(e->base_line, base_lines, e->line, e->lines, &h);
    for (size_t i = 0; i < h.n && !e->refused; i++) {
        if (h.at[i].an)
            place_change(e, &h.at[i]);
        else
            place_insertion(e, &h.at[i]);
    }
}

/* The body of a block as an edited instance has it. */
lines_of_text edited_body(const struct edited *e, int instance)
{
    lines_of_text body = {0};
    const struct block *b = instance_of(e, instance)->block;
    for (int row = -1; row < b->lines; row++) {
        struct row_edit *r = &e->rows[instance][row + 1];
        if (row >= 0 && !r->gone)
            PUSH(body, block_line(b, row));
        for (size_t i = 0; i < r->after.n; i++)
            PUSH(body, r->after.at[i]);
    }
    return body;
}
