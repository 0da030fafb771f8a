/* code/parallel/pipeline/report_json.c: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* The JSON of an evaluation. See report_json.h. */
#include "parallel/pipeline/report_json.h"

#include "parallel/pipeline/csv.h"
#include "parallel/pipeline/walk.h"

/* print numbers as json */
static void put_exact(const char *key, int64_t value, int64_t unit, dls_text *out)
{
    char text[DLS_EXACT_TEXT] = "null"; // 0 / 0: no work, no bubble
    if (unit)
        dls_fraction_text(value, unit, text);
    dls_text_add(out, ",\"%s\":%s", key, text);
}

/* print a list as json */
static void put_list(const char *key, const int64_t *values, int n, int64_t unit,
                     dls_text *out)
{
    char text[DLS_EXACT_TEXT];
    dls_text_add(out, ",\"%s\":[", key);
    for (int i = 0; i < n; i++) {
        dls_fraction_text(values[i], unit, text);
        dls_text_add(out, "%s%s", i ? "," : "", text);
    }
    dls_text_add(out, "]");
}

/* print a name as json */
static void put_name(const char *name, dls_text *out)
{
    dls_text_add(out, "{\"schedule\":\"");
    for (; *name; name++)
        if ((unsigned char)*name < 32)
            dls_text_add(out, "\\u00%02x", (unsigned)*name);
        else
            dls_text_add(out, *name == '"' || *name == '\\' ? "\\%c" : "%c", *name);
    dls_text_add(out, "\"");
}

/* print the order */
void dls_report_order(const dls_actions *a, const char *quote, const char *between,
                      dls_text *out)
{
    char text[DLS_ACTION_TEXT];
    for (size_t i = 0, n; i < a->n; i += n) {
        n = dls_actions_unit(a, i);
        dls_text_add(out, "%s%s%s", i ? between : "", quote, n > 1 ? "(" : "");
        for (size_t k = 0; k < n; k++) {
            dls_action_text(&a->list[i + k], text);
            dls_text_add(out, "%s%s", k ? ";" : "", text);
        }
        dls_text_add(out, "%s%s", n > 1 ? dls_unit_tail(&a->list[i]) : "", quote);
    }
}

/* print an evaluation as json */
dls_status dls_report_json(const char *name, const dls_schedule *s,
                           const dls_evaluation *e, dls_units u, dls_text *out)
{
    int p = s->options.ranks;
    int64_t bubble = e->makespan - e->ideal, idle[p];
    for (int r = 0; r < p; r++)
        idle[r] = e->makespan - e->busy[r];
    put_name(name, out);
    dls_text_add(out, ",\"stages\":%d,\"microbatches\":%d,\"chunks\":%d", p,
                 s->options.microbatches, s->options.chunks);
    put_exact("makespan", e->makespan, u.time, out);
    put_exact("span", e->span, u.time, out);
    put_exact("ideal", e->ideal, u.time, out);
    put_list("idle", idle, p, u.time, out);
    put_exact("bubble_over_ideal", bubble, e->ideal, out);
    put_exact("bubble_over_total", bubble, e->makespan, out);
    put_exact("bubble_over_span", e->span - e->ideal, e->span, out);
    put_list("peak", e->peak, p, u.memory, out);
    dls_text_add(out, ",\"order\":[");
    for (int r = 0; r < p; r++) {
        dls_text_add(out, r ? ",[" : "[");
        dls_report_order(&s->order[r], "\"", ",", out);
        dls_text_add(out, "]");
    }
    dls_text_add(out, "],\"parameters\":%d,\"peak_of\":\"%s\"}\n",
                 s->placement == DLS_PLACE_BOTH ? 2 : 1,
                 dls_schedule_pairs(s) ? "chunk" : "stage");
    return dls_text_status(out);
}
