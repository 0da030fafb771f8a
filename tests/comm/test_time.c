/* tests/comm/test_time.c: from chapters/04-data-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Virtual times, steps and bytes of the collectives against the formulas. */
#include "world.h"

#include "comm/algorithms.h"

static const double START = 0.010; // s

/* compute until a given time */
static double until;

static int compute_run(void *arg, double start, double *finish)
{
    (void)start;
    *finish = *(double *)arg;
    return 0;
}

/* Occupies the stream up to the virtual time t. */
static dls_status compute_until(cudaStream_t stream, double t)
{
    dls_gpu_op op = {.name = "computation", .kind = DLS_GPU_COMPUTE, .run = compute_run};
    until = t;
    DLS_CUDA(dls_gpu_enqueue(stream, &op, &until));
    return DLS_OK;
}

static int close_to(double a, double b)
{
    return fabs(a - b) <= 1e-12 * fabs(b) + 1e-15;
}

/* For tests of these two, whatever would be cheapest. */
static void by_ring_and_chain(void)
{
    setenv("DLS_ALGORITHM", "all_reduce:ring,broadcast:chain", 1);
}

/* simulate the clock of an operation */
typedef struct clock { double t, departure[64]; int k, begun, sends, receives; } clock;

/* Rank r's next step, if what it needs has departed. 1: it made the step. */
static int tick(dls_steps *algorithm, dls_shape shape, size_t element, clock *all,
                int r)
{
    clock *c = &all[r];
    int left = (r + shape.world - 1) % shape.world;
    double alpha, beta, arrival = 0;
    dls_step s;
    shape.rank = r;
    if (!algorithm(&shape, c->k, &s))
        return 0;
    if (s.sends && !c->begun)
        c->departure[c->sends++] = c->t;
    c->begun = 1;
    if (s.receives && all[left].sends <= c->receives)
        return 0;
    dls_cluster_link(dls_gpu_cluster(), r, (r + 1) % shape.world, &alpha, &beta);
    double free = c->t + beta * (double)((s.sends ? s.send[0].count : 0) * element);
    dls_cluster_link(dls_gpu_cluster(), left, r, &alpha, &beta);
    if (s.receives)
        arrival = all[left].departure[c->receives++] + alpha +
                  beta * (double)(s.receive[0].count * element);
    c->t = free > arrival ? free : arrival;
    c->begun = 0;
    c->k++;
    return 1;
}


/* t[r]: when rank r finishes, if all start at 0. */
static void simulate(dls_steps *algorithm, dls_shape shape, size_t element, double *t)
{
    static clock all[16];
    memset(all, 0, sizeof all);
    for (int moved = 1; moved;) {
        moved = 0;
        for (int r = 0; r < shape.world; r++)
            moved |= tick(algorithm, shape, element, all, r);
    }
    for (int r = 0; r < shape.world; r++)
        t[r] = all[r].t;
}

/* compare an all reduce with its formula */
static dls_status check_ring(dls_comm *comm, float *buf, size_t count,
                             cudaStream_t stream)
{
    int n = dls_comm_size(comm), rank = dls_comm_rank(comm);
    dls_comm_statistics a = dls_comm_stats(comm), all[16];
    DLS_TRY(dls_comm_all_reduce(comm, buf, count, DLS_F32, DLS_SUM, stream));
    DLS_CUDA(cudaStreamSynchronize(stream));
    dls_comm_statistics b = dls_comm_stats(comm);
    double took = b.busy_seconds - a.busy_seconds, t[16], alpha, beta;
    size_t first, last, sum = 0;
    dls_shape shape = {.world = n, .count = count};
    simulate(dls_ring_all_reduce, shape, 4, t);
    EXPECT(close_to(took, t[rank]), "%zu took %g s, simulated %g", count, took, t[rank]);
    EXPECT(b.steps - a.steps == 2u * (unsigned)(n - 1), "steps");
    dls_part(count, n, (rank + 2) % n, &first, &last);
    dls_cluster_link(dls_gpu_cluster(), 0, 1, &alpha, &beta);
    double formula = 2 * (n - 1) * (alpha + beta * 4 * (double)last);
    EXPECT(dls_gpu_cluster()->nodes > 1 || close_to(took, formula),
           "%zu floats took %.15g s, the formula says %.15g", count, took, formula);
    b.wire_bytes -= a.wire_bytes;
    EXPECT(count % (size_t)n || b.wire_bytes == 8 * (count / (size_t)n) * (size_t)(n - 1),
           "%llu bytes", (unsigned long long)b.wire_bytes);
    DLS_TRY(dls_comm_all_gather_host(comm, &b, sizeof b, all));
    for (int r = 0; r < n; r++)
        sum += all[r].wire_bytes;
    EXPECT(sum == 8 * count * (size_t)(n - 1), "%zu bytes by all ranks", sum);
    return DLS_OK;
}

/* test the times of the ring */
static dls_status ring_times(int rank, void *arg)
{
    (void)rank;
    const size_t counts[] = {0, 1, 5, 2520, 2521, 25200, 1000003};
    dls_comm *comm;
    cudaStream_t stream;
    float *buf;
    DLS_TRY(test_world(((world *)arg)->cluster, &comm));
    DLS_CUDA(cudaStreamCreate(&stream));
    DLS_TRY(test_buffer(&buf, 1000003 * sizeof *buf));
    memset(buf, 0, 1000003 * sizeof *buf);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        DLS_TRY(compute_until(stream, START * (double)(i + 1)));
        DLS_TRY(check_ring(comm, buf, counts[i], stream));
    }
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, ring_takes_the_time_of_the_formula, .init = by_ring_and_chain)
{
    world w = {0, test_cluster(1, 16)};
    for (w.n = 2; w.n <= 9; w.n++)
        expect_ranks(w.n, ring_times, &w);
    unlink(w.cluster);
}

Test(comm, ring_over_two_nodes_takes_the_simulated_time, .init = by_ring_and_chain)
{
    world w = {4, test_cluster(2, 2)};
    expect_ranks(w.n, ring_times, &w);
    unlink(w.cluster);
}

typedef struct shaped { const char *cluster; double even, odd, empty; } shaped; // us

static dls_status shaped_ring(int rank, void *arg)
{
    const shaped *s = arg;
    double busy[2];
    dls_comm *comm;
    float *buf;
    DLS_TRY(test_world(s->cluster, &comm));
    DLS_TRY(test_buffer(&buf, 1000000 * sizeof *buf));
    memset(buf, 0, 1000000 * sizeof *buf);
    for (int i = 0; i < 2; i++) {
        DLS_TRY(compute_until(0, START * (i + 1)));
        double before = dls_comm_stats(comm).busy_seconds;
        DLS_TRY(dls_comm_all_reduce(comm, buf, i ? 1000000 : 0, DLS_F32, DLS_SUM, 0));
        DLS_CUDA(cudaDeviceSynchronize());
        busy[i] = 1e6 * (dls_comm_stats(comm).busy_seconds - before);
    }
    double want = rank % 2 ? s->odd : s->even;
    EXPECT(fabs(busy[0] - s->empty) < 1e-6, "empty: %.9g us", busy[0]);
    EXPECT(fabs(busy[1] - want) < 1e-6, "%.9g us instead of %.9g", busy[1], want);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, the_shape_of_a_node_changes_the_time_of_a_ring, .init = by_ring_and_chain)
{
    const double fast = 1e3 / 234.9, slow = 1e3 / 21.76, mesh = 1e3 / 78.3; // us per part
    shaped shapes[] = {
        {"dgx-a100", 6 * (3.4 + fast), 6 * (3.4 + fast), 6 * 3.4},
        {"hgx-a100-4", 6 * (3.4 + mesh), 6 * (3.4 + mesh), 6 * 3.4},
        {"a100-pcie-pairs", 6 * slow + 14.25, 6 * slow, 3 * 14.25 + 3 * 3.4},
    };
    for (int i = 0; i < 3; i++)
        expect_ranks(4, shaped_ring, &shapes[i]);
}

/* test the times of the chain */
enum { BLOCK = 128 << 10, BLOCKS = 5 };

static dls_status chain_times(int rank, void *arg)
{
    world *w = arg;
    int n = w->n;
    dls_comm *comm;
    char *buf;
    double t[16], seconds = TEST_BETA * BLOCK;
    DLS_TRY(test_world(w->cluster, &comm));
    DLS_TRY(test_buffer(&buf, BLOCKS * BLOCK));
    memset(buf, 0, BLOCKS * BLOCK);
    DLS_TRY(compute_until(0, START));
    DLS_TRY(dls_comm_broadcast(comm, buf, BLOCKS * BLOCK / 4, DLS_F32, 0, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    dls_comm_statistics s = dls_comm_stats(comm);
    dls_shape shape = {.world = n, .count = BLOCKS * BLOCK / 4, .block = BLOCK / 4};
    simulate(dls_chain_broadcast, shape, 4, t);
    EXPECT(close_to(s.busy_seconds, t[rank]), "%.12g s, simulated %.12g", s.busy_seconds,
           t[rank]);
    double formula = (n - 1) * TEST_ALPHA + (n + BLOCKS - 2) * seconds;
    EXPECT(rank < n - 1 || close_to(s.busy_seconds, formula), "%.12g s, formula %.12g",
           s.busy_seconds, formula);
    EXPECT(s.wire_bytes == (rank < n - 1 ? BLOCKS * BLOCK : 0), "bytes");
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, broadcast_takes_the_time_of_the_formula, .init = by_ring_and_chain)
{
    world w = {0, test_cluster(1, 16)};
    for (w.n = 2; w.n <= 9; w.n++)
        expect_ranks(w.n, chain_times, &w);
    unlink(w.cluster);
}

/* test that a late rank delays everybody */
static dls_status late_rank(int rank, void *arg)
{
    world *w = arg;
    dls_comm *comm;
    float *buf;
    const double late = 50e-6;
    DLS_TRY(test_world(w->cluster, &comm));
    DLS_TRY(test_buffer(&buf, 8000 * sizeof *buf));
    memset(buf, 0, 8000 * sizeof *buf);
    DLS_TRY(compute_until(0, START + (rank == 1 ? late : 0)));
    DLS_TRY(dls_comm_all_reduce(comm, buf, 8000, DLS_F32, DLS_MAX, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    int steps = 2 * (w->n - 1), hops = (rank + w->n - 1) % w->n;
    while (hops + w->n <= steps)
        hops += w->n;
    double formula = late + hops * TEST_ALPHA + steps * TEST_BETA * 32000 / w->n;
    double took = dls_comm_stats(comm).busy_seconds + (rank == 1 ? late : 0);
    EXPECT(close_to(took, formula), "%.12g s instead of %.12g", took, formula);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, a_late_rank_delays_everybody, .init = by_ring_and_chain)
{
    world w = {4, test_cluster(1, 16)};
    expect_ranks(w.n, late_rank, &w);
    unlink(w.cluster);
}

/* test that seeds do not change times */
static dls_status two_streams(int rank, void *arg)
{
    world *w = arg;
    dls_comm *comm;
    cudaStream_t streams[2];
    float *buf;
    (void)rank;
    DLS_TRY(test_world(w->cluster, &comm));
    DLS_TRY(test_buffer(&buf, 18000 * sizeof *buf));
    memset(buf, 0, 18000 * sizeof *buf);
    for (int i = 0; i < 2; i++) {
        DLS_CUDA(cudaStreamCreate(&streams[i]));
        DLS_TRY(compute_until(streams[i], START));
        DLS_TRY(dls_comm_all_reduce(comm, buf + i * 9000, 9000, DLS_F32, DLS_SUM,
                                    streams[i]));
    }
    DLS_CUDA(cudaDeviceSynchronize());
    double one = 4 * (TEST_ALPHA + TEST_BETA * 12000);
    EXPECT(close_to(dls_gpu_host_time(), START + 2 * one), "%.12g s",
           dls_gpu_host_time());
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, two_streams_share_one_wire, .init = by_ring_and_chain)
{
    world w = {3, test_cluster(1, 16)};
    expect_ranks(w.n, two_streams, &w);
    unlink(w.cluster);
}

static dls_status busy_streams(int rank, void *arg)
{
    double mine, all[3];
    dls_comm *comm;
    cudaStream_t streams[3];
    float *buf;
    setenv("DLS_SEED", arg, 1);
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(test_buffer(&buf, 30000 * sizeof *buf));
    memset(buf, 0, 30000 * sizeof *buf);
    for (int i = 0; i < 3; i++)
        DLS_CUDA(cudaStreamCreateWithFlags(&streams[i], cudaStreamNonBlocking));
    for (int i = 0; i < 30; i++)
        DLS_TRY(dls_comm_all_reduce(comm, buf + i * 1000, (size_t)(i * 33), DLS_F32,
                                    DLS_SUM, streams[i % 3]));
    DLS_TRY(dls_comm_barrier(comm));
    DLS_CUDA(cudaDeviceSynchronize());
    mine = dls_gpu_host_time();
    DLS_TRY(dls_comm_all_gather_host(comm, &mine, sizeof mine, all));
    FILE *f = fopen(getenv("DLS_TEST_TIMES"), "a");
    EXPECT(f, "cannot append the times");
    if (rank == 0)
        fprintf(f, "%.17g %.17g %.17g\n", all[0], all[1], all[2]);
    fclose(f);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, virtual_times_do_not_depend_on_the_seed)
{
    char path[] = "/tmp/dls-times-XXXXXX", first[128] = "", line[128], seed[8];
    close(mkstemp(path));
    setenv("DLS_TEST_TIMES", path, 1);
    for (int i = 1; i <= 5; i++) {
        snprintf(seed, sizeof seed, "%d", i);
        expect_ranks(3, busy_streams, seed);
    }
    FILE *f = fopen(path, "r");
    int lines = 0;
    for (; fgets(line, sizeof line, f); lines++)
        if (lines == 0)
            strcpy(first, line);
        else
            cr_assert_str_eq(line, first, "seed %d", lines + 1);
    cr_assert_eq(lines, 5);
    fclose(f);
    unlink(path);
}
