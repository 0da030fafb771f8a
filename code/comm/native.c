/* code/comm/native.c: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* NCCL behind the communicator's calls, where the build has found it. */
#include "comm/native.h"

#include <stdlib.h>
#include <string.h>

int dls_native_is_wanted(void)
{
    const char *wish = getenv("DLS_COMM");
    return wish && strcmp(wish, "nccl") == 0;
}

#ifndef DLS_WITH_NCCL
/* do without nccl */
dls_status dls_native_open(dls_comm *comm, dls_native **out)
{
    (void)comm;
    *out = NULL;
    return DLS_FAIL(DLS_ERR_INPUT, "DLS_COMM=nccl: this program was built without NCCL; "
                    "expected local, mpi or tcp");
}

void dls_native_close(dls_native *native) { (void)native; }

dls_status dls_native_run(dls_native *native, const dls_native_call *call,
                          cudaStream_t stream, int *taken)
{
    (void)native, (void)call, (void)stream;
    *taken = 0;
    return DLS_OK;
}
#else
#include <nccl.h>

/* open nccl */
struct dls_native { ncclComm_t comm; };

static dls_status check(ncclResult_t result, const char *what)
{
    if (result == ncclSuccess)
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_COMM, "NCCL: %s: %s", what, ncclGetErrorString(result));
}

dls_status dls_native_open(dls_comm *comm, dls_native **out)
{
    int n = dls_comm_size(comm), rank = dls_comm_rank(comm);
    ncclUniqueId mine, *all = calloc((size_t)n, sizeof *all);
    dls_native *native = calloc(1, sizeof *native);
    dls_status status = DLS_OK;
    memset(&mine, 0, sizeof mine);
    if (!all || !native)
        DLS_TRY_GOTO(status, DLS_FAIL(DLS_ERR_MEMORY, "no memory for NCCL"), done);
    if (rank == 0)
        DLS_TRY_GOTO(status, check(ncclGetUniqueId(&mine), "ncclGetUniqueId"), done);
    DLS_TRY_GOTO(status, dls_comm_all_gather_host(comm, &mine, sizeof mine, all), done);
    DLS_TRY_GOTO(status, check(ncclCommInitRank(&native->comm, n, all[0], rank),
                               "ncclCommInitRank"), done);
    *out = native;
done:
    if (status != DLS_OK)
        free(native);
    free(all);
    return status;
}

void dls_native_close(dls_native *native)
{
    if (native)
        ncclCommDestroy(native->comm);
    free(native);
}

/* translate types and reductions */
static ncclDataType_t type_of(int dtype)
{
    switch (dtype) {
    case DLS_F32: return ncclFloat32;
    case DLS_F64: return ncclFloat64;
    case DLS_BF16: return ncclBfloat16;
    case DLS_COMM_F16: return ncclFloat16;
    case DLS_COMM_I32: return ncclInt32;
    case DLS_COMM_I64: return ncclInt64;
    default: return ncclUint8;
    }
}

static ncclRedOp_t reduction_of(dls_reduce reduce)
{
    switch (reduce) {
    case DLS_AVG: return ncclAvg;
    case DLS_MIN: return ncclMin;
    case DLS_MAX: return ncclMax;
    case DLS_PROD: return ncclProd;
    default: return ncclSum;
    }
}

/* hand over a collective */
dls_status dls_native_run(dls_native *native, const dls_native_call *c,
                          cudaStream_t stream, int *taken)
{
    ncclDataType_t type = type_of(c->dtype);
    ncclRedOp_t op = reduction_of(c->reduce);
    ncclComm_t comm = native->comm;
    *taken = 1;
    switch (c->kind) {
    case DLS_MESSAGE_ALL_REDUCE:
        return check(ncclAllReduce(c->in, c->out, c->count, type, op, comm, stream),
                     "ncclAllReduce");
    case DLS_MESSAGE_REDUCE_SCATTER:
        return check(ncclReduceScatter(c->in, c->out, c->count, type, op, comm, stream),
                     "ncclReduceScatter");
    case DLS_MESSAGE_ALL_GATHER:
        return check(ncclAllGather(c->in, c->out, c->count, type, comm, stream),
                     "ncclAllGather");
    case DLS_MESSAGE_BROADCAST:
        return check(ncclBroadcast(c->in, c->out, c->count, type, c->root, comm, stream),
                     "ncclBroadcast");
    case DLS_MESSAGE_REDUCE:
        return check(ncclReduce(c->in, c->out, c->count, type, op, c->root, comm, stream),
                     "ncclReduce");
    default:
        *taken = 0;
        return DLS_OK;
    }
}
#endif
