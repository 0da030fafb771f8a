/* code/kernels/grouped.c: from chapters/08-mixture-of-experts-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Grouped products: the choice, cuBLAS per segment, and the tables of our own kernel. */
#include "kernels/grouped_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/suggest.h"
#include "tensor/gemm.h"

/* choose the grouped product */
static const char *const ways[] = {"cublas", "tiles"};

static dls_status wanted_way(int *tiles)
{
    const char *word = getenv("DLS_GROUPED");
    *tiles = 0;
    if (!word || !*word || strcmp(word, ways[0]) == 0)
        return DLS_OK;
    *tiles = 1;
    if (strcmp(word, ways[1]) == 0)
        return DLS_OK;
    /* refuse another way of groups */
    const char *near = dls_suggest(word, ways, 2);
    return DLS_FAIL(DLS_ERR_INPUT, "DLS_GROUPED: expected cublas or tiles, got \"%.40s\""
                    "%s%s%s", word, near ? "; did you mean " : "", near ? near : "",
                    near ? "?" : "");
}

/* multiply segment by segment */
static void *row_of(const dls_ctx *ctx, const void *base, int row, int width)
{
    return (char *)base + (size_t)row * width * dls_dtype_size(ctx->dtype);
}

static dls_status rows_by_cublas(dls_ctx *ctx, const dls_groups *g, int turned, void *y,
                                 const void *x, const void *const *weight)
{
    int N = turned ? g->out : g->in, K = turned ? g->in : g->out;
    for (int i = 0; i < g->segments; i++) {
        const dls_segment *s = &g->segment[i];
        DLS_TRY(dls_gemm(ctx, 0, turned, s->count, N, K, 1, row_of(ctx, x, s->begin, K),
                         weight[s->expert], 0, row_of(ctx, y, s->begin, N)));
    }
    return DLS_OK;
}

static dls_status weights_by_cublas(dls_ctx *ctx, const dls_groups *g,
                                    void *const *dweight, const double *keep,
                                    const void *dy, const void *x)
{
    char seen[g->experts];
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < g->segments; i++) {
        const dls_segment *s = &g->segment[i];
        if (s->count == 0)
            continue;
        /* add the product of a segment */
        DLS_TRY(dls_gemm_into(ctx, 1, 0, g->out, g->in, s->count, 1,
                              row_of(ctx, dy, s->begin, g->out),
                              row_of(ctx, x, s->begin, g->in),
                              seen[s->expert] ? 1 : keep[s->expert], dweight[s->expert],
                              dls_dtype_accumulator(ctx->dtype)));
        seen[s->expert] = 1;
    }
    return DLS_OK;
}

/* fill a table of segments */
static int tiles_in(int rows, int columns)
{
    const int T = DLS_GROUP_TILE;
    return (rows + T - 1) / T * ((columns + T - 1) / T);
}

static void add_segment(dls_group_table *t, const dls_segment *s)
{
    t->begin[t->segments] = s->begin;
    t->count[t->segments++] = s->count;
}

static void add_group(dls_group_table *t, int tiles, const void *weight, int keep)
{
    t->tiles[t->groups + 1] = t->tiles[t->groups] + tiles;
    t->from[t->groups + 1] = t->segments;
    t->weight[t->groups] = (void *)weight;
    t->keep[t->groups++] = keep;
}

static dls_status rows_by_tiles(dls_ctx *ctx, const dls_groups *g, dls_grouped_step step,
                                void *y, const void *x, const void *const *weight)
{
    int turned = step == DLS_GROUPED_FORWARD;
    int N = turned ? g->out : g->in, K = turned ? g->in : g->out;
    for (int i = 0; i < g->segments;) {
        dls_group_table t = {.groups = 0};
        for (; i < g->segments && t.groups < DLS_GROUPS; i++) {
            const dls_segment *s = &g->segment[i];
            if (s->count == 0)
                continue;
            add_segment(&t, s);
            add_group(&t, tiles_in(s->count, N), weight[s->expert], 0);
        }
        DLS_TRY(dls_grouped_tiles(ctx, step, &t, N, K, y, x));
    }
    return DLS_OK;
}

/* fill a table of experts */
static dls_status weights_by_tiles(dls_ctx *ctx, const dls_groups *g,
                                   void *const *dweight, const double *keep,
                                   const void *dy, const void *x)
{
    dls_group_table t = {.groups = 0};
    int tiles = tiles_in(g->out, g->in);
    for (int e = 0; e < g->experts; e++) {
        int kept = keep[e] != 0, before = t.segments;
        for (int i = 0; i < g->segments; i++) {
            if (g->segment[i].expert != e || g->segment[i].count == 0)
                continue;
            add_segment(&t, &g->segment[i]);
            if (t.segments < DLS_GROUPS)
                continue;
            /* launch a full table of experts */
            add_group(&t, tiles, dweight[e], kept);
            DLS_TRY(dls_grouped_tiles(ctx, DLS_GROUPED_WEIGHT, &t, g->out, g->in, dy, x));
            t = (dls_group_table){.groups = 0};
            kept = 1;
            before = 0;
        }
        if (t.segments > before)
            add_group(&t, tiles, dweight[e], kept);
    }
    return dls_grouped_tiles(ctx, DLS_GROUPED_WEIGHT, &t, g->out, g->in, dy, x);
}

/* multiply groups */
dls_status dls_grouped_forward(dls_ctx *ctx, const dls_groups *g, void *y, const void *x,
                               const void *const *weight)
{
    int tiles;
    DLS_TRY(wanted_way(&tiles));
    return tiles ? rows_by_tiles(ctx, g, DLS_GROUPED_FORWARD, y, x, weight)
                 : rows_by_cublas(ctx, g, 1, y, x, weight);
}

dls_status dls_grouped_backward_input(dls_ctx *ctx, const dls_groups *g, void *dx,
                                      const void *dy, const void *const *weight)
{
    int tiles;
    DLS_TRY(wanted_way(&tiles));
    return tiles ? rows_by_tiles(ctx, g, DLS_GROUPED_INPUT, dx, dy, weight)
                 : rows_by_cublas(ctx, g, 0, dx, dy, weight);
}

static dls_status clear_idle(dls_ctx *ctx, const dls_groups *g, void *const *dweight,
                             const double *keep)
{
    size_t bytes = (size_t)g->out * g->in
                   * dls_dtype_size(dls_dtype_accumulator(ctx->dtype));
    int rows[g->experts];
    memset(rows, 0, sizeof rows);
    for (int i = 0; i < g->segments; i++)
        rows[g->segment[i].expert] += g->segment[i].count;
    for (int e = 0; e < g->experts; e++)
        if (rows[e] == 0 && keep[e] == 0)
            DLS_CUDA(cudaMemsetAsync(dweight[e], 0, bytes, ctx->stream));
    return DLS_OK;
}

dls_status dls_grouped_backward_weight(dls_ctx *ctx, const dls_groups *g,
                                       void *const *dweight, const double *keep,
                                       const void *dy, const void *x)
{
    int tiles;
    DLS_TRY(wanted_way(&tiles));
    DLS_TRY(clear_idle(ctx, g, dweight, keep));
    return tiles ? weights_by_tiles(ctx, g, dweight, keep, dy, x)
                 : weights_by_cublas(ctx, g, dweight, keep, dy, x);
}
