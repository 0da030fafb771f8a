/* code/layers/dispatch_nodes_rows.c: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows to the experts over nodes, and sums of them back. */
#include "layers/dispatch_nodes_internal.h"

#include "comm/comm.h"
#include "kernels/permute.h"
#include "kernels/rows.h"
#include "layers/dispatch_internal.h"

/* begin a way */
dls_status dls_node_way_begin(dls_node_way *way, const dls_pass *p,
                              const dls_node_dispatch *d, const void *at, int columns,
                              dls_dtype dtype)
{
    *way = (dls_node_way){.pass = p, .routes = dls_node_dispatch_routes(p, d),
                          .ctx = *p->ctx, .columns = columns, .at = at};
    way->ctx.stream = p->axes->stream;
    way->ctx.dtype = dtype;
    for (int i = 0; i < 2; i++)
        way->buffer[i] = dls_pass_stash(p, d->buffer[i]);
    DLS_CUDA(cudaEventRecord(p->axes->ready, p->ctx->stream));
    DLS_CUDA(cudaStreamWaitEvent(p->axes->stream, p->axes->ready, 0));
    return DLS_OK;
}

static char *free_buffer(const dls_node_way *way)
{
    return way->buffer[way->at == way->buffer[0]];
}

/* exchange a leg */
static void amounts(const int *rows, int n, int columns, size_t *count, size_t *offset)
{
    size_t at = 0;
    for (int i = 0; i < n; i++, at += count[i - 1]) {
        count[i] = (size_t)rows[i] * columns;
        offset[i] = at;
    }
}

// The copies of a leg to those who take them; back: to those who gave them.
static dls_status exchange(dls_node_way *way, int l, int back, void *out)
{
    const dls_leg *leg = &way->routes->leg[l];
    dls_comm *comm = l == 0 ? way->pass->axes->across : way->pass->axes->node;
    int n = leg->ranges;
    size_t go[n], go_at[n], come[n], come_at[n];
    char *to = out ? out : free_buffer(way);
    amounts(back ? leg->come : leg->go, n, way->columns, go, go_at);
    amounts(back ? leg->go : leg->come, n, way->columns, come, come_at);
    if (n > 1 || out)
        DLS_TRY(dls_comm_all_to_all_v(comm, way->at, go, go_at, to, come, come_at,
                                      way->ctx.dtype, way->ctx.stream));
    way->at = n > 1 || out ? to : way->at;
    return DLS_OK;
}

/* go and come back */
dls_status dls_node_way_go(dls_node_way *way, int l, void *out)
{
    char *copies = free_buffer(way);
    DLS_TRY(dls_rows_gather(&way->ctx, copies, way->at, way->routes->list[l],
                            way->routes->leg[l].copies, way->columns));
    way->at = copies;
    return exchange(way, l, 0, out);
}

dls_status dls_node_way_back(dls_node_way *way, int l, void *out)
{
    const dls_leg *leg = &way->routes->leg[l];
    DLS_TRY(exchange(way, l, 1, NULL));
    char *sums = out ? out : free_buffer(way);
    DLS_TRY(dls_unpermute(&way->ctx, sums, NULL, way->at, NULL, way->routes->place[l],
                          leg->rows, leg->width, way->columns));
    way->at = sums;
    return DLS_OK;
}

/* dispatch over the nodes */
dls_status dls_node_dispatch_rows(const dls_pass *p, const dls_node_dispatch *d,
                                  void *landed, const void *rows, int columns,
                                  dls_dtype dtype)
{
    dls_node_way way;
    DLS_TRY(dls_node_way_begin(&way, p, d, rows, columns, dtype));
    DLS_TRY(dls_node_way_go(&way, 0, NULL));
    DLS_TRY(dls_node_way_go(&way, 1, landed));
    return dls_dispatch_moved(p);
}

dls_status dls_node_combine_rows(const dls_pass *p, const dls_node_dispatch *d, void *rows,
                                 const void *landed, int columns, dls_dtype dtype)
{
    dls_node_way way;
    DLS_TRY(dls_node_way_begin(&way, p, d, landed, columns, dtype));
    DLS_TRY(dls_node_way_back(&way, 1, NULL));
    DLS_TRY(dls_node_way_back(&way, 0, rows));
    return dls_dispatch_moved(p);
}
