/* code/vgpu/profile_rows.c: from chapters/A-virtual-gpu-profile.md. Edit the chapter, or edit here and run "make untangle". */
/* From places in the machine code to lines of the source.
 *
 * A basic block lies on several lines: each floating-point instruction is counted at its
 * own, the block's visits where it begins.
 */
#include "vgpu/profile_internal.h"

#include <stdlib.h>
#include <string.h>

/* collect rows */
typedef struct collection {
    dls_profile_row *row;
    unsigned count, room;
    uint64_t lanes;  // of the block whose arithmetic is being added
} collection;

static dls_profile_row *row_at(collection *k, const char *file, int line,
                               const char *function)
{
    for (unsigned i = 0; i < k->count; i++)  // the strings are unique
        if (k->row[i].line == line && k->row[i].file == file)
            return &k->row[i];
    if (k->count == k->room) {
        unsigned room = 2 * k->room + 64;
        dls_profile_row *more = realloc(k->row, room * sizeof *more);
        if (!more)
            return NULL;
        k->row = more;
        k->room = room;
    }
    dls_profile_row *row = &k->row[k->count++];
    *row = (dls_profile_row){.file = file, .function = function, .line = line};
    return row;
}
/* add arithmetic to its lines */
static void add_flops(void *arg, uintptr_t pc, unsigned flops)
{
    collection *k = arg;
    const char *function, *file;
    int line;
    dls_probe_place(pc + 1, &function, &file, &line);
    dls_profile_row *row = row_at(k, file, line, function);
    if (row)
        row->c.flops += flops * k->lanes;
}

static void add_site(collection *k, dls_probe_site *site, const dls_profile_counters *c)
{
    dls_profile_counters here = *c;
    if (site->kind == DLS_PROBE_BLOCK) {
        k->lanes = c->lanes;
        if (c->flops)
            dls_profile_flops(site->pc, add_flops, k);
        here.flops = 0;
        if (!c->blocks)
            return;
    }
    dls_probe_locate(site);
    dls_profile_row *row = row_at(k, site->file, site->line, site->function);
    if (row)
        dls_profile_add(&row->c, &here);
}
/* order the rows */
static int by_place(const void *a, const void *b)
{
    const dls_profile_row *x = a, *y = b;
    int c = strcmp(x->file, y->file);
    return c ? c : (x->line > y->line) - (x->line < y->line);
}

static int is_empty(const dls_profile_counters *c)
{
    static const dls_profile_counters none;
    return !memcmp(c, &none, sizeof none);
}

unsigned dls_profile_rows(const dls_profile_entry *kernel, dls_profile_row **rows)
{
    collection k = {0};
    dls_profile_entry *entry;
    unsigned n = dls_profile_kernels(&entry);
    for (unsigned e = 0; e < n; e++)
        for (unsigned i = 0; (!kernel || kernel == &entry[e]) && i < entry[e].room; i++)
            if (!is_empty(&entry[e].site[i]))
                add_site(&k, dls_probe_site_at(i), &entry[e].site[i]);
    if (k.count)
        qsort(k.row, k.count, sizeof *k.row, by_place);
    *rows = k.row;
    return k.count;
}
/* ask for a line */
static int ends_with(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return m <= n && !strcmp(path + n - m, end) &&
           (m == n || path[n - m - 1] == '/' || end[0] == '/');
}

int dls_profile_line(const char *file, int line, dls_profile_counters *out)
{
    dls_profile_row *rows;
    unsigned n = dls_profile_rows(NULL, &rows);
    int found = 0;
    *out = (dls_profile_counters){0};
    for (unsigned i = 0; i < n; i++)
        if (rows[i].line == line && ends_with(rows[i].file, file)) {
            dls_profile_add(out, &rows[i].c);
            found = 1;
        }
    free(rows);
    return found;
}
