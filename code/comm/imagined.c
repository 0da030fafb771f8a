/* code/comm/imagined.c: from chapters/07-planner-record.md. Edit the chapter, or edit here and run "make untangle". */
/* Collectives without wires: two operations of the stream, as of a real one, of which the
 * second takes what the algorithm costs when all ranks begin together.
 */
#include "comm/imagined.h"

#include <math.h>
#include <string.h>

#include "comm/choose.h"
#include "comm/cost.h"
#include "comm/scratch.h"
#include "vgpu/record.h"

/* tell the cost of a collective */
static dls_status cost_of(dls_comm *comm, const dls_algorithm *a, const dls_shape *shape,
                          size_t element, double *seconds)
{
    dls_cost cost;
    DLS_TRY(dls_cost_of(a, shape, comm->links, element, NULL, &cost));
    *seconds = cost.seconds;
    return DLS_OK;
}

dls_status dls_comm_seconds(dls_comm *comm, const char *operation, size_t count,
                            int dtype, double *seconds)
{
    const dls_algorithm *algorithm;
    dls_shape shape;
    size_t element;
    *seconds = 0;
    DLS_TRY(dls_comm_choose_named(comm, operation, count, dtype, &shape, &element,
                                  &algorithm));
    return algorithm ? cost_of(comm, algorithm, &shape, element, seconds) : DLS_OK;
}

/* tell the cost in any group */
/* Of more ranks than an engine has: the ring and halving over the slowest link. */
static dls_status large_group(const int *member, int n, dls_message_kind kind,
                              double bytes, double *seconds)
{
    double alpha = 0, beta = 0, a, b, rounds = ceil(log2(n));
    for (int i = 0; i < n; i++) {
        DLS_TRY(dls_cluster_link(dls_gpu_cluster(), member[i], member[(i + 1) % n], &a,
                                 &b));
        alpha = a > alpha ? a : alpha;
        beta = b > beta ? b : beta;
    }
    double wire = beta * bytes * (n - 1) / n;
    double ring = (n - 1) * alpha + wire, halving = rounds * alpha + wire;
    *seconds = (n & (n - 1)) == 0 && halving < ring ? halving : ring;
    *seconds *= kind == DLS_MESSAGE_ALL_REDUCE ? 2 : 1;
    return DLS_OK;
}

static dls_status form(dls_comm **out, const int *member, int n)
{
    dls_world all = {.rank = member[0]};
    DLS_TRY(dls_comm_form(&all, member, n, 0, out));
    (*out)->all = NULL;
    return DLS_OK;
}

dls_status dls_imagined_seconds(const int *member, int n, const char *operation,
                                size_t count, int dtype, double *seconds)
{
    dls_message_kind kind = dls_operation_find(operation, strlen(operation));
    double each = kind == DLS_MESSAGE_ALL_REDUCE ? 1 : n;   // count is of a block
    dls_comm *comm;
    *seconds = 0;
    if (n > DLS_COMM_RANKS)
        return large_group(member, n, kind,
                           each * (double)count * (double)dls_comm_type_size(dtype),
                           seconds);
    DLS_TRY(form(&comm, member, n));
    dls_status s = dls_comm_seconds(comm, operation, count, dtype, seconds);
    dls_comm_destroy(comm);
    return s;
}

/* note the scratch memory */
/* One stream's calls share a piece, and an imagined communicator keeps its size alone. */
void dls_imagined_need(dls_comm *comm, size_t bytes)
{
    size_t piece = dls_comm_piece(bytes);
    comm->scratch[0].bytes = piece > comm->scratch[0].bytes ? piece
                                                            : comm->scratch[0].bytes;
}

size_t dls_imagined_scratch(const dls_comm *comm)
{
    return comm ? comm->scratch[0].bytes : 0;
}

dls_status dls_imagined_bytes(const int *member, int n, const char *operation,
                              size_t count, int dtype, size_t *bytes)
{
    dls_comm *comm;
    *bytes = 0;
    if (n > DLS_COMM_RANKS)
        return DLS_OK;          // the ring and halving in place take none
    DLS_TRY(form(&comm, member, n));
    dls_status s = dls_comm_scratch_bytes(comm, operation, count, dtype, bytes);
    dls_comm_destroy(comm);
    return s;
}

/* tell the cost of messages */
/* All ranks do the same at the same moment: what we receive left when ours did. */
static double messages_take(const dls_comm *c, const dls_step *step, size_t element)
{
    double departure[DLS_COMM_RANKS], arrival[DLS_COMM_RANKS], same[DLS_COMM_RANKS] = {0};
    double left = dls_departures(c->links, c->world, c->rank, step, element, 0,
                                 departure);
    double last = dls_arrivals(c->links, c->world, c->rank, step, element, 0, same,
                               arrival);
    return left > last ? left : last;
}

/* An all-to-all of sizes that only the callers know: as if all had this rank's. */
static double varying_take(const dls_comm_op *op)
{
    dls_step step;
    dls_direct_all_to_all(&op->shape, 0, &step);
    return messages_take(op->comm, &step, op->element);
}

/* enqueue what is imagined */
dls_status dls_imagined_enqueue(dls_comm_op *op, cudaStream_t stream, const char *file,
                                int line)
{
#ifdef DLS_BACKEND_cuda
    (void)stream;
    dls_engine_drop(op);
    return DLS_FAIL(DLS_ERR_STATE, "%s:%d: an imagined communicator was called", file,
                    line);
#else
    double seconds = 0;
    dls_status s = DLS_OK;
    if (op->shape.varies)
        seconds = varying_take(op);
    else if (op->algorithm)
        s = cost_of(op->comm, op->algorithm, &op->shape, op->element, &seconds);
    else
        seconds = messages_take(op->comm, &op->step, op->element);
    dls_gpu_op post = {.name = "post", .kind = DLS_GPU_HOST, .file = file, .line = line};
    dls_gpu_op exchange = {.name = dls_message_name(&op->ours, op->receives),
                           .kind = DLS_GPU_COMMUNICATION, .file = file, .line = line,
                           .bytes = (double)(op->shape.count * op->element)};
    dls_engine_drop(op);
    DLS_TRY(s);
    DLS_CUDA(dls_gpu_enqueue_for(stream, &post, NULL, 0));
    DLS_CUDA(dls_gpu_enqueue_for(stream, &exchange, NULL, seconds));
    return DLS_OK;
#endif
}
