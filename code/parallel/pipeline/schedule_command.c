/* code/parallel/pipeline/schedule_command.c: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* dls schedule: options into ticks, a schedule made or read, evaluated and shown. */
#include "parallel/pipeline/schedule_command.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/file.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/csv.h"
#include "parallel/pipeline/draw.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/report.h"
#include "parallel/pipeline/request.h"

typedef dls_request request;

/* get a schedule */
/* load a schedule */
/* The reader's own: its shape is in the file, costs and memory in the options. */
static dls_status read_file(request *q, const char *path, dls_schedule *out)
{
    char *text;
    size_t size;
    DLS_TRY(dls_file_read(path, &text, &size));
    dls_status status = dls_schedule_from_csv(path, text, size, out);
    free(text);
    DLS_TRY(status);
    return dls_request_price(q, out);
}

static int is_file(const char *name)
{
    size_t n = strlen(name);
    return n >= 4 && strcmp(name + n - 4, ".csv") == 0;
}


/* refuse strange names */
static int is_utf8(const char *name)
{
    json_t *text = json_string(name);
    json_decref(text);
    return text != NULL;
}

static dls_status load(request *q, const char *name, dls_schedule *out)
{
    *out = (dls_schedule){0};
    if (!is_utf8(name))
        return DLS_FAIL(DLS_ERR_INPUT, "expected the name of a schedule in UTF-8");
    return is_file(name) ? read_file(q, name, out)
                         : dls_request_make(q, name, out);
}

/* lower what was loaded */
static dls_status lower(request *q, dls_schedule *s)
{
    dls_schedule lowered;
    if (q->gathered < 0 || q->gathered > INT16_MAX)
        return DLS_FAIL(DLS_ERR_INPUT, "--gathered: expected 0 to %d stages, got %lld",
                        INT16_MAX, (long long)q->gathered);
    DLS_TRY(dls_lower(s, (int)q->gathered, &lowered));
    dls_schedule_free(s);
    *s = lowered;
    return dls_schedule_check(s, NULL);
}

/* prove and evaluate */
/* Nothing is evaluated, drawn or written that the checker has not passed. */
static dls_status load_checked(request *q, const char *name, dls_schedule *s,
                               dls_evaluation *e)
{
    int rank;
    *e = (dls_evaluation){0};
    DLS_TRY(load(q, name, s));
    dls_status status = dls_schedule_check(s, &rank);
    if (status == DLS_ERR_INPUT && is_file(name) && rank >= 0)
        return DLS_FAIL(status, "%s:%d: %s", name, rank + 1, dls_status_message());
    if (status == DLS_ERR_INPUT)
        return DLS_FAIL(status, "%s: %s", name, dls_status_message());
    DLS_TRY(status);
    if (q->lower || q->gathered)
        DLS_TRY(lower(q, s));
    return dls_evaluate(s, e);
}

/* show one schedule */
static dls_status export_csv(const dls_schedule *s, const char *path)
{
    char *text;
    size_t size;
    DLS_TRY(dls_schedule_to_csv(s, &text, &size));
    dls_status status = dls_file_write(path, text, size);
    free(text);
    return status;
}

/* draw a schedule */
static int columns_of_terminal(void)
{
    const char *columns = getenv("COLUMNS");
    struct winsize size;
    int n = columns ? atoi(columns) : 0;
    if (n <= 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
        n = size.ws_col;
    return n > 0 && n < 100000 ? n : 100;
}

static dls_status write_picture(const dls_drawing *d, const char *path)
{
    dls_text out = {0};
    dls_status status = dls_draw_svg(d, &out);
    if (status == DLS_OK)
        status = dls_file_write(path, out.data, out.size);
    dls_text_free(&out);
    return status;
}

static dls_status print_letters(const dls_drawing *d)
{
    dls_text out = {0};
    int colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
    dls_status status = dls_draw_terminal(d, columns_of_terminal(), colour, &out);
    if (status == DLS_OK)
        fwrite(out.data, 1, out.size, stdout);
    dls_text_free(&out);
    return status;
}

static dls_status draw(request *q, const char *name, const dls_schedule *s,
                       const dls_evaluation *e)
{
    dls_text title = {0};
    dls_drawing d;
    DLS_TRY(dls_draw_schedule(s, e, &d));
    dls_draw_title(name, s, &title);
    d.title = title.data ? title.data : "";
    d.unit = q->units.time;
    d.one = q->units.memory;
    dls_status status = q->draw ? write_picture(&d, q->draw) : DLS_OK;
    if (status == DLS_OK && q->terminal)
        status = print_letters(&d);
    dls_text_free(&title);
    dls_draw_free(&d);
    return status;
}

/* print the answer as json */
static dls_status print_json(request *q, const char *name, const dls_schedule *s,
                             const dls_evaluation *e)
{
    dls_text out = {0};
    dls_status status = dls_report_json(name, s, e, q->units, &out);
    if (status == DLS_OK)
        fwrite(out.data, 1, out.size, stdout);
    dls_text_free(&out);
    return status;
}

/* show it all */
static dls_status show(request *q, const char *name)
{
    dls_schedule s;
    dls_evaluation e;
    dls_status status = load_checked(q, name, &s, &e);
    if (status == DLS_OK && q->csv)
        status = export_csv(&s, q->csv);
    if (status == DLS_OK && (q->draw || q->terminal))
        status = draw(q, name, &s, &e);
    if (status == DLS_OK && q->json)
        status = print_json(q, name, &s, &e);
    else if (status == DLS_OK && !q->terminal)
        status = dls_report_text(name, &s, &e, q->units, q->order, stdout);
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
    return status;
}

/* compare schedules */
static dls_status add_compared(request *q, const char *name, dls_table *t,
                               dls_text *more)
{
    dls_schedule s;
    dls_evaluation e;
    dls_status status = load_checked(q, name, &s, &e);
    if (status == DLS_OK && q->json) {
        dls_text_add(more, more->size ? "," : "[");
        status = dls_report_json(name, &s, &e, q->units, more);
    } else if (status == DLS_OK) {
        dls_report_row(name, &s, &e, q->units, t);
        dls_report_notes(name, &s, more);
    }
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
    dls_request_free(q);
    return status;
}

/* compare them all */
static dls_status compare(request *q)
{
    char *names = strdup(q->compare), *rest = names;
    dls_table *t = NULL;
    dls_text more = {0};  // the JSON, or notes below the table
    dls_status status = names ? dls_report_table(&t)
                              : DLS_FAIL(DLS_ERR_MEMORY, "no memory for the names");
    for (char *name; status == DLS_OK && (name = strsep(&rest, ","));)
        status = add_compared(q, name, t, &more);
    if (status == DLS_OK && q->json)
        printf("%s]\n", more.data);
    else if (status == DLS_OK)
        status = dls_table_print(t, stdout, 0);
    if (status == DLS_OK && !q->json && more.size)
        printf("%s", more.data);
    dls_text_free(&more);
    dls_table_free(t);
    free(names);
    return status;
}

/* run the schedule command */
static dls_status list(int json)
{
    static const dls_column columns[] = {{"name", NULL}, {"what", NULL}};
    dls_table *t;
    DLS_TRY(dls_table_create(&t, columns, 2));
    for (int i = 0; dls_schedule_at(i); i++) {
        dls_table_add_text(t, dls_schedule_at(i)->name);
        dls_table_add_text(t, dls_schedule_at(i)->summary);
    }
    dls_status status = dls_table_print(t, stdout, json);
    dls_table_free(t);
    return status;
}

/* dispatch a request */
static dls_status dispatch(request *q)
{
    if (q->list)
        return list(q->json);
    if (!q->name == !q->compare)
        return DLS_FAIL(DLS_ERR_INPUT, "expected a schedule's NAME or --compare A,B,...");
    return q->compare ? compare(q) : show(q, q->name);
}

dls_status dls_schedule_command(int argc, char **argv, int *exit_code)
{
    (void)exit_code;
    request q = {0};
    int helped;
    DLS_TRY(dls_request_read(&q, argc, argv, &helped));
    dls_status status = helped ? DLS_OK : dispatch(&q);
    dls_request_free(&q);
    return status;
}
