/* tests/vgpu/trace_check.h: from chapters/A-virtual-gpu-traces.md. Edit the chapter, or edit here and run "make untangle". */
/* Is this a trace that viewers can read? Checks a merged file; counts its arrows. */
#ifndef DLS_TESTS_VGPU_TRACE_CHECK_H
#define DLS_TESTS_VGPU_TRACE_CHECK_H

#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>

/* read an event */
static inline const char *event_text(json_t *e, const char *key)
{
    const char *text = json_string_value(json_object_get(e, key));
    return text ? text : "";
}

static inline double event_number(json_t *e, const char *key)
{
    cr_assert(json_is_number(json_object_get(e, key)), "no %s in %s", key,
              json_dumps(e, JSON_COMPACT));
    return json_number_value(json_object_get(e, key));
}

static inline int same_row(json_t *a, json_t *b, int with_thread)
{
    return event_number(a, "pid") == event_number(b, "pid") &&
           (!with_thread || event_number(a, "tid") == event_number(b, "tid"));
}

/* How many events of this phase and name (NULL: any) are in the row of e. */
static inline int count_in_row(json_t *events, json_t *e, const char *phase,
                               const char *name, int with_thread)
{
    int count = 0;
    size_t i;
    json_t *other;
    json_array_foreach(events, i, other)
        count += strcmp(event_text(other, "ph"), phase) == 0 &&
                 (name == NULL || strcmp(event_text(other, "name"), name) == 0) &&
                 same_row(e, other, with_thread);
    return count;
}

/* check the end of an arrow */
static inline void check_arrow_end(json_t *events, json_t *e)
{
    double at = event_number(e, "ts");
    int start = strcmp(event_text(e, "ph"), "s") == 0, partners = 0, bars = 0;
    size_t i;
    json_t *other;
    json_array_foreach(events, i, other) {
        if (strcmp(event_text(other, "ph"), "X") == 0 && same_row(e, other, 1)) {
            double from = event_number(other, "ts");
            bars += from <= at && at < from + event_number(other, "dur");
        }
        if (strcmp(event_text(other, "ph"), start ? "f" : "s") != 0 ||
            strcmp(event_text(other, "cat"), event_text(e, "cat")) != 0 ||
            event_number(other, "id") != event_number(e, "id"))
            continue;
        cr_assert_str_eq(event_text(other, "name"), event_text(e, "name"));
        double gap = event_number(other, "ts") - at;
        cr_assert(start ? gap >= 0 : gap <= 0, "an arrow goes back in time");
        partners++;
    }
    cr_assert_eq(partners, 1, "%d partners of %s", partners, json_dumps(e, JSON_COMPACT));
    cr_assert_eq(bars, 1, "%d bars around %s", bars, json_dumps(e, JSON_COMPACT));
    cr_assert(start || strcmp(event_text(e, "bp"), "e") == 0);
}

/* check a trace */
static inline void check_trace(const char *path, int *messages, int *waits)
{
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error), *e;
    json_t *events = json_object_get(root, "traceEvents");
    size_t i;
    cr_assert_not_null(root, "%s: %s", path, error.text);
    *messages = *waits = 0;
    json_array_foreach(events, i, e) {
        char phase = *event_text(e, "ph");
        cr_assert(strchr("XMsfC", phase) && phase, "phase '%c'", phase);
        cr_assert_geq(event_number(e, "pid"), 0);
        cr_assert_geq(phase == 'C' ? 0 : event_number(e, "tid"), 0);
        if (phase == 'X') {
            cr_assert_eq(count_in_row(events, e, "M", "process_name", 0), 1);
            cr_assert_geq(count_in_row(events, e, "M", "thread_name", 1), 1);
        }
        if (phase == 's' || phase == 'f')
            check_arrow_end(events, e);
        *messages += phase == 's' && strcmp(event_text(e, "cat"), "message") == 0;
        *waits += phase == 's' && strcmp(event_text(e, "cat"), "event") == 0;
    }
    json_decref(root);
}

#endif
