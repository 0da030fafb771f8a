/* code/kernels/select_rows.c: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* The selection of rows in plain C; see node_rows.h. */
#include "kernels/select_row.h"

/* select rows in plain c */
void dls_select_rows_host(dls_select s, const int *index, const int *begin, int *list,
                          int *place)
{
    for (int r = 0; r < s.ranges; r++)
        for (int row = 0, to = begin[r]; row < s.rows; row++) {
            int earlier, choice;
            choice = dls_select_row(&s, index + (size_t)row * s.k, r, &earlier);
            if (choice >= 0)
                dls_select_note(&s, row, choice, earlier, to++, list, place);
        }
}

/* count rows in plain c */
void dls_tally_rows_host(dls_select s, const int *index, int *copies)
{
    for (int r = 0; r < s.ranges; r++) {
        int all = 0, earlier;
        for (int row = 0; row < s.rows; row++)
            all += dls_select_row(&s, index + (size_t)row * s.k, r, &earlier) >= 0;
        copies[r] = all;
    }
}

void dls_keep_choices_host(int *kept, const int *index, const int *place, size_t n)
{
    for (size_t i = 0; i < n; i++)
        kept[i] = place[i] >= 0 ? index[i] : -1;
}
