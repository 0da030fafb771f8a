/* tests/comm/test_collectives.c: from chapters/04-data-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Values of the collectives, exact, for worlds of 1 to 9 ranks. */
#include "world.h"

static const size_t counts[] = {0, 1, 2, 3, 7, 8, 9, 13, 64, 127, 1009, 70001};
enum { COUNTS = sizeof counts / sizeof *counts, LARGEST = 70001 };

/* compute what an all reduce must give */
static int contribution(size_t i, int rank)
{
    return (int)((7 * i + 13 * (size_t)rank) % 40) - 20;
}

static int expected(size_t i, int n, dls_reduce op)
{
    int sum = 0, least = 1000, most = -1000;
    for (int r = 0; r < n; r++) {
        int c = contribution(i, r);
        sum += c;
        least = c < least ? c : least;
        most = c > most ? c : most;
    }
    return op == DLS_MIN ? least : op == DLS_MAX ? most : sum;
}

static void put(void *buf, int type, size_t i, int value)
{
    if (type == DLS_F32)
        ((float *)buf)[i] = (float)value;
    else if (type == DLS_F64)
        ((double *)buf)[i] = value;
    else
        ((int32_t *)buf)[i] = value;
}

static double get(const void *buf, int type, size_t i)
{
    return type == DLS_F32 ? ((const float *)buf)[i]
           : type == DLS_F64 ? ((const double *)buf)[i] : ((const int32_t *)buf)[i];
}

/* check one all reduce */
static dls_status check_all_reduce(dls_comm *comm, void *buf, size_t count, int type,
                                   dls_reduce op, cudaStream_t stream)
{
    int n = dls_comm_size(comm), rank = dls_comm_rank(comm);
    int scale = op == DLS_AVG ? n : 1;
    for (size_t i = 0; i < count; i++)
        put(buf, type, i, scale * contribution(i, rank));
    put(buf, type, count, 77);
    DLS_TRY(dls_comm_all_reduce(comm, buf, count, type, op, stream));
    DLS_CUDA(cudaStreamSynchronize(stream));
    for (size_t i = 0; i < count; i++)
        EXPECT(get(buf, type, i) == expected(i, n, op),
               "%s of %zu, reduction %d: element %zu is %g, not %d",
               dls_comm_type_name(type), count, op, i, get(buf, type, i),
               expected(i, n, op));
    EXPECT(get(buf, type, count) == 77, "count %zu: wrote behind the end", count);
    return DLS_OK;
}

/* check all reduces of a world */
static dls_status all_reduces(int rank, void *arg)
{
    (void)rank;
    const int types[] = {DLS_F32, DLS_F64, DLS_COMM_I32};
    dls_comm *comm;
    cudaStream_t stream;
    void *buf;
    DLS_TRY(test_world(((world *)arg)->cluster, &comm));
    DLS_CUDA(cudaStreamCreate(&stream));
    DLS_TRY(test_buffer(&buf, (LARGEST + 1) * sizeof(double)));
    for (int c = 0; c < COUNTS; c++)
        for (int t = 0; t < 3; t++)
            for (dls_reduce op = DLS_SUM; op <= DLS_MAX; op++)
                DLS_TRY(check_all_reduce(comm, buf, counts[c], types[t], op, stream));
    dls_comm_statistics s = dls_comm_stats(comm);
    EXPECT(s.operations == (dls_comm_size(comm) > 1 ? COUNTS * 12u : 0),
           "%llu operations", (unsigned long long)s.operations);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, all_reduce_is_exact_for_1_to_9_ranks)
{
    world w = {0, test_cluster(1, 16)};
    for (w.n = 1; w.n <= 9; w.n++)
        expect_ranks(w.n, all_reduces, &w);
    unlink(w.cluster);
}

/* check broadcasts of a world */
static dls_status broadcasts(int rank, void *arg)
{
    world *w = arg;
    dls_comm *comm;
    float *buf;
    DLS_TRY(test_world(w->cluster, &comm));
    DLS_TRY(test_buffer(&buf, (LARGEST + 1) * sizeof *buf));
    for (int c = 0; c < COUNTS; c++)
        for (int root = 0; root < w->n; root++) {
            for (size_t i = 0; i <= counts[c]; i++)
                buf[i] = (float)(rank == root ? (int)(i % 1000) + root : -1 - rank);
            DLS_TRY(dls_comm_broadcast(comm, buf, counts[c], DLS_F32, root, 0));
            DLS_CUDA(cudaStreamSynchronize(0));
            for (size_t i = 0; i < counts[c]; i++)
                EXPECT(buf[i] == (float)((int)(i % 1000) + root),
                       "root %d, element %zu of "
                       "%zu is %g", root, i, counts[c], buf[i]);
            EXPECT(rank == root || buf[counts[c]] == (float)(-1 - rank),
                   "behind the end");
        }
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, broadcast_is_exact_for_1_to_9_ranks)
{
    world w = {0, test_cluster(1, 16)};
    for (w.n = 1; w.n <= 9; w.n++)
        expect_ranks(w.n, broadcasts, &w);
    unlink(w.cluster);
}

/* check messages and host collectives */
enum { CROSS = 100003 }; // floats: 400 kB, more than a mailbox

static dls_status crosswise(int rank, void *arg)
{
    int n = *(int *)arg;
    dls_comm *comm;
    cudaStream_t out, in;
    float *mine, *theirs;
    DLS_TRY(test_world(NULL, &comm));
    DLS_CUDA(cudaStreamCreate(&out));
    DLS_CUDA(cudaStreamCreate(&in));
    DLS_TRY(test_buffer(&mine, CROSS * sizeof *mine));
    DLS_TRY(test_buffer(&theirs, (size_t)n * CROSS * sizeof *theirs));
    for (size_t i = 0; i < CROSS; i++)
        mine[i] = (float)(i % 997) + 1000.0f * (float)rank;
    for (int d = 1; d < n; d++) {
        int to = (rank + d) % n, from = (rank + n - d) % n;
        float *into = theirs + (size_t)from * CROSS;
        DLS_TRY(dls_comm_send(comm, mine, CROSS, DLS_F32, to, out));
        DLS_TRY(dls_comm_recv(comm, into, CROSS, DLS_F32, from, in));
    }
    DLS_TRY(dls_comm_barrier(comm)); // with everything still in flight
    DLS_CUDA(cudaDeviceSynchronize());
    for (int r = 0; r < n; r++)
        for (size_t i = 0; r != rank && i < CROSS; i++)
            EXPECT(theirs[(size_t)r * CROSS + i] == (float)(i % 997) + 1000.0f * (float)r,
                   "element %zu from rank %d", i, r);
    dls_comm_destroy(comm);
    return DLS_OK;
}

static dls_status host_gathers(int rank, void *arg)
{
    int n = *(int *)arg;
    static unsigned char mine[10000], all[4 * 10000];
    dls_comm *comm;
    DLS_TRY(test_world(NULL, &comm));
    for (size_t bytes = 0; bytes <= sizeof mine; bytes += 1 + bytes / 2) {
        for (size_t i = 0; i < bytes; i++)
            mine[i] = (unsigned char)(i * 3 + (size_t)rank + bytes);
        DLS_TRY(dls_comm_all_gather_host(comm, mine, bytes, all));
        for (int r = 0; r < n; r++)
            for (size_t i = 0; i < bytes; i++)
                EXPECT(all[(size_t)r * bytes + i] ==
                           (unsigned char)(i * 3 + (size_t)r + bytes),
                       "byte %zu of %zu from rank %d", i, bytes, r);
    }
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, messages_and_host_collectives_cross)
{
    for (int n = 1; n <= 4; n++) {
        expect_ranks(n, crosswise, &n);
        expect_ranks(n, host_gathers, &n);
    }
}
