/* code/vgpu/profile_source.c: from chapters/A-virtual-gpu-profile.md. Edit the chapter, or edit here and run "make untangle". */
/* The source with the counts beside its lines, for a terminal or a page of the book. */
#include "vgpu/profile_internal.h"

#include <stdlib.h>
#include <string.h>

/* print counts beside a line */
static void print_ratio(FILE *out, uint64_t a, uint64_t b)
{
    if (b)
        fprintf(out, "%8.2f", (double)a / (double)b);
    else
        fprintf(out, "%8s", "");
}

/* row: what was counted at this line, or NULL. */
static void print_line(FILE *out, const dls_profile_row *row, int line, const char *text)
{
    static const dls_profile_counters none;
    const dls_profile_counters *c = row ? &row->c : &none;
    print_ratio(out, c->sectors, c->requests);
    print_ratio(out, c->wavefronts, c->shared_requests);
    print_ratio(out, c->lanes, c->blocks);
    if (c->flops + c->tensor_flops)
        fprintf(out, "%12llu", (unsigned long long)(c->flops + c->tensor_flops));
    else
        fprintf(out, "%12s", "");
    fprintf(out, " |%5d  %.*s\n", line, (int)strcspn(text, "\n"), text);
}
/* print a passage of the source */
/* The lines that `rows` (n, ascending, of one file) lie on, and those between. */
static void print_passage(FILE *out, const dls_profile_row *rows, unsigned n)
{
    FILE *in = fopen(rows[0].file, "r");
    char *text = NULL;
    size_t room = 0;
    unsigned next = 0;
    fprintf(out, "%s\nsect/req wave/req   lanes       FLOPs\n", rows[0].file);
    for (int line = 1; in && next < n && getline(&text, &room, in) > 0; line++) {
        int counted = rows[next].line == line;
        if (line >= rows[0].line)
            print_line(out, counted ? &rows[next] : NULL, line, text);
        next += (unsigned)counted;
    }
    if (!in)
        for (; next < n; next++)
            print_line(out, &rows[next], rows[next].line, "(the source is not here)");
    fputc('\n', out);
    free(text);
    if (in)
        fclose(in);
}
/* annotate the source */
static int only_blocks(const dls_profile_counters *c)
{
    return !(c->requests + c->shared_requests + c->flops + c->tensor_flops + c->specials);
}

void dls_profile_annotate(FILE *out)
{
    enum { GAP = 12 };  // lines without counts between two passages
    dls_profile_row *rows;
    unsigned n = dls_profile_rows(NULL, &rows), kept = 0;
    for (unsigned i = 0; i < n; i++)
        if (!strstr(rows[i].file, "vgpu/shadow/") && strncmp(rows[i].file, "/usr/", 5))
            rows[kept++] = rows[i];
    for (unsigned first = 0, i = 1; i <= kept; i++)
        if (i == kept || rows[i].file != rows[i - 1].file ||
            rows[i].line - rows[i - 1].line > GAP) {
            unsigned end = i;  // launches at the end of a passage did nothing
            while (end > first && only_blocks(&rows[end - 1].c))
                end--;
            if (end > first)
                print_passage(out, rows + first, end - first);
            first = i;
        }
    free(rows);
}
