/* code/parallel/pipeline/report.c: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* The reports; every number is exact until the moment it is printed. */
#include "parallel/pipeline/report.h"

#include <math.h>

#include "parallel/pipeline/csv.h"
#include "parallel/pipeline/exact.h"
#include "parallel/pipeline/walk.h"

/* divide the bubble */
static double bubble(int64_t time, int64_t ideal, int64_t of)
{
    return of ? (double)(time - ideal) / (double)of : NAN;
}

/* find the most */
static int64_t most(const int64_t *values, int n)
{
    int64_t most = 0;
    for (int i = 0; i < n; i++)
        most = values[i] > most ? values[i] : most;
    return most;
}

/* print an evaluation as text */
static dls_status print_ranks(const dls_schedule *s, const dls_evaluation *e, dls_units u,
                              FILE *out)
{
    static const dls_column columns[] = {
        {"rank", NULL}, {"work", "%.6g"}, {"idle", "%.6g"}, {"peak activations", "%.6g"}};
    dls_table *t;
    DLS_TRY(dls_table_create(&t, columns, 4));
    for (int r = 0; r < s->options.ranks; r++) {
        dls_table_add_int(t, r);
        dls_table_add_real(t, (double)e->busy[r] / (double)u.time);
        dls_table_add_real(t, (double)(e->makespan - e->busy[r]) / (double)u.time);
        dls_table_add_real(t, (double)e->peak[r] / (double)u.memory);
    }
    dls_status status = dls_table_print(t, out, 0);
    dls_table_free(t);
    return status;
}

/* note what has no column */
void dls_report_notes(const char *name, const dls_schedule *s, dls_text *out)
{
    if (s->placement == DLS_PLACE_BOTH)
        dls_text_add(out, "%s: 2x parameters, each stage on two ranks\n", name);
    if (dls_schedule_pairs(s) && s->options.chunks > 1)
        dls_text_add(out, "%s: peak in chunks, %d of them a stage\n", name,
                     s->options.chunks);
}

/* print all as text */
dls_status dls_report_text(const char *name, const dls_schedule *s,
                           const dls_evaluation *e, dls_units u, int order, FILE *out)
{
    dls_table *t;
    DLS_TRY(dls_report_table(&t));
    dls_report_row(name, s, e, u, t);
    dls_status status = dls_table_print(t, out, 0);
    dls_table_free(t);
    DLS_TRY(status);
    fputc('\n', out);
    DLS_TRY(print_ranks(s, e, u, out));
    dls_text orders = {0};
    dls_report_notes(name, s, &orders);
    for (int r = 0; order && r < s->options.ranks; r++) {
        dls_text_add(&orders, "%s%4d: ", r ? "" : "\n", r);
        dls_report_order(&s->order[r], "", " ", &orders);
        dls_text_add(&orders, "\n");
    }
    status = dls_text_status(&orders);
    if (orders.size)
        fwrite(orders.data, 1, orders.size, out);
    dls_text_free(&orders);
    return status;
}

/* print a row */
dls_status dls_report_table(dls_table **out)
{
    static const dls_column columns[] = {
        {"schedule", NULL}, {"p", NULL}, {"m", NULL}, {"v", NULL}, {"makespan", "%.6g"},
        {"span", "%.6g"}, {"ideal", "%.6g"}, {"bubble/ideal", "%.4f"},
        {"/total", "%.4f"}, {"/span", "%.4f"}, {"peak", "%.6g"}};
    return dls_table_create(out, columns, 11);
}

/* fill a row */
void dls_report_row(const char *name, const dls_schedule *s, const dls_evaluation *e,
                    dls_units u, dls_table *t)
{
    double unit = (double)u.time;
    dls_table_add_text(t, name);
    dls_table_add_int(t, s->options.ranks);
    dls_table_add_int(t, s->options.microbatches);
    dls_table_add_int(t, s->options.chunks);
    dls_table_add_real(t, (double)e->makespan / unit);
    dls_table_add_real(t, (double)e->span / unit);
    dls_table_add_real(t, (double)e->ideal / unit);
    dls_table_add_real(t, bubble(e->makespan, e->ideal, e->ideal));
    dls_table_add_real(t, bubble(e->makespan, e->ideal, e->makespan));
    dls_table_add_real(t, bubble(e->span, e->ideal, e->span));
    dls_table_add_real(t, (double)most(e->peak, e->ranks) / (double)u.memory);
}
