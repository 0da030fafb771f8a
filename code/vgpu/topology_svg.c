/* code/vgpu/topology_svg.c: from chapters/A-virtual-gpu-clusters.md. Edit the chapter, or edit here and run "make untangle". */
/* Drawing a cluster as SVG: a column for each GPU, a row for each kind of thing.
 *
 *   fabric      NVSwitch, or arcs
 *   GPU         [0] [1] [2] [3]
 *   switch       [---]   [---]
 *   card        [ ] [ ] [ ] [ ]
 *   CPU          [-----------]
 *   leaf, spine
 */
#include "vgpu/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

/* lay out the cluster */
enum { WIDTH = 960, MARGIN = 20, GPU_Y = 120, BOX = 24, ROW = 58 };

typedef struct sheet {
    FILE *out;
    const dls_cluster *c;
    int nodes;            // that are drawn
    double column;        // width of a GPU's column
    int switches, cards, cpus, leaves, spine, height; // y of the rows; 0: no such row
} sheet;

/* The middle of GPUs [first, last) of a node. */
static double middle(const sheet *s, int node, int first, int last)
{
    int n = s->c->gpus_per_node;
    last = last < n ? last : n;
    return MARGIN + s->column * (node * (n + 0.4) + (first + last) / 2.0);
}

static int next_row(int *y)
{
    *y += ROW;
    return *y;
}

static sheet lay_out(const dls_cluster *c)
{
    sheet s = {.c = c, .nodes = c->nodes};
    int y = GPU_Y, n = c->gpus_per_node;
    while (s.nodes > 2 && s.nodes * n > 16)
        s.nodes--;
    s.column = (WIDTH - 2 * MARGIN) / (s.nodes * (n + 0.4) - 0.4);
    s.switches = c->pcie.beta > 0 ? next_row(&y) : 0;
    s.cards = c->inter.beta > 0 ? next_row(&y) : 0;
    s.cpus = c->pcie.beta > 0 ? next_row(&y) : 0;
    s.leaves = c->nodes > 1 ? next_row(&y) : 0;
    s.spine = c->nodes_per_leaf < c->nodes || c->rails ? next_row(&y) : 0;
    s.height = y + 84;
    return s;
}

/* draw boxes and lines */
static void line(const sheet *s, const char *link, double x, double y, double to_x,
                 double to_y)
{
    fprintf(s->out, "<path class=\"%s\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", link, x, y, to_x,
            to_y);
}

static void box(const sheet *s, const char *kind, double x, double y, double width,
                const char *text)
{
    fprintf(s->out, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
            "height=\"%d\" rx=\"3\"/><text text-anchor=\"middle\" x=\"%.1f\" "
            "y=\"%.1f\">%s</text>\n", kind, x - width / 2, y, width, BOX, x, y + 16,
            text);
}

static void numbered(const sheet *s, const char *kind, double x, double y, double width,
                     const char *name, int number)
{
    char text[32];
    if (width < 46)
        name = "";
    snprintf(text, sizeof text, "%s%s%d", name, *name ? " " : "", number);
    box(s, kind, x, y, width, text);
}

/* draw the fabric of a node */
static void arc(const sheet *s, double a, double b)
{
    double top = GPU_Y - 18 - 0.16 * (b - a);
    fprintf(s->out, "<path class=\"nvlink\" d=\"M%.1f %dC%.1f %.1f %.1f %.1f %.1f %d\"/>",
            a, GPU_Y, a, top, b, top, b, GPU_Y);
}

static void draw_fabric(const sheet *s, int node)
{
    const dls_cluster *c = s->c;
    int n = c->gpus_per_node;
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++) {
            int beside = j == i + 1 || (i == 0 && j == n - 1);
            if (c->shape == DLS_SHAPE_MESH || (c->shape == DLS_SHAPE_RING && beside) ||
                (c->shape == DLS_SHAPE_PAIRS && i / 2 == j / 2))
                arc(s, middle(s, node, i, i + 1), middle(s, node, j, j + 1));
        }
    if (c->shape != DLS_SHAPE_SWITCH)
        return;
    for (int i = 0; i < n; i++)
        line(s, "nvlink", middle(s, node, i, i + 1), GPU_Y, middle(s, node, i, i + 1),
             GPU_Y - 50);
    box(s, "chip", middle(s, node, 0, n), GPU_Y - 50 - BOX, s->column * n * 0.94,
        "NVSwitch");
}

/* draw the tree of a node */
static void draw_tree(const sheet *s, int node)
{
    const dls_cluster *c = s->c;
    int n = c->gpus_per_node, per = c->gpus_per_switch;
    int socket = per * c->switches_per_socket;
    double width = s->column * 0.8;
    for (int g = 0; g < n; g++)
        line(s, "pcie", middle(s, node, g, g + 1), GPU_Y, middle(s, node, g / per * per,
             g / per * per + per), s->switches);
    for (int g = 0; g < n; g += per)
        line(s, "pcie", middle(s, node, g, g + per), s->switches,
             middle(s, node, g / socket * socket, g / socket * socket + socket), s->cpus);
    for (int g = socket; g < n; g += socket)
        line(s, "socket", middle(s, node, g - socket, g), s->cpus + BOX / 2,
             middle(s, node, g, g + socket), s->cpus + BOX / 2);
    for (int g = 0; g < n; g += per)
        numbered(s, "chip", middle(s, node, g, g + per), s->switches, width * 1.2,
                 "switch", g / per);
    for (int g = 0; g < n; g += socket)
        numbered(s, "chip", middle(s, node, g, g + socket), s->cpus, width * 1.6, "CPU",
                 g / socket);
}

/* draw the network */
static double leaf_x(const sheet *s, int node, int card)
{
    const dls_cluster *c = s->c;
    int per = c->gpus_per_nic, cards = (c->gpus_per_node + per - 1) / per;
    int first = node / c->nodes_per_leaf * c->nodes_per_leaf;
    int last = first + c->nodes_per_leaf;
    last = last < s->nodes ? last : s->nodes;
    double from = middle(s, first, 0, 1), to = middle(s, last - 1, c->gpus_per_node - 1,
                                                      c->gpus_per_node);
    return c->rails ? from + (to - from) * (card + 0.5) / cards : (from + to) / 2;
}

static void draw_cards(const sheet *s, int node)
{
    const dls_cluster *c = s->c;
    int n = c->gpus_per_node, per = c->gpus_per_nic;
    int above = s->switches ? s->switches + BOX : GPU_Y + BOX;
    for (int g = 0; g < n; g++)
        line(s, "network", middle(s, node, g, g + 1), above,
             middle(s, node, g / per * per, g / per * per + per), s->cards);
    for (int g = 0; g < n && s->leaves; g += per)
        line(s, "network", middle(s, node, g, g + per), s->cards,
             leaf_x(s, node, g / per), s->leaves);
    for (int g = 0; g < n; g += per)
        numbered(s, "chip", middle(s, node, g, g + per), s->cards, s->column * 0.7,
                 "card", g / per);
}

static void draw_leaves(const sheet *s)
{
    const dls_cluster *c = s->c;
    int per = c->gpus_per_nic, cards = (c->gpus_per_node + per - 1) / per;
    int rails = c->rails ? cards : 1, number = 0;
    for (int node = 0; s->spine && node < s->nodes; node += c->nodes_per_leaf)
        for (int card = 0; card < rails; card++)
            line(s, "network", leaf_x(s, node, card), s->leaves, WIDTH / 2.0, s->spine);
    for (int node = 0; s->leaves && node < s->nodes; node += c->nodes_per_leaf)
        for (int card = 0; card < rails; card++)
            numbered(s, "chip", leaf_x(s, node, card), s->leaves, 90, "leaf", number++);
    if (s->spine)
        box(s, "chip", WIDTH / 2.0, s->spine, 400, "spine");
}

/* draw a cluster */
static void draw_legend(const sheet *s)
{
    const dls_cluster *c = s->c;
    const struct { const char *kind, *name; dls_link_spec link; } links[] = {
        {"nvlink", "NVLink", c->intra}, {"pcie", "PCI Express", c->pcie},
        {"socket", "between CPUs", c->socket}, {"network", "network", c->inter},
    };
    double x = MARGIN, y = s->height - 18;
    char text[96];
    for (int i = 0; i < 4; i++) {
        if (links[i].link.beta == 0)
            continue;
        line(s, links[i].kind, x, y - 4, x + 22, y - 4);
        snprintf(text, sizeof text, "%s: %.3g GB/s, %.3g µs", links[i].name,
                 1e-9 / links[i].link.beta, links[i].link.alpha * 1e6);
        fprintf(s->out, "<text x=\"%.0f\" y=\"%.0f\">%s</text>\n", x + 28, y, text);
        x += 56 + 6.3 * (double)strlen(text);
    }
    if (s->nodes < c->nodes)
        fprintf(s->out, "<text text-anchor=\"end\" x=\"%d\" y=\"20\">%d of %d nodes"
                "</text>\n", WIDTH - MARGIN, s->nodes, c->nodes);
}

static void draw_styles(const sheet *s)
{
    fputs("<style>.shape text{font-family:Inter,'DejaVu Sans',Helvetica,sans-serif;"
          "font-size:12px;fill:#1f2933}.shape path{fill:none;stroke-width:1.6}"
          ".shape .ground{fill:#ffffff;stroke:#d5dae1}.shape .gpu{fill:#dbe7f3;"
          "stroke:#35699f}.shape .chip{fill:#f4f6f8;stroke:#5f6b7a}"
          ".shape .nvlink{stroke:#35699f}.shape .pcie{stroke:#8a6a12}"
          ".shape .socket{stroke:#6a5a8c;stroke-width:3}"
          ".shape .network{stroke:#b9482f}\n", s->out);
    const char *const dark[] = {"@media (prefers-color-scheme: dark){", "",
                                "}", "[data-theme=dark] "};
    for (int i = 0; i < 4; i += 2)
        fprintf(s->out, "%s%s.shape text{fill:#e3e9f0}%s.shape .ground{fill:#161b22;"
                "stroke:#36404c}%s.shape .gpu{fill:#1d3450}%s.shape .chip{fill:#1c232c;"
                "stroke:#9aa7b5}%s", i ? "" : dark[0], dark[i + 1], dark[i + 1],
                dark[i + 1], dark[i + 1], i ? "" : "}\n");
    fputs("[data-theme=light] .shape text{fill:#1f2933}[data-theme=light] .shape .ground"
          "{fill:#ffffff;stroke:#d5dae1}[data-theme=light] .shape .gpu{fill:#dbe7f3}"
          "[data-theme=light] .shape .chip{fill:#f4f6f8;stroke:#5f6b7a}</style>\n",
          s->out);
}

static void draw_node(const sheet *s, int node)
{
    const dls_cluster *c = s->c;
    if (s->switches)
        draw_tree(s, node);
    if (s->cards)
        draw_cards(s, node);
    draw_fabric(s, node);
    for (int g = 0; g < c->gpus_per_node; g++)
        numbered(s, "gpu", middle(s, node, g, g + 1), GPU_Y, s->column * 0.8, "GPU",
                 node * c->gpus_per_node + g);
}

dls_status dls_cluster_draw(const dls_cluster *c, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    sheet s = lay_out(c);
    s.out = open_memstream(&text, &size);
    if (s.out == NULL)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory to draw the cluster", path);
    fprintf(s.out, "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"shape\" "
            "viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">"
            "<title>%s</title>\n", WIDTH, s.height, WIDTH, s.height, c->name);
    draw_styles(&s);
    fprintf(s.out, "<rect class=\"ground\" x=\"0.5\" y=\"0.5\" width=\"%d\" "
            "height=\"%d\" rx=\"6\"/><text x=\"%d\" y=\"20\">%s: %s</text>\n", WIDTH - 1,
            s.height - 1, MARGIN, c->name, c->device.name);
    for (int node = 0; node < s.nodes; node++)
        draw_node(&s, node);
    draw_leaves(&s);
    draw_legend(&s);
    fputs("</svg>\n", s.out);
    int failed = fclose(s.out) != 0;
    dls_status status = failed ? DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", path)
                               : dls_file_write(path, text, size);
    free(text);
    return status;
}
