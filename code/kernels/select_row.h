/* code/kernels/select_row.h: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* What a row's choices say about a range of experts. */
#ifndef DLS_KERNELS_SELECT_ROW_H
#define DLS_KERNELS_SELECT_ROW_H

#include "base/rng.h"
#include "kernels/node_rows.h"

/* look at a row */
/* Notes that a row stands at `to`. */
DLS_HD void dls_select_note(const dls_select *s, int row, int choice, int earlier, int to,
                            int *list, int *place)
{
    place[list ? (size_t)row * s->width + earlier : (size_t)row * s->k + choice] = to;
    if (list)
        list[to] = row;
}

/* x (k): choices of a row. The first of them in range r, or -1; *earlier: ranges before
 * r that have one. */
DLS_HD int dls_select_row(const dls_select *s, const int *x, int r, int *earlier)
{
    int choice = -1;
    *earlier = 0;
    for (int j = 0; j < s->k; j++) {
        int range = x[j] < s->first ? -1 : (x[j] - s->first) / s->per, seen = 0;
        if (range == r && choice < 0)
            choice = j;
        if (range < 0 || range >= r)
            continue;
        for (int i = 0; i < j; i++)
            seen |= x[i] >= s->first && (x[i] - s->first) / s->per == range;
        *earlier += !seen;
    }
    return choice;
}

/* declare the selection on the host */
#ifdef __cplusplus
extern "C"
#endif
void dls_select_rows_host(dls_select s, const int *index, const int *begin, int *list,
                          int *place);
#ifdef __cplusplus
extern "C"
#endif
void dls_tally_rows_host(dls_select s, const int *index, int *copies);
#ifdef __cplusplus
extern "C"
#endif
void dls_keep_choices_host(int *kept, const int *index, const int *place, size_t n);
#endif
