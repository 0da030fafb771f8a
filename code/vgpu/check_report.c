/* code/vgpu/check_report.c: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* Reports as text, like those of a good compiler, and as JSON. */
#include "vgpu/check_internal.h"

#include <jansson.h>
#include <string.h>

/* name the classes */
const char *dls_check_name(dls_check_class kind)
{
    static const char *const names[DLS_CHECK_CLASSES] = {
        "global-bounds", "shared-bounds", "local-bounds", "misaligned", "uninitialised",
        "after-free", "double-free", "invalid-free", "leak", "host-access", "host-memory",
        "shared-race", "global-race", "stream-race", "barrier", "deadlock",
        "mask", "source-lane", "never-recorded", "api-error", "launch-error"};
    return kind < DLS_CHECK_CLASSES ? names[kind] : "?";
}

static const char *severity_name(dls_check_severity s)
{
    return s == DLS_CHECK_ERROR ? "error" : s == DLS_CHECK_WARNING ? "warning" : "note";
}
/* show a line of source */
/* The line with a caret under its first word, if the file can be read from here. */
static void show_source(FILE *out, const char *file, int line)
{
    char text[256] = "";
    FILE *f = fopen(file, "r");
    if (!f)
        return;
    for (int i = 0; i < line && fgets(text, sizeof text, f); i++)
        ;
    fclose(f);
    text[strcspn(text, "\n")] = 0;
    size_t indent = strspn(text, " \t"), length = strlen(text + indent);
    if (!length)
        return;
    fprintf(out, "%5d |   %s\n      |   ", line, text + indent);
    for (size_t i = 0; i < length; i++)
        fputc(i ? '~' : '^', out);
}

static void print_party(FILE *out, const dls_check_party *p)
{
    if (!p->what[0])
        return;
    if (p->line == 0) {
        fprintf(out, "  %s\n", p->what);
        return;
    }
    fprintf(out, "  --> %s:%d", p->file, p->line);
    if (p->function)
        fprintf(out, ", in %s", p->function);
    fputc('\n', out);
    show_source(out, p->file, p->line);
    fprintf(out, " %s\n", p->what);
}
/* print a report */
static void print_report(FILE *out, const dls_check_report *r)
{
    fprintf(out, "%s[%s]: %s\n", severity_name(r->severity), dls_check_name(r->kind),
            r->title);
    print_party(out, &r->here);
    print_party(out, &r->there);
    if (r->memory[0])
        fprintf(out, "  memory: %s\n", r->memory);
    for (int i = 0; i < 2; i++)
        if (r->origin[i].what[0] && r->origin[i].line)
            fprintf(out, "          %s: %s:%d\n", r->origin[i].what, r->origin[i].file,
                    r->origin[i].line);
    if (r->hint[0])
        fprintf(out, "  hint: %s\n", r->hint);
    if (r->count > 1)
        fprintf(out, "  seen %lu times\n", r->count);
    fputc('\n', out);
}
/* print all reports */
unsigned dls_check_print(FILE *out)
{
    unsigned by[3] = {0};
    for (unsigned i = 0; i < dls_check_count(); i++) {
        print_report(out, dls_check_report_number(i));
        by[dls_check_report_number(i)->severity]++;
    }
    fprintf(out, "dls check: %u error%s, %u warning%s, %u note%s\n", by[2],
            by[2] == 1 ? "" : "s", by[1], by[1] == 1 ? "" : "s", by[0],
            by[0] == 1 ? "" : "s");
    return by[1] + by[2];
}
/* print reports as json */
static json_t *json_party(const dls_check_party *p)
{
    return json_pack("{s:s, s:s?, s:s?, s:i}", "what", p->what, "function", p->function,
                     "file", p->file, "line", p->line);
}

unsigned dls_check_print_json(FILE *out)
{
    json_t *all = json_array();
    unsigned bad = 0;
    for (unsigned i = 0; i < dls_check_count(); i++) {
        const dls_check_report *r = dls_check_report_number(i);
        json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:s, s:s, s:o}", "class",
                              dls_check_name(r->kind), "severity",
                              severity_name(r->severity), "title", r->title, "count",
                              (json_int_t)r->count, "memory", r->memory, "hint", r->hint,
                              "here", json_party(&r->here));
        if (r->there.what[0])
            json_object_set_new(o, "there", json_party(&r->there));
        if (r->origin[0].what[0])
            json_object_set_new(o, "allocated", json_party(&r->origin[0]));
        if (r->origin[1].what[0])
            json_object_set_new(o, "freed", json_party(&r->origin[1]));
        json_array_append_new(all, o);
        bad += r->severity != DLS_CHECK_NOTE;
    }
    json_dumpf(all, out, JSON_INDENT(2));
    fputc('\n', out);
    json_decref(all);
    return bad;
}
