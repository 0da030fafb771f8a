/* code/parallel/pipeline/csv.c: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* CSV out and in. */
#include "parallel/pipeline/csv.h"

#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/walk.h"

/* write a unit */
static size_t append(char *out, size_t n, size_t at, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (at + i + 1 < n)
            out[at + i] = text[i];
    return at + length;
}

/* say what a unit is */
const char *dls_unit_tail(const dls_action *first)
{
    return dls_action_computes(first) ? ")OVERLAP_F_B" : ")BATCH";
}

size_t dls_unit_text(const dls_action *list, size_t count, char *out, size_t n)
{
    char one[DLS_ACTION_TEXT];
    size_t at = count > 1 ? append(out, n, 0, "(", 1) : 0;
    for (size_t i = 0; i < count; i++) {
        int length = dls_action_text(&list[i], one);
        at = append(out, n, i ? append(out, n, at, ";", 1) : at, one, (size_t)length);
    }
    if (count > 1)
        at = append(out, n, at, dls_unit_tail(list), strlen(dls_unit_tail(list)));
    if (n)
        out[at < n ? at : n - 1] = 0;
    return at;
}

/* write csv */
static size_t lay_out(const dls_schedule *s, char *out, size_t n)
{
    size_t at = 0;
    for (int r = 0; r < s->options.ranks; r++) {
        const dls_actions *a = &s->order[r];
        for (size_t i = 0, unit; i < a->n; i += unit) {
            unit = dls_actions_unit(a, i);
            at = i ? append(out, n, at, ",", 1) : at;
            at += dls_unit_text(a->list + i, unit, out + (at < n ? at : n),
                                at < n ? n - at : 0);
        }
        at = append(out, n, at, "\n", 1);
    }
    return at;
}

/* write it twice */
dls_status dls_schedule_to_csv(const dls_schedule *s, char **text, size_t *size)
{
    *size = lay_out(s, NULL, 0);
    *text = malloc(*size + 1);
    if (!*text)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %zu bytes of CSV", *size);
    lay_out(s, *text, *size + 1);
    (*text)[*size] = 0;
    return DLS_OK;
}

/* read a cell */
typedef struct place { const char *file; int line, cell; } place;

static dls_status refuse_cell(const place *p, const char *text, size_t n)
{
    return DLS_FAIL(DLS_ERR_INPUT, "%s:%d: cell %d: expected an action like 2F0, 3I1, "
                    "1W4, 0B3 or (2F0;1B3)OVERLAP_F_B, got \"%.*s\"", p->file, p->line,
                    p->cell, n < 60 ? (int)n : 60, text);
}

static dls_status add_action(const dls_action *a, dls_actions *out)
{
    return dls_actions_add(out, (dls_action_kind)a->kind, a->stage, a->microbatch);
}

/* look into the brackets */
static int ends_with(const char *text, size_t n, const char *tail)
{
    size_t length = strlen(tail);
    return n >= length && memcmp(text + n - length, tail, length) == 0;
}

/* "(a;b;...)TAIL": the length of "a;b;..." behind the bracket, or 0. */
static size_t inside(const char *text, size_t n)
{
    if (n < 2 || text[0] != '(')
        return 0;
    if (ends_with(text, n, ")OVERLAP_F_B"))
        return n - 1 - strlen(")OVERLAP_F_B");
    return ends_with(text, n, ")BATCH") ? n - 1 - strlen(")BATCH") : 0;
}

/* read a unit */
static dls_status read_unit(const place *p, const char *text, size_t n, size_t length,
                            dls_actions *out)
{
    const char *at = text + 1, *end = at + length, *next;
    int computes = ends_with(text, n, "B") && !ends_with(text, n, "BATCH"), count = 0;
    for (; at <= end; at = next + 1, count++) {
        dls_action a;
        next = memchr(at, ';', (size_t)(end - at));
        next = next ? next : end;
        if (!dls_action_parse(at, (size_t)(next - at), &a) ||
            computes != dls_action_computes(&a) || a.kind >= DLS_DO_UNSHARD)
            return refuse_cell(p, text, n);
        if (count)
            dls_actions_pair(out);
        DLS_TRY(add_action(&a, out));
    }
    return count > 1 && (count == 2 || !computes) ? DLS_OK : refuse_cell(p, text, n);
}

/* read any cell */
static dls_status read_cell(const place *p, const char *text, size_t n, dls_actions *out)
{
    dls_action a;
    while (n && (text[n - 1] == ' ' || text[n - 1] == '\t' || text[n - 1] == '\r'))
        n--;
    while (n && (*text == ' ' || *text == '\t'))
        text++, n--;
    size_t length = inside(text, n);
    if (!n)
        return DLS_OK;
    if (length)
        return read_unit(p, text, n, length, out);
    return dls_action_parse(text, n, &a) ? add_action(&a, out) : refuse_cell(p, text, n);
}

/* read the lines */
/* One list per line, on `order`, which has room for `lines`. */
static dls_status read_lines(const char *file, const char *text, size_t size, int lines,
                             dls_actions *order)
{
    const char *at = text, *end = text + size;
    for (int r = 0; r < lines; r++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        place p = {file, r + 1, 1};
        stop = stop ? stop : end;
        for (const char *comma; at <= stop; at = comma + 1, p.cell++) {
            comma = memchr(at, ',', (size_t)(stop - at));
            comma = comma ? comma : stop;
            DLS_TRY(read_cell(&p, at, (size_t)(comma - at), &order[r]));
        }
        at = stop + 1;
    }
    return DLS_OK;
}

/* count the lines */
/* Lines up to the last that has more in it than white space and commas. */
static int count_lines(const char *text, size_t size)
{
    int lines = 0, used = 0;
    for (size_t i = 0; i < size; i++) {
        if (!strchr(" \t\r\n,", text[i]))
            used = lines + 1;
        lines += text[i] == '\n' && lines <= 4096;  // more are refused anyway
    }
    return used;
}

/* find the placement */
/* How many actions stand on a rank where this placement has no such stage. */
static size_t misplaced(const dls_schedule *s, dls_placement placement)
{
    size_t count = 0;
    for (int r = 0; r < s->options.ranks; r++)
        for (size_t i = 0; i < s->order[r].n; i++) {
            const dls_action *a = &s->order[r].list[i];
            count += a->microbatch >= 0 &&
                     dls_placement_rank(placement, s->options.ranks, a->stage,
                                        a->microbatch) != r;
        }
    return count;
}

/* choose the placement */
static dls_placement best_placement(const dls_schedule *s)
{
    dls_placement best = DLS_PLACE_LOOP;
    if (misplaced(s, DLS_PLACE_V) < misplaced(s, best))
        best = DLS_PLACE_V;
    if (s->options.chunks == 1 &&
        misplaced(s, DLS_PLACE_BOTH) < misplaced(s, best))
        best = DLS_PLACE_BOTH;
    return best;
}

/* read csv */
static void count_what_is_named(const dls_actions *order, int lines,
                                dls_schedule_options *o)
{
    int stages = 1, batches = 1;
    for (int r = 0; r < lines; r++)
        for (size_t i = 0; i < order[r].n; i++) {
            const dls_action *a = &order[r].list[i];
            stages = a->stage >= stages ? a->stage + 1 : stages;
            batches = a->microbatch >= batches ? a->microbatch + 1 : batches;
        }
    *o = dls_schedule_defaults("csv", lines, batches);
    o->chunks = (stages + lines - 1) / lines;
}

/* hand over the lists */
static dls_status assemble(const char *file, dls_actions *order, int lines,
                           dls_schedule *out)
{
    dls_schedule_options o;
    count_what_is_named(order, lines, &o);
    dls_status status = dls_schedule_empty(&o, DLS_PLACE_LOOP, out);
    if (status == DLS_ERR_INPUT)
        return DLS_FAIL(status, "%s: %s", file, dls_status_message());
    DLS_TRY(status);
    memcpy(out->order, order, (size_t)lines * sizeof *order);
    memset(order, 0, (size_t)lines * sizeof *order);
    out->placement = best_placement(out);
    return DLS_OK;
}

/* read a whole file */
dls_status dls_schedule_from_csv(const char *file, const char *text, size_t size,
                                 dls_schedule *out)
{
    int lines = count_lines(text, size);
    *out = (dls_schedule){0};
    if (lines < 1 || lines > 4096)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected a line of actions for each of 1 to "
                        "4096 ranks, got %s%d", file, lines > 4096 ? "more than " : "",
                        lines > 4096 ? 4096 : lines);
    dls_actions *order = calloc((size_t)lines, sizeof *order);
    if (!order)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d ranks", lines);
    dls_status status = read_lines(file, text, size, lines, order);
    if (status == DLS_OK)
        status = assemble(file, order, lines, out);
    for (int r = 0; r < lines; r++)
        dls_actions_free(&order[r]);
    free(order);
    return status;
}
