/* code/layers/dispatch_nodes_rows.c: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows to the experts over nodes, and sums of them back. */
#include "layers/dispatch_nodes_internal.h"

#include "comm/comm.h"
#include "kernels/node_rows.h"
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
static dls_status exchange(dls_node_way *way, int l, int back)
{
    const dls_leg *leg = &way->routes->leg[l];
    dls_comm *comm = l == 0 ? way->pass->axes->across : way->pass->axes->node;
    int n = leg->ranges;
    size_t go[n], go_at[n], come[n], come_at[n];
    char *to = free_buffer(way);
    if (n == 1)
        return DLS_OK;
    amounts(back ? leg->come : leg->go, n, way->columns, go, go_at);
    amounts(back ? leg->go : leg->come, n, way->columns, come, come_at);
    DLS_TRY(dls_comm_all_to_all_v(comm, way->at, go, go_at, to, come, come_at,
                                  way->ctx.dtype, way->ctx.stream));
    way->at = to;
    return DLS_OK;
}

/* go and come back */
dls_status dls_node_way_go(dls_node_way *way, int l)
{
    char *copies = free_buffer(way);
    DLS_TRY(dls_rows_gather(&way->ctx, copies, way->at, way->routes->list[l],
                            way->routes->leg[l].copies, way->columns));
    way->at = copies;
    return exchange(way, l, 0);
}

dls_status dls_node_way_end(dls_node_way *way, void *out, const int *numbers, int n)
{
    DLS_TRY(dls_rows_gather(&way->ctx, out, way->at, numbers, n, way->columns));
    return dls_dispatch_moved(way->pass);
}

dls_status dls_node_way_back(dls_node_way *way, int l, void *out, const void *weight)
{
    const dls_leg *leg = &way->routes->leg[l];
    if (l < DLS_LEGS - 1)
        DLS_TRY(exchange(way, l, 1));
    char *sums = out ? out : free_buffer(way);
    DLS_TRY(dls_node_sum(&way->ctx, sums, way->at, way->routes->place[l], weight,
                         leg->rows, leg->width, way->columns));
    way->at = sums;
    return l > 0 ? DLS_OK : dls_dispatch_moved(way->pass);
}

/* dispatch over the nodes */
dls_status dls_node_dispatch_rows(const dls_pass *p, const dls_node_dispatch *d,
                                  void *arrived, const void *rows)
{
    dls_node_way way;
    DLS_TRY(dls_node_way_begin(&way, p, d, rows, d->columns, p->ctx->dtype));
    DLS_TRY(dls_node_way_go(&way, 0));
    DLS_TRY(dls_node_way_go(&way, 1));
    return dls_node_way_end(&way, arrived, way.routes->list[2],
                            way.routes->routes.arrived);
}

dls_status dls_node_combine_rows(const dls_pass *p, const dls_node_dispatch *d, void *rows,
                                 const void *arrived, const void *weight)
{
    dls_node_way way;
    DLS_TRY(dls_node_way_begin(&way, p, d, arrived, d->columns, p->ctx->dtype));
    DLS_TRY(dls_node_way_back(&way, 2, NULL, weight));
    DLS_TRY(dls_node_way_back(&way, 1, NULL, NULL));
    return dls_node_way_back(&way, 0, rows, NULL);
}

/* move weights over the nodes */
dls_status dls_node_dispatch_weights(const dls_pass *p, const dls_node_dispatch *d,
                                     void *arrived, const void *weight)
{
    dls_node_way way;
    DLS_TRY(dls_node_way_begin(&way, p, d, weight, d->grid.chosen,
                               dls_dtype_accumulator(p->ctx->dtype)));
    DLS_TRY(dls_node_way_go(&way, 0));
    DLS_TRY(dls_node_way_go(&way, 1));
    way.columns = 1;
    return dls_node_way_end(&way, arrived, way.routes->entry, way.routes->routes.arrived);
}

dls_status dls_node_combine_weights(const dls_pass *p, const dls_node_dispatch *d,
                                    void *weight, const void *arrived)
{
    dls_node_way way;
    DLS_TRY(dls_node_way_begin(&way, p, d, arrived, d->grid.chosen,
                               dls_dtype_accumulator(p->ctx->dtype)));
    int rows = way.routes->leg[2].rows;
    size_t bytes = (size_t)rows * way.columns * dls_dtype_size(way.ctx.dtype);
    if (bytes)
        DLS_CUDA(cudaMemsetAsync(way.buffer[0], 0, bytes, way.ctx.stream));
    DLS_TRY(dls_rows_scatter(&way.ctx, way.buffer[0], arrived, way.routes->entry,
                             way.routes->routes.arrived, 1));
    way.at = way.buffer[0];
    DLS_TRY(dls_node_way_back(&way, 1, NULL, NULL));
    return dls_node_way_back(&way, 0, weight, NULL);
}
