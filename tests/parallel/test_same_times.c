/* tests/parallel/test_same_times.c: from chapters/04-data-parallelism-determinism.md. Edit the chapter, or edit here and run "make untangle". */
/* The same values, times and traces in every run, however the ranks are disturbed. */
#include "../train/run.h"

#include <sched.h>

#include "vgpu/gpu.h"
#include "vgpu/trace.h"

/* disturb the ranks */
typedef struct disturbance {
    const char *name, *seed;
    int cores;       // 0: as many as there are
    int stops;       // 1: ranks are stopped and continued
} disturbance;

static const disturbance disturbances[] = {
    {"quiet", "1", 0, 0}, {"again", "1", 0, 0},  {"one-core", "1", 1, 0},
    {"two-cores", "2", 2, 0}, {"seed", "77", 0, 0}, {"stopped", "5", 0, 1},
    {"stopped-one-core", "9", 1, 1},
};
enum { DISTURBANCES = sizeof disturbances / sizeof *disturbances, RANKS = 8 };

static const disturbance *current; // inherited by the ranks

static void be_disturbed(int rank)
{
    if (!current->stops || fork() != 0)
        return;
    pid_t parent = getppid();
    for (uint64_t i = 0;; i++) {
        usleep(500 + dls_rng_u32(7, (uint64_t)rank, 2 * i) % 20000);
        kill(parent, SIGSTOP);
        usleep(500 + dls_rng_u32(7, (uint64_t)rank, 2 * i + 1) % 20000);
        if (kill(parent, SIGCONT) || getppid() != parent)
            _exit(0);
    }
}

static void run_disturbed(const disturbance *d, dls_status (*fn)(int, void *), void *arg)
{
    cpu_set_t all, some;
    cr_assert_eq(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&some);
    for (int c = 0; c < CPU_SETSIZE && CPU_COUNT(&some) < d->cores; c++)
        if (CPU_ISSET(c, &all))
            CPU_SET(c, &some);
    if (d->cores)
        cr_assert_eq(sched_setaffinity(0, sizeof some, &some), 0);
    setenv("DLS_SEED", d->seed, 1);
    current = d;
    OK(dls_run_ranks(RANKS, fn, arg));
    cr_assert_eq(sched_setaffinity(0, sizeof all, &all), 0);
}

/* meet in every way */
enum { COUNT = 3000, ROUNDS = 6, LOG = 512 };

typedef struct meeting {
    dls_comm *comm;
    cudaStream_t up, down, sum;
    cudaEvent_t arrived, reduced;
    float *around[2], *total; // (COUNT)
    double log[LOG];
    int n, rank;
} meeting;

static void note(meeting *m, double value)
{
    if (m->n < LOG)
        m->log[m->n++] = value;
}

static dls_status open_meeting(meeting *m, int rank)
{
    float **buffers[] = {&m->around[0], &m->around[1], &m->total};
    *m = (meeting){.rank = rank};
    DLS_TRY(dls_comm_create(&m->comm, NULL));
    DLS_CUDA(cudaStreamCreate(&m->up));
    DLS_CUDA(cudaStreamCreate(&m->down));
    DLS_CUDA(cudaStreamCreate(&m->sum));
    DLS_CUDA(cudaEventCreate(&m->arrived));
    DLS_CUDA(cudaEventCreate(&m->reduced));
    for (int b = 0; b < 3; b++) {
        DLS_CUDA(dls_gpu_alloc_shared((void **)buffers[b], COUNT * sizeof(float)));
        for (int i = 0; i < COUNT; i++)
            (*buffers[b])[i] = 1.0f / (float)(1 + i + 10 * rank + b);
    }
    return DLS_OK;
}

static dls_status pass(meeting *m, int which, int round)
{
    cudaStream_t stream = which ? m->down : m->up;
    int step = which ? RANKS - 1 : 1, to = (m->rank + step) % RANKS;
    int from = (m->rank + RANKS - step) % RANKS;
    size_t n = (size_t)(COUNT / (1 + round % 3));
    dls_gpu_op work = {.name = "work", .kind = DLS_GPU_COMPUTE,
                       .bytes = 1e6 * (1 + dls_rng_u32(3, (uint64_t)m->rank,
                                                       (uint64_t)round) % 50)};
    DLS_CUDA(dls_gpu_enqueue(stream, &work, NULL));
    if (m->rank % 2) { // not everybody in the same order
        DLS_TRY(dls_comm_send(m->comm, m->around[which], n, DLS_F32, to, stream));
        return dls_comm_recv(m->comm, m->around[which], n, DLS_F32, from, stream);
    }
    float *kept;
    DLS_CUDA(cudaMallocAsync((void **)&kept, n * sizeof *kept, stream));
    DLS_CUDA(cudaFreeAsync(kept, stream));
    DLS_TRY(dls_comm_send(m->comm, m->around[which], n, DLS_F32, to, stream));
    return dls_comm_recv(m->comm, m->around[which], n, DLS_F32, from, stream);
}

static dls_status reduce_and_ask(meeting *m, int round)
{
    dls_gpu_op filler = {.name = "filler", .kind = DLS_GPU_COMPUTE, .flops = 1e6};
    float ms = 0;
    int asked = 0;
    for (int which = 0; which < 2; which++) {
        DLS_CUDA(cudaEventRecord(m->arrived, which ? m->down : m->up));
        DLS_CUDA(cudaStreamWaitEvent(m->sum, m->arrived, 0));
    }
    DLS_TRY(dls_comm_all_reduce(m->comm, m->total, COUNT, DLS_F32, DLS_AVG, m->sum));
    DLS_CUDA(cudaEventRecord(m->reduced, m->sum));
    for (; round % 2 && cudaStreamQuery(m->up) == cudaErrorNotReady; asked++)
        DLS_CUDA(dls_gpu_enqueue(m->sum, &filler, NULL));
    note(m, asked);
    note(m, cudaEventElapsedTime(&ms, m->arrived, m->reduced));
    DLS_CUDA(cudaEventSynchronize(m->reduced));
    DLS_CUDA(cudaEventElapsedTime(&ms, m->arrived, m->reduced));
    note(m, (double)ms);
    note(m, dls_gpu_host_time());
    return DLS_OK;
}

static dls_status meet(int rank, void *arg)
{
    meeting m;
    char path[512];
    (void)arg;
    be_disturbed(rank);
    DLS_TRY(open_meeting(&m, rank));
    dls_trace_enable(1);
    for (int round = 0; round < ROUNDS; round++) {
        for (int which = 0; which < 2; which++)
            DLS_TRY(pass(&m, which, round));
        DLS_TRY(reduce_and_ask(&m, round));
    }
    DLS_CUDA(cudaDeviceSynchronize());
    DLS_TRY(dls_comm_barrier(m.comm));
    note(&m, dls_gpu_host_time());
    note(&m, dls_comm_stats(m.comm).busy_seconds);
    for (int i = 0; i < COUNT; i += 97)
        note(&m, (double)(m.total[i] + m.around[0][i] - m.around[1][i]));
    snprintf(path, sizeof path, "%s/%s/seen-%d", root, current->name, rank);
    DLS_TRY(dls_file_write(path, m.log, sizeof *m.log * (size_t)m.n));
    snprintf(path, sizeof path, "%s/%s/trace-rank-%d.json", root, current->name, rank);
    DLS_TRY(dls_trace_save(path));
    dls_comm_destroy(m.comm);
    return DLS_OK;
}

/* compare what was written */
static void make_directory(const char *name)
{
    char command[256];
    snprintf(command, sizeof command, "mkdir %s/%s", root, name);
    cr_assert_eq(system(command), 0);
}

static void expect_same_files(const char *a, const char *b, int least)
{
    char command[512];
    snprintf(command, sizeof command, "diff -rq %s/%s %s/%s >&2 && "
             "test $(ls %s/%s | wc -l) -ge %d", root, a, root, b, root, b, least);
    cr_assert_eq(system(command), 0, "%s and %s differ", a, b);
}

/* test that nothing changes */
Test(parallel, meetings_leave_the_same_bytes, .init = make_corpus, .fini = remove_root)
{
    for (int d = 0; d < DISTURBANCES; d++) {
        make_directory(disturbances[d].name);
        run_disturbed(&disturbances[d], meet, NULL);
        expect_same_files("quiet", disturbances[d].name, 2 * RANKS);
    }
}

static dls_status train_disturbed(int rank, void *arg)
{
    be_disturbed(rank);
    return train_rank(rank, arg);
}

static void train_in_every_way(const char *kernels, const char *steps)
{
    setenv("DLS_KERNELS", kernels, 1);
    traced = 1;
    for (int d = 0; d < DISTURBANCES; d++) {
        run r = {disturbances[d].name,
                 {steps, "train.global_batch=16", "train.micro_batch=1",
                  "train.evaluate_every=2", "train.checkpoint_every=2"}, 0};
        run_disturbed(&disturbances[d], train_disturbed, &r);
        expect_same_files("quiet", disturbances[d].name, 2 * RANKS);
    }
}

Test(parallel, training_on_host_kernels_leaves_the_same_bytes, .init = make_corpus,
     .fini = remove_root)
{
    train_in_every_way("host", "train.steps=4");
}

Test(parallel, training_on_emulated_kernels_leaves_the_same_bytes, .init = make_corpus,
     .fini = remove_root)
{
    train_in_every_way("simt", "train.steps=2");
}
