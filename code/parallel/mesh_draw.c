/* code/parallel/mesh_draw.c: from chapters/07-mesh-command.md. Edit the chapter, or edit here and run "make untangle". */
/* Drawing a mesh as SVG: panels of nodes and ranks, coloured by group. */
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "parallel/mesh_command.h"

/* lay out the panels */
enum { CELL = 32, ROW = 26, GAP = 28, TOP = 34, WIDE = 940, MOST_NODES = 16 };

typedef struct sheet {
    FILE *out;
    const dls_mesh *m;
    const dls_cluster *c;
    int world, nodes, columns;  /* of panels side by side */
    int panel_width, panel_height;
} sheet;

static sheet lay_out(const dls_mesh *m, const dls_cluster *c)
{
    sheet s = {.m = m, .c = c, .world = dls_mesh_world(m)};
    s.nodes = (s.world + c->gpus_per_node - 1) / c->gpus_per_node;
    s.nodes = s.nodes < MOST_NODES ? s.nodes : MOST_NODES;
    int used = s.world < c->gpus_per_node ? s.world : c->gpus_per_node;
    s.panel_width = (used < 4 ? 4 : used) * CELL + GAP;
    s.panel_height = s.nodes * ROW + TOP + GAP;
    s.columns = WIDE / s.panel_width > 0 ? WIDE / s.panel_width : 1;
    return s;
}

/* colour the groups */
enum { COLOURS = 8 };

static void write_colours(const sheet *s, const char *theme, const char *const *fill,
                          const char *text)
{
    fprintf(s->out, "%s.mesh text{fill:%s}", theme, text);
    for (int i = 0; i < COLOURS; i++)
        fprintf(s->out, "%s.mesh .g%d{fill:%s}", theme, i, fill[i]);
}

static void write_styles(const sheet *s)
{
    static const char *const light[] = {"#cfe1f5", "#f9dcc4", "#d3ecd0", "#f3d1dc",
                                        "#e2d7f2", "#fbeeb5", "#cdecee", "#e0e0e0"};
    static const char *const dark[] = {"#1d3a5f", "#5c3a1c", "#24492a", "#5a2337",
                                       "#40305f", "#554a10", "#1b4a4d", "#444444"};
    fputs("<style>.mesh text{font-family:Inter,'DejaVu Sans',Helvetica,sans-serif;"
          "font-size:12px;text-anchor:middle}.mesh .title{text-anchor:start;"
          "font-weight:600}.mesh rect{stroke:#8a94a3}", s->out);
    write_colours(s, "", light, "#1f2933");
    fputs("@media (prefers-color-scheme:dark){", s->out);
    write_colours(s, "", dark, "#e3e9f0");
    fputs("}", s->out);
    write_colours(s, "[data-theme=dark] ", dark, "#e3e9f0");
    write_colours(s, "[data-theme=light] ", light, "#1f2933");
    fputs("</style>\n", s->out);
}

/* draw a panel */
static int group_number(const dls_mesh *m, int rank, unsigned axes)
{
    int number = 0, least = 0;
    while (!dls_mesh_together(m, rank, least, axes))
        least++;
    for (int r = 0, first; r < least; r++) {
        for (first = 0; !dls_mesh_together(m, r, first, axes);)
            first++;
        number += first == r;
    }
    return number;
}

static void draw_panel(const sheet *s, int number, dls_axis axis)
{
    int x0 = GAP / 2 + number % s->columns * s->panel_width;
    int y0 = number / s->columns * s->panel_height, n = s->c->gpus_per_node;
    int size = dls_mesh_size(s->m, axis);
    fprintf(s->out, "<text class=\"title\" x=\"%d\" y=\"%d\">%s: %d groups of %d"
            "</text>\n", x0, y0 + 22, dls_axis_name(axis), s->world / size, size);
    for (int r = 0; r < s->world && r / n < s->nodes; r++) {
        int x = x0 + r % n * CELL, y = y0 + TOP + r / n * ROW;
        fprintf(s->out, "<rect class=\"g%d\" x=\"%d\" y=\"%d\" width=\"%d\" "
                "height=\"%d\"/><text x=\"%d\" y=\"%d\">%d</text>\n",
                group_number(s->m, r, DLS_BIT(axis)) % COLOURS, x, y, CELL - 2, ROW - 4,
                x + CELL / 2 - 1, y + 15, r);
    }
}

/* draw the mesh */
static void draw(const sheet *s)
{
    int shown[DLS_AXES_ALL], n = 0;
    for (int a = 0; a < DLS_AXES_ALL; a++)
        if (dls_mesh_size(s->m, (dls_axis)a) > 1
            && (a < DLS_AXES || s->m->ep * s->m->etp > 1))
            shown[n++] = a;
    int rows = (n + s->columns - 1) / s->columns, height = rows * s->panel_height + 8;
    int width = GAP + (n < s->columns ? n : s->columns) * s->panel_width;
    fprintf(s->out, "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"mesh\" "
            "viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">"
            "<title>%d ranks in groups</title>\n", width, height, width, height,
            s->world);
    write_styles(s);
    for (int i = 0; i < n; i++)
        draw_panel(s, i, (dls_axis)shown[i]);
    fputs("</svg>\n", s->out);
}

dls_status dls_mesh_draw(const dls_mesh *m, const dls_cluster *c, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    sheet s = lay_out(m, c);
    s.out = open_memstream(&text, &size);
    if (!s.out)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory to draw a mesh", path);
    draw(&s);
    dls_status status = fclose(s.out) == 0 ? dls_file_write(path, text, size)
        : DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory to draw a mesh", path);
    free(text);
    return status;
}
