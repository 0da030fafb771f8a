/* tests/comm/test_meeting.c: from chapters/04-data-parallelism-transports-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Small all-reduces by a meeting: the same as by messages, in everything; and what is
 * reported when not everybody comes. */
#include <math.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "comm/comm_private.h"
#include "failure.h"
#include "vgpu/trace.h"

/* note what an all reduce did */
enum { TYPES = 7, COUNTS = 4, CASES = TYPES * COUNTS * 5, MOST = 8 };

typedef struct outcome {
    dls_comm_statistics stats;
    double time; // of the host, virtual
    unsigned char bits[256];
} outcome;

typedef struct notes {
    const char *algorithm, *cluster;
    int by_messages;
    outcome of[2][MOST][CASES];
} notes;

static const int types[TYPES] = {DLS_F32, DLS_F64, DLS_BF16, DLS_COMM_F16, DLS_COMM_I32,
                                 DLS_COMM_I64, DLS_COMM_U8};

static void fill(void *buffer, int type, size_t count, int rank)
{
    for (size_t i = 0; i < count; i++) {
        double zero = rank % 2 ? -0.0 : 0.0;
        double v = i % 3 == 2 ? zero : sin((double)(i + 1) * (rank + 1)) + 1.5;
        uint16_t half = (uint16_t)((i * 37 + (size_t)rank * 11) % 97);
        switch (type) {
        case DLS_F32: ((float *)buffer)[i] = (float)v; break;
        case DLS_F64: ((double *)buffer)[i] = v; break;
        case DLS_BF16: ((uint16_t *)buffer)[i] = 0x3f80 + half; break;
        case DLS_COMM_F16: ((uint16_t *)buffer)[i] = 0x3c00 + half; break;
        case DLS_COMM_I32: ((int32_t *)buffer)[i] = (int32_t)(7 * v) - 9; break;
        case DLS_COMM_I64: ((int64_t *)buffer)[i] = (int64_t)(7 * v) - 9; break;
        default: ((uint8_t *)buffer)[i] = (uint8_t)(half % 3);
        }
    }
}

/* do all small all reduces */
static int spend(void *arg, double start, double *finish)
{
    *finish = start + *(double *)arg;
    return 0;
}

static dls_status reduce_one(int rank, int k, dls_comm *comm, void *buffer,
                             cudaStream_t stream)
{
    static double seconds[5] = {0, 3e-6, 6e-6, 9e-6, 12e-6};
    int type = types[k % TYPES], reduction = k / TYPES % 5;
    size_t size = dls_comm_type_size(type);
    size_t counts[COUNTS] = {0, 1, 5, 256 / size}, count = counts[k / TYPES / 5];
    dls_gpu_op late = {.name = "late", .kind = DLS_GPU_HOST, .run = spend};
    fill(buffer, type, count, rank);
    DLS_CUDA(dls_gpu_enqueue(stream, &late, &seconds[(rank * 7 + k * 3) % 5]));
    return dls_comm_all_reduce(comm, buffer, count, type, (dls_reduce)reduction, stream);
}
static dls_status reduce_all(int rank, void *arg)
{
    notes *n = arg;
    dls_comm *comm;
    cudaStream_t stream[2];
    unsigned char *buffer[2];
    setenv("DLS_SHORTCUT", n->by_messages ? "0" : "1", 1);
    setenv("DLS_ALGORITHM", n->algorithm, 1);
    DLS_TRY(test_world(n->cluster, &comm));
    for (int i = 0; i < 2; i++) {
        DLS_CUDA(cudaStreamCreate(&stream[i]));
        DLS_TRY(test_buffer(&buffer[i], 256));
        memset(buffer[i], 0, 256);
    }
    for (int k = 0; k < CASES; k++) {
        outcome *o = &n->of[n->by_messages][rank][k];
        DLS_TRY(reduce_one(rank, k, comm, buffer[k % 2], stream[k % 2]));
        if (k % 2 == 0)
            continue;
        DLS_CUDA(cudaDeviceSynchronize());
        memcpy(o[-1].bits, buffer[0], 256);
        memcpy(o->bits, buffer[1], 256);
        o->stats = dls_comm_stats(comm);
        o->time = dls_gpu_host_time();
    }
    dls_comm_destroy(comm);
    return DLS_OK;
}

/* compare meetings with messages */
static void compare(int n, const char *cluster, const char *algorithm)
{
    notes *all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    all->algorithm = algorithm;
    all->cluster = cluster;
    for (all->by_messages = 0; all->by_messages < 2; all->by_messages++)
        expect_ranks(n, reduce_all, all);
    for (int r = 0; r < n; r++)
        for (int k = 0; k < CASES; k++) {
            const outcome *a = &all->of[0][r][k], *b = &all->of[1][r][k];
            cr_assert(memcmp(a, b, sizeof *a) == 0, "%s, rank %d of %d, case %d: %.12g "
                      "s, %d steps, %d bytes; by messages %.12g s, %d, %d", algorithm, r,
                      n, k, a->time, (int)a->stats.steps, (int)a->stats.wire_bytes,
                      b->time, (int)b->stats.steps, (int)b->stats.wire_bytes);
        }
    cr_assert_gt(all->of[0][0][CASES - 1].time, 0);
    munmap(all, sizeof *all);
}

static void compare_algorithms(int n)
{
    const char *cluster = test_cluster(4, 2);
    compare(n, cluster, "all_reduce:ring");
    compare(n, cluster, "all_reduce:halving");
    compare(n, cluster, "all_reduce:doubling");
    compare(n, cluster, "all_reduce:tree");
    compare(n, cluster, "all_reduce:direct");
    if (n == 4 || n == 8)
        compare(n, cluster, "all_reduce:hierarchical");
    unlink(cluster);
}

Test(comm, meetings_of_two_are_as_messages) { compare_algorithms(2); }
Test(comm, meetings_of_three_are_as_messages) { compare_algorithms(3); }
Test(comm, meetings_of_four_are_as_messages) { compare_algorithms(4); }
Test(comm, meetings_of_five_are_as_messages) { compare_algorithms(5); }
Test(comm, meetings_of_eight_are_as_messages) { compare_algorithms(8); }

/* draw meetings */
typedef struct drawing { int by_messages; char path[64]; } drawing;

static dls_status draw_all_reduces(int rank, void *arg)
{
    const drawing *d = arg;
    static double late[3] = {4e-6, 0, 7e-6};
    dls_gpu_op wait = {.name = "late", .kind = DLS_GPU_HOST, .run = spend};
    char path[96];
    dls_comm *comm;
    float *buf;
    setenv("DLS_ALGORITHM", "all_reduce:ring", 1);
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(test_buffer(&buf, 64));
    memset(buf, 0, 64);
    comm->all->shortcuts = !d->by_messages;
    dls_trace_enable(1);
    for (int k = 0; k < 3; k++) {
        DLS_CUDA(dls_gpu_enqueue(0, &wait, &late[(rank + k) % 3]));
        DLS_TRY(dls_comm_all_reduce(comm, buf, 7, DLS_F32, DLS_SUM, 0));
    }
    DLS_CUDA(cudaDeviceSynchronize());
    snprintf(path, sizeof path, "%s.%d.%d", d->path, rank, d->by_messages);
    DLS_TRY(dls_trace_save(path));
    dls_comm_destroy(comm);
    return DLS_OK;
}

/* Reads a file and removes it; the number of its bytes. */
static size_t take_file(const drawing *d, int rank, char *text, size_t size)
{
    char path[96];
    snprintf(path, sizeof path, "%s.%d.%d", d->path, rank, d->by_messages);
    FILE *f = fopen(path, "r");
    cr_assert_not_null(f, "%s", path);
    size_t n = fread(text, 1, size - 1, f);
    text[n] = '\0';
    fclose(f);
    unlink(path);
    return n;
}

Test(comm, meetings_are_drawn_as_messages)
{
    static char text[2][1 << 16];
    drawing d;
    snprintf(d.path, sizeof d.path, "/tmp/dls-meeting-%d", (int)getpid());
    for (d.by_messages = 0; d.by_messages < 2; d.by_messages++)
        expect_ranks(3, draw_all_reduces, &d);
    for (int r = 0; r < 3; r++) {
        for (d.by_messages = 0; d.by_messages < 2; d.by_messages++)
            cr_assert_gt(take_file(&d, r, text[d.by_messages], sizeof *text), 0);
        cr_assert_str_eq(text[0], text[1], "rank %d", r);
        cr_assert_not_null(strstr(text[0], "\"ph\":\"s\""), "arrows: %s", text[0]);
    }
}

/* join without being held */
static dls_status keep_all_cores(int rank, void *arg)
{
    cpu_set_t before, after;
    dls_comm *comm;
    (void)rank;
    (void)arg;
    EXPECT(!sched_getaffinity(0, sizeof before, &before), "no cores");
    DLS_TRY(test_world(NULL, &comm));
    EXPECT(!sched_getaffinity(0, sizeof after, &after), "no cores");
    EXPECT(CPU_EQUAL(&before, &after), "%d cores before, %d after", CPU_COUNT(&before),
           CPU_COUNT(&after));
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, ranks_are_spread_over_cores_but_not_held_there)
{
    expect_ranks(3, keep_all_cores, NULL);
}

/* let a rank call something else */
static dls_status call_something_else(int rank, void *arg)
{
    int how = *(int *)arg;
    size_t count = rank == 1 && how == 0 ? 9 : rank == 1 && how == 4 ? 257 : 8;
    int type = rank == 1 && how == 1 ? DLS_COMM_I32 : DLS_F32;
    dls_comm *comm;
    float *buf;
    DLS_TRY(test_start(&comm, &buf));
    DLS_TRY(dls_comm_all_reduce(comm, buf, 8, DLS_F32, DLS_SUM, 0));
    if (rank == 1 && how == 5)
        comm->all->shortcuts = 0;
    if (rank == 1 && how == 3)
        DLS_TRY(dls_comm_broadcast(comm, buf, 8, DLS_F32, 0, 0));
    else
        DLS_TRY(dls_comm_all_reduce(comm, buf, count, type,
                                    rank == 1 && how == 2 ? DLS_MAX : DLS_SUM, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, meetings_report_another_call_with_both_sites)
{
    const char *calls[] = {"all-reduce of 9 f32 (sum) at chapters/04",
                           "all-reduce of 8 i32 (sum) at chapters/04",
                           "all-reduce of 8 f32 (max) at chapters/04",
                           "broadcast of 8 f32", "all-reduce of 257 f32 (sum)"};
    for (int n = 2; n <= 4; n++)
        for (int how = 0; how < 5; how++) {
            const char *words[] = {"all-reduce of 8 f32 (sum) at chapters/04", calls[how],
                                   NULL};
            expect_failure(n, call_something_else, &how, words);
        }
}

Test(comm, meetings_report_a_rank_that_does_not_want_them)
{
    const char *words[] = {"rank 1 sends messages for the all-reduce at chapters/04",
                           "is DLS_SHORTCUT the same", NULL};
    int how = 5;
    expect_failure(2, call_something_else, &how, words);
}

/* let a rank stay away */
static dls_status stay_away(int rank, void *arg)
{
    (void)arg;
    dls_comm *comm;
    float *buf;
    DLS_TRY(test_start(&comm, &buf));
    DLS_TRY(dls_comm_all_reduce(comm, buf, 2, DLS_F32, DLS_SUM, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    if (rank == 2)
        _exit(7);
    DLS_TRY(dls_comm_all_reduce(comm, buf, 2, DLS_F32, DLS_SUM, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    return DLS_OK;
}

Test(comm, meetings_report_a_lost_rank)
{
    const char *words[] = {"rank 2", NULL};
    expect_failure(4, stay_away, NULL, words);
}
