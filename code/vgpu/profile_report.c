/* code/vgpu/profile_report.c: from chapters/A-virtual-gpu-profile.md. Edit the chapter, or edit here and run "make untangle". */
/* What a profile looks like: two tables, JSON, and annotations line by line. */
#include "vgpu/profile_internal.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/table.h"

/* derive ratios */
static double ratio(double a, double b)
{
    return b > 0 ? a / b : NAN;
}

static double coalescing(const dls_profile_counters *c)
{
    return 100 * ratio((double)c->ideal_sectors, (double)c->sectors);
}

static double intensity(const dls_profile_counters *c)
{
    return ratio((double)(c->flops + c->tensor_flops),
                 (double)(c->dram_read + c->dram_written));
}
/* print the kernels */
static void add_kernel(dls_table *t, const dls_profiled_kernel *k)
{
    const dls_profile_counters *c = &k->total;
    dls_table_add_text(t, k->name);
    dls_table_add_int(t, (int64_t)k->launches);
    dls_table_add_int(t, (int64_t)c->requests);
    dls_table_add_real(t, ratio((double)c->sectors, (double)c->requests));
    dls_table_add_real(t, coalescing(c));
    dls_table_add_int(t, (int64_t)c->shared_requests);
    dls_table_add_real(t, ratio((double)c->wavefronts, (double)c->shared_requests));
    dls_table_add_int(t, (int64_t)(c->wavefronts - c->ideal_wavefronts));
    dls_table_add_real(t, ratio((double)c->lanes, (double)c->blocks));
    dls_table_add_int(t, (int64_t)(c->flops + c->tensor_flops));
    dls_table_add_int(t, (int64_t)(c->dram_read + c->dram_written));
    dls_table_add_real(t, intensity(c));
    dls_table_add_real(t, 100 * k->occupancy);
    dls_table_add_real(t, 1e6 * k->time);
    dls_table_add_text(t, k->bound);
}

static dls_status print_kernels(FILE *out)
{
    static const dls_column columns[] = {
        {"kernel", NULL}, {"runs", NULL}, {"global", NULL}, {"sect/req", "%.2f"},
        {"coal %", "%.0f"}, {"shared", NULL}, {"wave/req", "%.2f"}, {"conflicts", NULL},
        {"lanes", "%.1f"}, {"FLOPs", NULL}, {"DRAM B", NULL}, {"FLOP/B", "%.2f"},
        {"occ %", "%.0f"}, {"us", "%.2f"}, {"bound by", NULL}};
    dls_table *t;
    dls_profile_entry *entry;
    unsigned n = dls_profile_kernels(&entry);
    DLS_TRY(dls_table_create(&t, columns, sizeof columns / sizeof columns[0]));
    for (unsigned i = 0; i < n; i++)
        add_kernel(t, &entry[i].kernel);
    dls_status status = dls_table_print(t, out, 0);
    dls_table_free(t);
    return status;
}
/* read a line of the source */
/* The text of a line without its indentation, or NULL. At most `room` bytes. */
static const char *source_line(const char *file, int line, char *text, size_t room)
{
    FILE *in = fopen(file, "r");
    char *all = NULL;
    size_t size = 0;
    ssize_t n = in ? 0 : -1;
    for (int i = 0; i < line && n >= 0; i++)
        n = getline(&all, &size, in);
    if (in)
        fclose(in);
    const char *from = n > 0 ? all + strspn(all, " \t") : "";
    snprintf(text, room, "%.*s", (int)strcspn(from, "\n"), from);
    free(all);
    return *text ? text : NULL;
}
/* order lines by cost */
/* Cycles of one multiprocessor: 4 sectors, one wavefront or 256 operations each. */
static double cost(const dls_profile_counters *c)
{
    return (double)c->sectors / 4 + (double)c->wavefronts + (double)c->flops / 256 +
           (double)c->tensor_flops / 4096 + (double)c->specials / 16;
}

static int by_cost(const void *a, const void *b)
{
    const dls_profile_row *x = a, *y = b;
    double cx = cost(&x->c), cy = cost(&y->c);
    return cx != cy ? (cx < cy) - (cx > cy) : strcmp(x->file, y->file) ?
           strcmp(x->file, y->file) : x->line - y->line;
}
/* print the hottest lines */
static void add_line(dls_table *t, const dls_profile_row *row)
{
    const dls_profile_counters *c = &row->c;
    char place[512], text[64];
    const char *name = strrchr(row->file, '/');
    snprintf(place, sizeof place, "%s:%d", name ? name + 1 : row->file, row->line);
    dls_table_add_text(t, place);
    dls_table_add_int(t, (int64_t)c->requests);
    dls_table_add_real(t, ratio((double)c->sectors, (double)c->requests));
    dls_table_add_real(t, coalescing(c));
    dls_table_add_int(t, (int64_t)c->shared_requests);
    dls_table_add_real(t, ratio((double)c->wavefronts, (double)c->shared_requests));
    dls_table_add_real(t, ratio((double)c->lanes, (double)c->blocks));
    dls_table_add_int(t, (int64_t)(c->flops + c->tensor_flops));
    dls_table_add_int(t, (int64_t)c->specials);
    dls_table_add_text(t, source_line(row->file, row->line, text, sizeof text));
}

static dls_status print_lines(FILE *out, unsigned hottest)
{
    static const dls_column columns[] = {
        {"line", NULL}, {"global", NULL}, {"sect/req", "%.2f"}, {"coal %", "%.0f"},
        {"shared", NULL}, {"wave/req", "%.2f"}, {"lanes", "%.1f"}, {"FLOPs", NULL},
        {"special", NULL}, {"source", NULL}};
    dls_table *t;
    dls_profile_row *rows;
    unsigned n = dls_profile_rows(NULL, &rows);
    dls_status status = dls_table_create(&t, columns, sizeof columns / sizeof columns[0]);
    if (status == DLS_OK) {
        if (n)
            qsort(rows, n, sizeof *rows, by_cost);
        for (unsigned i = 0; i < n && i < hottest && cost(&rows[i].c) > 0; i++)
            add_line(t, &rows[i]);
        status = dls_table_print(t, out, 0);
        dls_table_free(t);
    }
    free(rows);
    return status;
}

dls_status dls_profile_print(FILE *out, int hottest)
{
    dls_profile_entry *entry;
    if (!dls_profile_kernels(&entry)) {
        fputs("profile: no kernel was launched\n", out);
        return DLS_OK;
    }
    DLS_TRY(print_kernels(out));
    fputc('\n', out);
    return print_lines(out, hottest > 0 ? (unsigned)hottest : 0);
}
/* turn counters into json */
typedef struct field {
    const char *name;
    size_t offset;
} field;

#define FIELD(name) {#name, offsetof(dls_profile_counters, name)}
static const field fields[] = {
    FIELD(requests), FIELD(sectors), FIELD(ideal_sectors), FIELD(bytes), FIELD(dram_read),
    FIELD(dram_written), FIELD(shared_requests), FIELD(wavefronts),
    FIELD(ideal_wavefronts), FIELD(shared_bytes), FIELD(atomics), FIELD(flops),
    FIELD(tensor_flops), FIELD(specials), FIELD(blocks), FIELD(lanes)};
enum { FIELDS = sizeof fields / sizeof fields[0] };

static uint64_t value_of(const dls_profile_counters *c, int i)
{
    return *(const uint64_t *)((const char *)c + fields[i].offset);
}

static void add_counters(json_t *to, const dls_profile_counters *c)
{
    for (int i = 0; i < FIELDS; i++)
        json_object_set_new(to, fields[i].name, json_integer((json_int_t)value_of(c, i)));
}
/* turn a kernel into json */
static json_t *kernel_json(const dls_profiled_kernel *k)
{
    json_t *j = json_pack(
        "{s:s, s:s, s:i, s:I, s:[iii], s:[iii], s:I, s:I}", "kernel", k->name, "file",
        k->file, "line", k->line, "launches", (json_int_t)k->launches, "grid",
        (int)k->grid[0], (int)k->grid[1], (int)k->grid[2], "block", (int)k->block[0],
        (int)k->block[1], (int)k->block[2], "static_shared",
        (json_int_t)k->static_shared, "dynamic_shared", (json_int_t)k->dynamic_shared);
    if (!j)
        return NULL;
    add_counters(j, &k->total);
    json_object_set_new(j, "occupancy_without_registers", json_real(k->occupancy));
    json_object_set_new(j, "compute_seconds", json_real(k->compute_time));
    json_object_set_new(j, "memory_seconds", json_real(k->memory_time));
    json_object_set_new(j, "shared_seconds", json_real(k->shared_time));
    json_object_set_new(j, "seconds", json_real(k->time));
    json_object_set_new(j, "bound", json_string(k->bound));
    return j;
}

static json_t *rows_json(void)
{
    dls_profile_row *rows;
    unsigned n = dls_profile_rows(NULL, &rows);
    json_t *list = json_array();
    for (unsigned i = 0; i < n; i++) {
        json_t *j = json_pack("{s:s, s:i, s:s}", "file", rows[i].file, "line",
                              rows[i].line, "function", rows[i].function);
        if (j)
            add_counters(j, &rows[i].c);
        json_array_append_new(list, j);
    }
    free(rows);
    return list;
}
/* write the json file */
dls_status dls_profile_write_json(const char *path)
{
    dls_profile_entry *entry;
    unsigned n = dls_profile_kernels(&entry);
    json_t *kernels = json_array();
    for (unsigned i = 0; i < n; i++)
        json_array_append_new(kernels, kernel_json(&entry[i].kernel));
    json_t *all = json_pack("{s:o, s:o}", "kernels", kernels, "lines", rows_json());
    char *text = all ? json_dumps(all, JSON_INDENT(1) | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(all);
    if (!text)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the profile");
    dls_status status = dls_file_write(path, text, strlen(text));
    free(text);
    return status;
}
/* write annotations */
dls_status dls_profile_write_tsv(const char *path)
{
    dls_profile_row *rows;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the profile");
    unsigned n = dls_profile_rows(NULL, &rows);
    fputs("line", out);
    for (int f = 0; f < FIELDS; f++)
        fprintf(out, "\t%s", fields[f].name);
    for (unsigned i = 0; i < n; i++) {
        fprintf(out, "\n%s:%d", rows[i].file, rows[i].line);
        for (int f = 0; f < FIELDS; f++)
            fprintf(out, "\t%llu", (unsigned long long)value_of(&rows[i].c, f));
    }
    fputc('\n', out);
    free(rows);
    dls_status status = DLS_FAIL(DLS_ERR_MEMORY, "no memory for the profile");
    if (fclose(out) == 0)
        status = dls_file_write(path, text, size);
    free(text);
    return status;
}
