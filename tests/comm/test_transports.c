/* tests/comm/test_transports.c: from chapters/04-data-parallelism-transports-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Collectives over shared memory, its shortcut, and sockets. */
#include "exact.h"
#include "failure.h"

#include <math.h>

#include "comm/comm_private.h"
#include "comm/heap.h"

/* run the checks over each transport */
typedef struct setting {
    const char *comm;
    int private_buffers;
    char url[80];
} setting;

static dls_status check_exactly(int rank, void *arg)
{
    const setting *s = arg;
    dls_gpu_options options = {.cluster_file = "dgx-h100"};
    exact e = {.private_buffers = s->private_buffers};
    (void)rank;
    if (s->comm) {
        setenv("DLS_COMM", s->comm, 1);
        setenv("DLS_RENDEZVOUS", s->url, 1);
    }
    DLS_TRY(dls_gpu_init(&options));
    DLS_TRY(dls_comm_create(&e.comm, NULL));
    DLS_TRY(exact_everything(&e));
    dls_comm_destroy(e.comm);
    return DLS_OK;
}

static void run_checks(int n, const char *comm, int private_buffers)
{
    setting s = {.comm = comm, .private_buffers = private_buffers};
    snprintf(s.url, sizeof s.url, "file:///tmp/dls-meet-%d-%d", (int)getpid(), n);
    expect_ranks(n, check_exactly, &s);
}

Test(comm, transports_of_any_launcher_are_exact)
{
    for (int n = 1; n <= 4; n++)
        run_checks(n, NULL, 0);
}

Test(comm, transports_shared_memory_is_exact)
{
    run_checks(3, "local", 0);
    run_checks(4, "local", 0);
}

Test(comm, transports_private_buffers_are_exact) { run_checks(3, "local", 1); }

Test(comm, transports_sockets_are_exact)
{
    run_checks(2, "tcp", 0);
    run_checks(5, "tcp", 0);
}

/* compare the shortcut with the long way */
enum { LONG = 50021 };

/* One all-reduce of numbers that round; its bits, and what it cost. */
static dls_status reduce_once(exact *e, int dtype, dls_reduce op, double *cost,
                              unsigned char *bits)
{
    size_t bytes = LONG * dls_comm_type_size(dtype);
    unsigned char *b = exact_buffer(e, bytes);
    for (size_t i = 0; i < LONG; i++) {
        double v = sin((double)(i + 1) * (e->rank + 1)) + 1.5;
        if (dtype == DLS_F32)
            ((float *)b)[i] = (float)v;
        else if (dtype == DLS_F64)
            ((double *)b)[i] = v;
        else
            ((uint16_t *)b)[i] = (uint16_t)(0x3f80 + (i * 37 + (size_t)e->rank) % 97);
    }
    dls_comm_statistics before = dls_comm_stats(e->comm);
    DLS_TRY(dls_comm_all_reduce(e->comm, b, LONG, dtype, op, e->stream));
    DLS_CUDA(cudaStreamSynchronize(e->stream));
    dls_comm_statistics after = dls_comm_stats(e->comm);
    cost[0] = (double)(after.steps - before.steps);
    cost[1] = (double)(after.wire_bytes - before.wire_bytes);
    memcpy(bits, b, bytes);
    exact_release(e, b);
    return DLS_OK;
}

static dls_status compare_ways(int rank, void *arg)
{
    static unsigned char bits[3][LONG * 8];
    static const int types[] = {DLS_F32, DLS_F64, DLS_BF16};
    dls_gpu_options options = {.cluster_file = "dgx-h100"};
    dls_comm_options wanted = {.algorithm = arg};
    exact e = {.rank = rank};
    double cost[3][2]; // steps, wire bytes
    DLS_TRY(dls_gpu_init(&options));
    DLS_TRY(dls_comm_create(&e.comm, &wanted));
    DLS_CUDA(cudaStreamCreate(&e.stream));
    for (int t = 0; t < 3; t++)
        for (int op = DLS_SUM; op <= DLS_PROD; op++) {
            for (int way = 0; way < 3; way++) {
                e.comm->all->shortcuts = way != 1;
                e.private_buffers = way == 2;
                DLS_TRY(reduce_once(&e, types[t], (dls_reduce)op, cost[way], bits[way]));
            }
            for (int way = 0; way < 3; way += 2)
                EXPECT(!memcmp(bits[way], bits[1], LONG * dls_comm_type_size(types[t])) &&
                           cost[way][0] == cost[1][0] && cost[way][1] == cost[1][1],
                       "%s, type %d, op %d, way %d: %g steps, %g bytes; not %g, %g",
                       (char *)arg, t, op, way, cost[way][0], cost[way][1],
                       cost[1][0], cost[1][1]);
        }
    dls_comm_destroy(e.comm);
    return DLS_OK;
}

Test(comm, transports_shortcut_has_the_bits_and_costs_of_the_long_way)
{
    static const char *const wanted[] = {"all_reduce:ring", "all_reduce:direct",
                                         "all_reduce:doubling", "all_reduce:halving"};
    for (int i = 0; i < 4; i++)
        for (int n = 3; n <= 4; n++)
            expect_ranks(n, compare_ways, (void *)wanted[i]);
}

/* test the heap */
static dls_status share_memory(int rank, void *arg)
{
    dls_gpu_options options = {.cluster_file = "dgx-h100"};
    dls_comm *comm;
    void *block[5], *whole;
    uint64_t first, offset, offsets[2];
    (void)arg;
    DLS_TRY(dls_gpu_init(&options));
    DLS_TRY(dls_comm_create(&comm, NULL));
    EXPECT(dls_heap_is_used(), "no heap");
    for (int i = 0; i < 5; i++)
        DLS_CUDA(dls_gpu_alloc_shared(&block[i], 100000));
    EXPECT(dls_heap_find(block[0], 100000, &first), "not in the heap");
    static const int order[] = {1, 3, 0, 4, 2};
    for (int i = 0; i < 5; i++)
        cudaFree(block[order[i]]);
    DLS_CUDA(dls_gpu_alloc_shared(&whole, 500000));
    EXPECT(dls_heap_find(whole, 500000, &offset) && offset == first,
           "ranges were not joined: %zu, %zu", (size_t)offset, (size_t)first);
    EXPECT(!dls_heap_find(&comm, 1, &offset), "the stack is not in the heap");
    *(int *)whole = 40 + rank;
    DLS_TRY(dls_comm_all_gather_host(comm, &first, sizeof first, offsets));
    dls_local local;
    DLS_TRY(dls_local_attach(atoi(getenv("DLS_ARENA_FD")), rank, 2, &local));
    int *theirs = dls_heap_at(&local, 1 - rank, offsets[1 - rank]);
    EXPECT(theirs && *theirs == 41 - rank, "the peer's memory is not what it wrote");
    DLS_TRY(dls_comm_barrier(comm));
    dls_local_detach(&local);
    dls_comm_destroy(comm);
    cudaFree(whole); // after the communicator: the heap is still there
    return DLS_OK;
}

Test(comm, transports_heap_joins_what_is_free_and_shows_it_to_others)
{
    expect_ranks(2, share_memory, NULL);
}

/* test a lost rank over sockets */
static dls_status lose_a_rank(int rank, void *arg)
{
    const setting *s = arg;
    dls_gpu_options options = {.cluster_file = "dgx-h100"};
    dls_comm *comm;
    setenv("DLS_COMM", "tcp", 1);
    setenv("DLS_RENDEZVOUS", s->url, 1);
    DLS_TRY(dls_gpu_init(&options));
    DLS_TRY(dls_comm_create(&comm, NULL));
    DLS_TRY(dls_comm_barrier(comm));
    if (rank == 1)
        _exit(7);
    dls_status status = dls_comm_barrier(comm);
    EXPECT(status != DLS_OK, "the barrier was passed without rank 1");
    return DLS_FAIL(DLS_ERR_COMM, "%s", dls_status_message());
}

static dls_status two_of_one_rank(int rank, void *arg)
{
    const setting *s = arg;
    dls_gpu_options options = {.cluster_file = "dgx-h100"};
    dls_comm *comm;
    setenv("DLS_COMM", "tcp", 1);
    setenv("DLS_RENDEZVOUS", s->url, 1);
    setenv("DLS_RANK", rank == 2 ? "1" : rank == 1 ? "1" : "0", 1);
    DLS_TRY(dls_gpu_init(&options));
    return dls_comm_create(&comm, NULL);
}

Test(comm, transports_sockets_report_a_lost_rank)
{
    setting s = {.comm = "tcp"};
    snprintf(s.url, sizeof s.url, "file:///tmp/dls-meet-%d", (int)getpid());
    const char *const words[] = {"rank 1", NULL};
    expect_failure(3, lose_a_rank, &s, words);
}

Test(comm, transports_sockets_refuse_two_ranks_of_one_number)
{
    setting s = {.comm = "tcp"};
    snprintf(s.url, sizeof s.url, "file:///tmp/dls-meet-%d", (int)getpid());
    const char *const words[] = {"two processes are rank 1 of 3", NULL};
    expect_failure(3, two_of_one_rank, &s, words);
}
