/* code/parallel/pipeline/draw.c: from chapters/05-pipeline-pictures.md. Edit the chapter, or edit here and run "make untangle". */
/* What both drawings read off their boxes: totals, and memory over time. See draw.h. */
#include "parallel/pipeline/draw.h"

#include <limits.h>

#include "parallel/pipeline/draw_internal.h"
#include "parallel/pipeline/exact.h"

/* tell what is drawn */
int dls_draw_kind(const dls_box *b)
{
    switch (b->kind) {
    case DLS_DO_F: return 0;
    case DLS_DO_I: return 1;
    case DLS_DO_W: return 2;
    case DLS_DO_B: return 3;
    case DLS_DO_SEND_F:
    case DLS_DO_RECV_F:
    case DLS_DO_SEND_B:
    case DLS_DO_RECV_B: return -1;
    default: return 4;
    }
}

/* check a box */
static dls_status check_box(const dls_drawing *d, size_t i)
{
    const dls_box *b = &d->boxes[i], *before = i ? b - 1 : b;
    if (b->rank < 0 || b->rank >= d->ranks)
        return DLS_FAIL(DLS_ERR_INPUT, "box %zu: rank %d of a drawing with %d ranks", i,
                        b->rank, d->ranks);
    const int64_t most = (int64_t)1 << 43;
    if (b->end < b->start || b->start < -most || b->end > most)
        return DLS_FAIL(DLS_ERR_INPUT, "box %zu: from %lld to %lld; expected times "
                        "within 2^43, the end not before the start", i,
                        (long long)b->start, (long long)b->end);
    if (b->rank < before->rank ||
        (b->rank == before->rank && b->start < before->start))
        return DLS_FAIL(DLS_ERR_INPUT, "box %zu of rank %d at %lld: expected rank after "
                        "rank, each by start", i, b->rank, (long long)b->start);
    return DLS_OK;
}

/* read off the totals */
/* The boxes of one rank, which begin at `first`; the end of them. */
static size_t total_of_rank(const dls_drawing *d, size_t first, dls_draw_totals *t)
{
    int64_t begin = INT64_MAX, end = INT64_MIN, busy = 0;
    size_t i = first;
    for (; i < d->count && d->boxes[i].rank == d->boxes[first].rank; i++) {
        const dls_box *b = &d->boxes[i];
        int kind = dls_draw_kind(b);
        t->drawn += kind >= 0;
        t->from = kind >= 0 && b->start < t->from ? b->start : t->from;
        t->to = kind >= 0 && b->end > t->to ? b->end : t->to;
        if (kind < 0 || kind == 4)
            continue;
        begin = b->start < begin ? b->start : begin;
        busy += b->end > end ? b->end - (b->start > end ? b->start : end) : 0;
        end = b->end > end ? b->end : end;
    }
    if (begin > end)
        return i;
    t->first = begin < t->first ? begin : t->first;
    t->last = end > t->last ? end : t->last;
    t->span = end - begin > t->span ? end - begin : t->span;
    t->ideal = busy > t->ideal ? busy : t->ideal;
    return i;
}

dls_status dls_draw_total(const dls_drawing *d, dls_draw_totals *out)
{
    dls_draw_totals t = {.from = INT64_MAX, .to = INT64_MIN, .first = INT64_MAX,
                         .last = INT64_MIN};
    for (size_t i = 0; i < d->count; i++)
        DLS_TRY(check_box(d, i));
    for (size_t i = 0; i < d->count;)
        i = total_of_rank(d, i, &t);
    if (t.drawn == 0)
        t.from = t.to = 0;
    t.makespan = t.last > t.first ? t.last - t.first : 0;
    for (size_t i = 0; i < d->count; i++)
        if (dls_draw_kind(&d->boxes[i]) >= 0)
            t.step = dls_common_divisor(
                dls_common_divisor(t.step, d->boxes[i].start - t.from),
                d->boxes[i].end - t.from);
    t.step = t.step ? t.step : 1;
    for (int r = 0; r < d->ranks && d->one; r++)
        for (dls_draw_walk w = {.rank = r}; dls_draw_next(d, &w);)
            t.peak = w.held > t.peak ? w.held : t.peak;
    t.ideal = d->ideal ? d->ideal : t.ideal;
    *out = t;
    return DLS_OK;
}

/* walk over the memory */
static void find_rank(const dls_drawing *d, dls_draw_walk *w)
{
    size_t low = 0, high = d->count;
    while (low < high) { // the first box of this rank or of a later one
        size_t middle = low + (high - low) / 2;
        if (d->boxes[middle].rank < w->rank)
            low = middle + 1;
        else
            high = middle;
    }
    w->start = w->end = w->last = low;
    while (w->last < d->count && d->boxes[w->last].rank == w->rank)
        w->last++;
    w->begun = 1;
}

int dls_draw_next(const dls_drawing *d, dls_draw_walk *w)
{
    const dls_box *b = d->boxes;
    if (!w->begun)
        find_rank(d, w);
    if (w->end == w->last)
        return 0;
    if (w->start < w->last &&
        (w->start == w->end || b[w->start].start < b[w->end].end)) {
        w->time = b[w->start].start;
        w->held += b[w->start++].kind == DLS_DO_F ? d->hold : 0;
        return 1;
    }
    w->time = b[w->end].end;
    switch (b[w->end++].kind) {
    case DLS_DO_I: w->held -= d->hold - d->keep; break;
    case DLS_DO_W: w->held -= d->keep; break;
    case DLS_DO_B: w->held -= d->hold; break;
    default: break;
    }
    return 1;
}
