/* code/comm/collectives.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* The collectives as calls of the engine. */
#include "comm/collectives.h"

#include <stdio.h>
#include <string.h>

#include "comm/choose.h"
#include "comm/comm_private.h"
#include "comm/imagined.h"
#include "comm/native.h"

/* check a call */
typedef struct call {
    dls_message_kind kind;
    const void *in;
    void *out;
    size_t count, in_count, out_count; // of the operation; of the buffers
    int dtype, root;                   // root -1: none
    dls_reduce reduce;
    const size_t *amounts[4];          // of an all-to-all-v, see dls_shape
    const char *file;
    int line;
} call;

static dls_status check(const dls_comm *comm, const call *c)
{
    if (dls_comm_type_size(c->dtype) == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "element type %d: expected f32, f64, bf16, f16, "
                        "i32, i64 or u8", c->dtype);
    if ((!c->in && c->in_count) || (!c->out && c->out_count))
        return DLS_FAIL(DLS_ERR_INPUT, "a buffer of %zu elements is NULL",
                        c->in ? c->out_count : c->in_count);
    if (c->root >= comm->world || c->root < -1)
        return DLS_FAIL(DLS_ERR_INPUT, "root %d: there are %d ranks", c->root,
                        comm->world);
    return DLS_OK;
}

/* prepare an operation */
static void describe(dls_comm_op *op, const call *c)
{
    dls_comm *comm = op->comm;
    op->element = dls_comm_type_size(c->dtype);
    op->reduce = c->reduce;
    op->place[DLS_IN] = (unsigned char *)c->in;
    op->place[DLS_OUT] = c->out;
    op->shape = (dls_shape){.rank = comm->rank, .world = comm->world, .root = c->root,
                            .per_node = comm->per_node, .count = c->count, .block = 1};
    op->ours = (dls_message){.magic = 0x6d736731, .kind = (uint8_t)c->kind,
                             .dtype = (uint8_t)c->dtype, .reduce = (uint8_t)c->reduce,
                             .root = c->root >= 0 ? comm->member[c->root] : -1,
                             .count = c->count,
                             .number = comm->collectives};
    dls_message_site(op->ours.site, sizeof op->ours.site, c->file, c->line);
    for (int i = 0; i < 4 && c->amounts[0]; i++)
        memcpy(op->amounts + i * comm->world, c->amounts[i],
               (size_t)comm->world * sizeof(size_t));
    op->shape.amounts = op->amounts;
    op->shape.varies = c->amounts[0] != NULL;
}

static dls_status prepare(dls_comm_op *op, cudaStream_t stream)
{
    DLS_TRY(dls_comm_choose(op->comm, op->ours.kind, &op->shape, op->element,
                            &op->algorithm));
    op->ours.algorithm = (uint8_t)(op->algorithm - dls_algorithms);
    size_t scratch = op->algorithm->scratch ? op->algorithm->scratch(&op->shape) : 0;
    if (!op->comm->all)
        dls_imagined_need(op->comm, scratch * op->element);
    if (scratch == 0 || !op->comm->all)
        return DLS_OK;
    op->scratch = dls_comm_scratch_take(op->comm, scratch * op->element, stream);
    if (op->scratch < 0)
        return DLS_ERR_MEMORY;
    op->place[DLS_SCRATCH] = op->comm->scratch[op->scratch].memory;
    return DLS_OK;
}

/* enqueue a collective */
static dls_status alone(const call *c, cudaStream_t stream)
{
    size_t bytes = c->out_count * dls_comm_type_size(c->dtype);
    if (c->in != c->out && bytes)
        DLS_CUDA(cudaMemcpyAsync(c->out, c->in, bytes, cudaMemcpyDeviceToDevice, stream));
    return DLS_OK;
}

static dls_status collective(dls_comm *comm, const call *as_called, cudaStream_t stream)
{
    call changed = *as_called, *c = &changed;
    if (dls_fault_err(dls_note_next(), &changed.count, &changed.dtype))
        return DLS_OK;                  // a fault was ordered (@sec:dp-fault-injection)
    DLS_TRY(check(comm, c));
    if (comm->group)
        return DLS_FAIL(DLS_ERR_STATE, "%s:%d: a collective inside a group of messages",
                        c->file, c->line);
    int taken = 0;
    if (comm->native)
        DLS_TRY(dls_native_run(comm->native, &(dls_native_call){
            c->kind, c->in, c->out, c->count, c->dtype, c->root, c->reduce}, stream,
            &taken));
    if (taken)
        return DLS_OK;
    if (comm->world == 1)
        return alone(c, stream);
    dls_comm_op *op = dls_engine_new(comm);
    if (!op)
        return DLS_ERR_MEMORY;
    describe(op, c);
    dls_status status = prepare(op, stream);
    if (status != DLS_OK) {
        dls_engine_drop(op);
        return status;
    }
    comm->collectives++;
    return dls_engine_enqueue(op, stream, c->file, c->line);
}

/* call each collective */
#define AT .file = file, .line = line

dls_status dls_comm_all_reduce_at(dls_comm *comm, void *buf, size_t count, int dtype,
                                  dls_reduce op, cudaStream_t stream, const char *file,
                                  int line)
{
    call c = {DLS_MESSAGE_ALL_REDUCE, buf, buf, count, count, count, dtype, -1, op, AT};
    return collective(comm, &c, stream);
}

dls_status dls_comm_reduce_scatter_at(dls_comm *comm, const void *in, void *out,
                                      size_t count, int dtype, dls_reduce op,
                                      cudaStream_t stream, const char *file, int line)
{
    call c = {DLS_MESSAGE_REDUCE_SCATTER, in, out, count, count * (size_t)comm->world,
              count, dtype, -1, op, AT};
    return collective(comm, &c, stream);
}

dls_status dls_comm_all_gather_at(dls_comm *comm, const void *in, void *out, size_t count,
                                  int dtype, cudaStream_t stream, const char *file,
                                  int line)
{
    call c = {DLS_MESSAGE_ALL_GATHER, in, out, count, count, count * (size_t)comm->world,
              dtype, -1, DLS_SUM, AT};
    return collective(comm, &c, stream);
}

static int or_nobody(int root) { return root < 0 ? -2 : root; }

dls_status dls_comm_broadcast_at(dls_comm *comm, void *buf, size_t count, int dtype,
                                 int root, cudaStream_t stream, const char *file,
                                 int line)
{
    call c = {DLS_MESSAGE_BROADCAST, buf, buf, count, count, count, dtype,
              or_nobody(root), DLS_SUM, AT};
    return collective(comm, &c, stream);
}

dls_status dls_comm_reduce_at(dls_comm *comm, void *buf, size_t count, int dtype,
                              dls_reduce op, int root, cudaStream_t stream,
                              const char *file, int line)
{
    call c = {DLS_MESSAGE_REDUCE, buf, buf, count, count, count, dtype, or_nobody(root),
              op, AT};
    return collective(comm, &c, stream);
}

dls_status dls_comm_gather_at(dls_comm *comm, const void *in, void *out, size_t count,
                              int dtype, int root, cudaStream_t stream, const char *file,
                              int line)
{
    size_t all = root == comm->rank ? count * (size_t)comm->world : 0;
    call c = {DLS_MESSAGE_GATHER, in, out, count, count, all, dtype, or_nobody(root),
              DLS_SUM, AT};
    return collective(comm, &c, stream);
}

dls_status dls_comm_scatter_at(dls_comm *comm, const void *in, void *out, size_t count,
                               int dtype, int root, cudaStream_t stream, const char *file,
                               int line)
{
    size_t all = root == comm->rank ? count * (size_t)comm->world : 0;
    call c = {DLS_MESSAGE_SCATTER, in, out, count, all, count, dtype, or_nobody(root),
              DLS_SUM, AT};
    return collective(comm, &c, stream);
}

dls_status dls_comm_all_to_all_at(dls_comm *comm, const void *in, void *out, size_t count,
                                  int dtype, cudaStream_t stream, const char *file,
                                  int line)
{
    size_t all = count * (size_t)comm->world;
    call c = {DLS_MESSAGE_ALL_TO_ALL, in, out, count, all, all, dtype, -1, DLS_SUM, AT};
    if (in == out && all && comm->world > 1)
        return DLS_FAIL(DLS_ERR_INPUT, "an all-to-all cannot be in place");
    return collective(comm, &c, stream);
}

dls_status dls_comm_all_to_all_v_at(dls_comm *comm, const void *in,
                                    const size_t *in_counts, const size_t *in_offsets,
                                    void *out, const size_t *out_counts,
                                    const size_t *out_offsets, int dtype,
                                    cudaStream_t stream, const char *file, int line)
{
    size_t size = dls_comm_type_size(dtype), sent = 0, received = 0;
    for (int r = 0; r < comm->world; r++) {
        sent += in_counts[r];
        received += out_counts[r];
    }
    call c = {DLS_MESSAGE_ALL_TO_ALL_V, in, out, 0, sent, received, dtype, -1, DLS_SUM,
              {in_counts, in_offsets, out_counts, out_offsets}, AT};
    if (in == out && sent && received && comm->world > 1)
        return DLS_FAIL(DLS_ERR_INPUT, "an all-to-all cannot be in place");
    if (comm->world == 1 && in_counts[0] != out_counts[0])
        return DLS_FAIL(DLS_ERR_INPUT, "rank 0 sends itself %zu elements and expects %zu",
                        in_counts[0], out_counts[0]);
    /* move to the own block */
    if (comm->world == 1) {
        c.in = (const char *)in + in_offsets[0] * size;
        c.out = (char *)out + out_offsets[0] * size;
    }
    return collective(comm, &c, stream);
}
