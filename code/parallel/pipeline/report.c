/* code/parallel/pipeline/report.c: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* The reports; every number is exact until the moment it is printed. */
#include "parallel/pipeline/report.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "parallel/pipeline/csv.h"
#include "parallel/pipeline/exact.h"
#include "parallel/pipeline/walk.h"

/* divide the bubble */
static double bubble(int64_t time, int64_t ideal, int64_t of)
{
    return of ? (double)(time - ideal) / (double)of : NAN;
}

static int64_t most(const int64_t *values, int n)
{
    int64_t most = 0;
    for (int i = 0; i < n; i++)
        most = values[i] > most ? values[i] : most;
    return most;
}

/* print numbers as json */
static void put_exact(const char *key, int64_t value, int64_t unit, FILE *out)
{
    char text[DLS_EXACT_TEXT];
    dls_fraction_text(value, unit, text);
    fprintf(out, ",\"%s\":%s", key, text);
}

static void put_ratio(const char *key, double value, FILE *out)
{
    if (isnan(value))
        fprintf(out, ",\"%s\":null", key);
    else
        fprintf(out, ",\"%s\":%.17g", key, value);
}

static void put_list(const char *key, const int64_t *values, int n, int64_t unit,
                     FILE *out)
{
    char text[DLS_EXACT_TEXT];
    fprintf(out, ",\"%s\":[", key);
    for (int i = 0; i < n; i++) {
        dls_fraction_text(values[i], unit, text);
        fprintf(out, "%s%s", i ? "," : "", text);
    }
    fputc(']', out);
}

/* print the order */
/* Units of a rank's list, with something before and after each. */
static void put_order(const dls_actions *a, const char *quote, const char *between,
                      FILE *out)
{
    char text[256];
    for (size_t i = 0, n; i < a->n; i += n) {
        n = dls_actions_unit(a, i);
        dls_unit_text(a->list + i, n, text, sizeof text);
        if (i)
            fputs(between, out);
        fputs(quote, out);
        fputs(text, out);
        fputs(quote, out);
    }
}

/* print an evaluation as json */
static dls_status put_name(const char *name, FILE *out)
{
    json_t *text = json_string(name);
    int failed = !text || json_dumpf(text, out, JSON_ENCODE_ANY);
    json_decref(text);
    return failed ? DLS_FAIL(DLS_ERR_INPUT, "expected a name in UTF-8") : DLS_OK;
}

dls_status dls_report_json(const char *name, const dls_schedule *s,
                           const dls_evaluation *e, dls_units u, FILE *out)
{
    int p = s->options.ranks;
    int64_t idle[p];
    for (int r = 0; r < p; r++)
        idle[r] = e->makespan - e->busy[r];
    fputs("{\"schedule\":", out);
    DLS_TRY(put_name(name, out));
    fprintf(out, ",\"stages\":%d,\"microbatches\":%d,\"chunks\":%d", p,
            s->options.microbatches, s->options.chunks);
    put_exact("makespan", e->makespan, u.time, out);
    put_exact("span", e->span, u.time, out);
    put_exact("ideal", e->ideal, u.time, out);
    put_list("idle", idle, p, u.time, out);
    put_ratio("bubble_over_ideal", bubble(e->makespan, e->ideal, e->ideal), out);
    put_ratio("bubble_over_total", bubble(e->makespan, e->ideal, e->makespan), out);
    put_ratio("bubble_over_span", bubble(e->span, e->ideal, e->span), out);
    put_list("peak", e->peak, p, u.memory, out);
    fputs(",\"order\":[", out);
    for (int r = 0; r < p; r++) {
        fputs(r ? ",[" : "[", out);
        put_order(&s->order[r], "\"", ",", out);
        fputc(']', out);
    }
    fputs("]}\n", out);
    return DLS_OK;
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
    for (int r = 0; order && r < s->options.ranks; r++) {
        fprintf(out, "%s%4d: ", r ? "" : "\n", r);
        put_order(&s->order[r], "", " ", out);
        fputc('\n', out);
    }
    return DLS_OK;
}

/* print a row */
dls_status dls_report_table(dls_table **out)
{
    static const dls_column columns[] = {
        {"schedule", NULL}, {"stages", NULL}, {"microbatches", NULL}, {"chunks", NULL},
        {"makespan", "%.6g"}, {"span", "%.6g"}, {"ideal", "%.6g"},
        {"bubble/ideal", "%.4f"}, {"bubble/total", "%.4f"}, {"bubble/span", "%.4f"},
        {"peak", "%.6g"}};
    return dls_table_create(out, columns, 11);
}

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
