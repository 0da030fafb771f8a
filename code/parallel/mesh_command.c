/* code/parallel/mesh_command.c: from chapters/07-mesh-command.md. Edit the chapter, or edit here and run "make untangle". */
/* dls mesh: a mesh as a grid, its groups with their links as a table or as JSON. */
#include "parallel/mesh_command.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/table.h"
#include "parallel/mesh_links.h"

/* list the sets of axes */
typedef struct axis_set { const char *name; unsigned axes; } axis_set;

static const axis_set sets[] = {
    {"tp", DLS_BIT(DLS_AXIS_TP)}, {"cp", DLS_BIT(DLS_AXIS_CP)},
    {"pp", DLS_BIT(DLS_AXIS_PP)}, {"dp", DLS_BIT(DLS_AXIS_DP)},
    {"dp*cp", DLS_AXES_DATA},
    {"etp", DLS_BIT(DLS_AXIS_ETP)}, {"ep", DLS_BIT(DLS_AXIS_EP)},
    {"edp", DLS_BIT(DLS_AXIS_EDP)}};

enum { DENSE_SETS = 5, SETS = sizeof sets / sizeof *sets };

static int is_shown(const dls_mesh *m, const axis_set *s)
{
    int size = dls_mesh_group_size(m, s->axes);
    if (s->axes == DLS_AXES_DATA)
        return m->size[DLS_AXIS_DP] > 1 && m->size[DLS_AXIS_CP] > 1;
    return size > 1;
}

/* write the members of groups */
static int is_even(const int *ranks, int n)
{
    for (int i = 2; i < n; i++)
        if (ranks[i] - ranks[i - 1] != ranks[1] - ranks[0])
            return 0;
    return 1;
}

static void write_group(const int *ranks, int n, FILE *out)
{
    int brief = n > 4 && is_even(ranks, n);
    fputc('{', out);
    for (int i = 0; i < n; i++) {
        if (brief && i == 2)
            fputs(",..", out);
        if (!brief || i < 2 || i == n - 1)
            fprintf(out, "%s%d", i ? "," : "", ranks[i]);
    }
    fputc('}', out);
}

enum { SHOWN_MEMBERS = 32 };    /* characters, before the rest is cut */

static int same_link(const dls_mesh_link *a, const dls_mesh_link *b)
{
    return a->kind == b->kind && a->nodes == b->nodes && a->alpha == b->alpha
        && a->beta == b->beta;
}

/* The groups whose link is links[rank], from rank's on; returns how many. */
static int write_groups(const dls_mesh *m, unsigned axes, int rank,
                        const dls_mesh_link *links, int *ranks, FILE *out)
{
    int world = dls_mesh_world(m), groups = 0, left = 0;
    for (int r = rank; r < world; r++) {
        int n = dls_mesh_group_ranks(m, r, axes, ranks);
        if (ranks[0] != r || !same_link(&links[r], &links[rank]))
            continue;
        if (ftell(out) > SHOWN_MEMBERS && ++left)
            groups++;
        else if (++groups) {
            fputs(groups > 1 ? " " : "", out);
            write_group(ranks, n, out);
        }
    }
    if (left)
        fprintf(out, " and %d more", left);
    return groups;
}

/* add the groups of an axis */
static int is_first(const dls_mesh *m, unsigned axes, int rank,
                    const dls_mesh_link *links)
{
    for (int r = 0; r < rank; r++)
        if (dls_mesh_together(m, r, rank, axes) || same_link(&links[r], &links[rank]))
            return 0;
    return 1;
}

static void add_cells(dls_table *t, const char *name, int size, int groups,
                      const char *members, const dls_mesh_link *link)
{
    dls_table_add_text(t, name);
    dls_table_add_int(t, size);
    dls_table_add_int(t, groups);
    dls_table_add_text(t, members);
    dls_table_add_int(t, link->nodes);
    dls_table_add_text(t, dls_mesh_link_name(link->kind));
    dls_table_add_real(t, link->alpha * 1e6);
    dls_table_add_real(t, 1e-9 / link->beta);
}

static dls_status add_line(const dls_mesh *m, const axis_set *s, int rank,
                           const dls_mesh_link *links, int *ranks, dls_table *t)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a list of groups");
    int groups = write_groups(m, s->axes, rank, links, ranks, out);
    if (fclose(out) == 0)
        add_cells(t, s->name, dls_mesh_group_size(m, s->axes), groups, text,
                  &links[rank]);
    free(text);
    return DLS_OK;
}

static dls_status add_set(const dls_mesh *m, const dls_cluster *c, const axis_set *s,
                          dls_table *t)
{
    int world = dls_mesh_world(m);
    dls_mesh_link *links = calloc((size_t)world, sizeof *links);
    int *ranks = calloc((size_t)world, sizeof *ranks);
    dls_status status = links && ranks ? dls_mesh_links(m, c, s->axes, links)
        : DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d ranks", world);
    for (int r = 0; status == DLS_OK && r < world; r++)
        if (is_first(m, s->axes, r, links))
            status = add_line(m, s, r, links, ranks, t);
    free(links);
    free(ranks);
    return status;
}

/* draw the grid */
enum { GRID_ROWS = 16, GRID_COLUMNS = 16 };

static void print_heads(const dls_mesh *m, int columns)
{
    const dls_axis *o = m->order;
    char head[32];
    for (int axis = 1; axis >= 0; axis--) {
        printf("%14s", "");
        for (int i = 0; i < columns; i++) {
            int at = axis ? i / m->size[o[0]] : i % m->size[o[0]];
            snprintf(head, sizeof head, "%s %d", dls_axis_name(o[axis]), at);
            printf(" %5s", axis && i % m->size[o[0]] ? "" : head);
        }
        printf("\n");
    }
}

static void print_row(const dls_mesh *m, int row, int columns, int across)
{
    const dls_axis *o = m->order;
    int near = m->size[o[2]];
    char far[16], close[16];
    snprintf(far, sizeof far, "%s %d", dls_axis_name(o[3]), row / near);
    snprintf(close, sizeof close, "%s %d", dls_axis_name(o[2]), row % near);
    printf("%6s %6s ", row % near ? "" : far, close);
    for (int i = 0; i < columns; i++)
        printf(" %5d", row * across + i);
    printf("%s\n", columns < across ? " ..." : "");
}


static void print_grid(const dls_mesh *m)
{
    int across = m->size[m->order[0]] * m->size[m->order[1]];
    int rows = dls_mesh_world(m) / across;
    int columns = across < GRID_COLUMNS ? across : GRID_COLUMNS;
    print_heads(m, columns);
    for (int row = 0; row < rows && row < GRID_ROWS; row++)
        print_row(m, row, columns, across);
    if (rows > GRID_ROWS)
        printf("%6s and %d rows more\n", "...", rows - GRID_ROWS);
}

/* print both meshes */
static dls_status print_sets(const dls_mesh *m, const dls_cluster *c, int from, int to)
{
    static const dls_column columns[] = {
        {"axis", NULL}, {"ranks", NULL}, {"groups", NULL}, {"who", NULL}, {"nodes", NULL},
        {"link", NULL}, {"alpha us", "%.3g"}, {"GB/s", "%.4g"}};
    dls_table *t;
    DLS_TRY(dls_table_create(&t, columns, 8));
    dls_status s = DLS_OK;
    for (int i = from; s == DLS_OK && i < to; i++)
        if (is_shown(m, &sets[i]))
            s = add_set(m, c, &sets[i], t);
    if (s == DLS_OK)
        s = dls_table_print(t, stdout, 0);
    dls_table_free(t);
    return s;
}

static dls_status print_mesh(const dls_mesh *m, const dls_cluster *c)
{
    int world = dls_mesh_world(m), used = (world - 1) / c->gpus_per_node + 1;
    printf("%d rank%s, nearest first:", world, world > 1 ? "s" : "");
    for (int i = 0; i < DLS_AXES; i++)
        printf("%s %s %d", i ? " *" : "", dls_axis_name(m->order[i]),
               m->size[m->order[i]]);
    printf("; %d node%s of %s, %d GPUs each\n\n", used, used > 1 ? "s" : "", c->name,
           c->gpus_per_node);
    print_grid(m);
    printf("\n");
    if (world > 1)
        DLS_TRY(print_sets(m, c, 0, DENSE_SETS));
    if (m->ep * m->etp == 1)
        return DLS_OK;
    printf("\nthe experts fold the %d ranks of a stage: etp %d * ep %d * edp %d\n\n",
           world / m->size[DLS_AXIS_PP], m->etp, m->ep, dls_mesh_size(m, DLS_AXIS_EDP));
    return print_sets(m, c, DENSE_SETS, SETS);
}

/* print a mesh as json */
static json_t *groups_of(const dls_mesh *m, const axis_set *s, const dls_mesh_link *links,
                         int *ranks, json_t *all)
{
    int world = dls_mesh_world(m);
    for (int r = 0; r < world; r++) {
        int n = dls_mesh_group_ranks(m, r, s->axes, ranks);
        if (ranks[0] != r)
            continue;
        json_t *who = json_array();
        for (int i = 0; i < n; i++)
            json_array_append_new(who, json_integer(ranks[i]));
        json_array_append_new(all, json_pack(
            "{s:s, s:o, s:i, s:s, s:f, s:f}", "axis", s->name, "ranks", who, "nodes",
            links[r].nodes, "link", dls_mesh_link_name(links[r].kind), "alpha_us",
            links[r].alpha * 1e6, "gb_s", 1e-9 / links[r].beta));
    }
    return all;
}

static json_t *coordinates_of(const dls_mesh *m)
{
    json_t *all = json_array();
    for (int r = 0; r < dls_mesh_world(m); r++) {
        json_t *one = json_pack("{s:i}", "rank", r);
        for (int a = 0; a < DLS_AXES_ALL; a++)
            json_object_set_new(one, dls_axis_name((dls_axis)a), json_integer(
                dls_mesh_coordinate(m, r, (dls_axis)a)));
        json_array_append_new(all, one);
    }
    return all;
}

static dls_status list_groups(const dls_mesh *m, const dls_cluster *c, json_t *all)
{
    size_t world = (size_t)dls_mesh_world(m);
    dls_mesh_link *links = calloc(world, sizeof *links);
    int *ranks = calloc(world, sizeof *ranks);
    dls_status s = links && ranks ? DLS_OK
        : DLS_FAIL(DLS_ERR_MEMORY, "no memory for %zu ranks", world);
    for (int i = 0; s == DLS_OK && i < SETS; i++) {
        if (!is_shown(m, &sets[i]))
            continue;
        s = dls_mesh_links(m, c, sets[i].axes, links);
        if (s == DLS_OK)
            groups_of(m, &sets[i], links, ranks, all);
    }
    free(links);
    free(ranks);
    return s;
}

static dls_status print_json(const dls_mesh *m, const dls_cluster *c)
{
    char order[DLS_ORDER_TEXT];
    json_t *groups = json_array();
    dls_status s = list_groups(m, c, groups);
    dls_mesh_order_text(m, order);
    json_t *all = json_pack("{s:i, s:s, s:o, s:o}", "world", dls_mesh_world(m), "order",
                            order, "ranks", coordinates_of(m), "groups", groups);
    if (s == DLS_OK && all && json_dumpf(all, stdout, JSON_INDENT(1)) == 0)
        printf("\n");
    json_decref(all);
    return s == DLS_OK && !all ? DLS_FAIL(DLS_ERR_MEMORY, "no memory for JSON") : s;
}

/* read a mesh from the options */
typedef struct request {
    int64_t size[DLS_AXES], ep, etp, world;
    const char *order, *cluster, *picture;
    int json;
} request;

static dls_status parse(request *q, int argc, char **argv, int *helped)
{
    const dls_arg args[] = {
        {"--dp", DLS_ARG_INT, &q->size[DLS_AXIS_DP], "N", "replicas of the model"},
        {"--pp", DLS_ARG_INT, &q->size[DLS_AXIS_PP], "N", "stages of a pipeline"},
        {"--tp", DLS_ARG_INT, &q->size[DLS_AXIS_TP], "N", "ranks that share each layer"},
        {"--cp", DLS_ARG_INT, &q->size[DLS_AXIS_CP], "N", "ranks that share a sequence"},
        {"--ep", DLS_ARG_INT, &q->ep, "N", "ranks that share the experts"},
        {"--etp", DLS_ARG_INT, &q->etp, "N", "ranks that share each expert"},
        {"--world", DLS_ARG_INT, &q->world, "N", "ranks, of which dp gets the rest"},
        {"--order", DLS_ARG_STRING, &q->order, "AXES", "nearest first: tp,cp,pp,dp"},
        {"--cluster", DLS_ARG_STRING, &q->cluster, "NAME", "a cluster, or its file"},
        {"--svg", DLS_ARG_STRING, &q->picture, "FILE", "draw the groups"},
        {"--json", DLS_ARG_FLAG, &q->json, NULL, "print JSON"},
    };
    const dls_args spec = {"dls mesh", "Prints who is with whom along each axis of "
                           "parallelism.", "dls mesh --dp 2 --pp 2 --tp 2 --cluster "
                           "dgx-h100", args, sizeof args / sizeof args[0]};
    return dls_args_parse(&spec, argc, argv, helped);
}

static int clamp(int64_t n)
{
    return n < -1 ? -1 : n > DLS_MESH_MOST + 1 ? DLS_MESH_MOST + 1 : (int)n;
}

static dls_status make_mesh(const request *q, dls_mesh *m)
{
    int64_t world = 1;
    *m = (dls_mesh){.ep = clamp(q->ep), .etp = clamp(q->etp)};
    for (int i = 0; i < DLS_AXES; i++) {
        m->size[i] = clamp(q->size[i]);
        world *= q->size[i] > 0 && q->size[i] <= DLS_MESH_MOST ? q->size[i] : 1;
        world = clamp(world);
    }
    if (q->order)
        DLS_TRY(dls_mesh_set_order(m, q->order));
    if (q->world < 0 || q->world > DLS_MESH_MOST || world > DLS_MESH_MOST)
        return DLS_FAIL(DLS_ERR_INPUT, "--world: expected 1 to %d ranks", DLS_MESH_MOST);
    return dls_mesh_fit(m, q->world ? (int)q->world : (int)world);
}

/* run the mesh command */
dls_status dls_mesh_command(int argc, char **argv, int *exit_code)
{
    (void)exit_code;
    request q = {0};
    dls_mesh m;
    dls_cluster c;
    int helped;
    DLS_TRY(parse(&q, argc, argv, &helped));
    if (helped)
        return DLS_OK;
    dls_cluster_default(&c);
    if (q.cluster)
        DLS_TRY(dls_cluster_load(q.cluster, &c));
    DLS_TRY(make_mesh(&q, &m));
    DLS_TRY(dls_mesh_enlarge(&c, dls_mesh_world(&m)));
    if (q.picture)
        DLS_TRY(dls_mesh_draw(&m, &c, q.picture));
    return q.json ? print_json(&m, &c) : print_mesh(&m, &c);
}
