/* tests/comm/test_deadlock.c: from chapters/04-data-parallelism-deadlock.md. Edit the chapter, or edit here and run "make untangle". */
/* Deadlocks of every kind, each named; and slow programs that are none. */
#include "failure.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

/* open a world with two streams */
enum { LARGE = 100000 };

typedef struct bench { dls_comm *comm; float *buf; cudaStream_t a, b; int left, right; }
bench;

static dls_status open_bench(bench *w)
{
    DLS_TRY(test_world(NULL, &w->comm));
    DLS_TRY(test_buffer(&w->buf, LARGE * sizeof *w->buf));
    memset(w->buf, 0, LARGE * sizeof *w->buf);
    DLS_CUDA(cudaStreamCreate(&w->a));
    DLS_CUDA(cudaStreamCreate(&w->b));
    DLS_CUDA(dls_gpu_name_stream(w->a, "main"));
    DLS_CUDA(dls_gpu_name_stream(w->b, "comm"));
    int n = dls_comm_size(w->comm), rank = dls_comm_rank(w->comm);
    w->right = (rank + 1) % n;
    w->left = (rank + n - 1) % n;
    return DLS_OK;
}

static dls_status send7(bench *w, int to, cudaStream_t stream)
{
    return dls_comm_send(w->comm, w->buf, 7, DLS_F32, to, stream);
}

static dls_status recv7(bench *w, int from, cudaStream_t stream)
{
    return dls_comm_recv(w->comm, w->buf, 7, DLS_F32, from, stream);
}

/* build deadlocks */
enum { RECV_FIRST, SEND_LARGE, SKIP, CROSS, EVENT, EVENT_SYNC, SPIN, ALL_SPIN, APART };

static dls_status wait_for_an_event(bench *w, int rank, int how)
{
    cudaEvent_t event;
    DLS_CUDA(cudaEventCreate(&event));
    DLS_TRY(recv7(w, 1 - rank, w->a));
    DLS_CUDA(cudaEventRecord(event, w->a));
    if (how == EVENT_SYNC)
        DLS_CUDA(cudaEventSynchronize(event));
    DLS_CUDA(cudaStreamWaitEvent(w->b, event, 0));
    DLS_TRY(send7(w, 1 - rank, w->b));
    DLS_CUDA(cudaStreamSynchronize(w->b));
    return DLS_OK;
}

static dls_status cross(bench *w, int rank)
{
    cudaEvent_t event;
    DLS_CUDA(cudaEventCreate(&event));
    DLS_TRY(dls_comm_all_reduce(w->comm, w->buf, 5, DLS_F32, DLS_SUM, w->a));
    DLS_CUDA(cudaEventRecord(event, w->a));
    if (rank == 0)
        return recv7(w, 1, w->b);
    DLS_TRY(recv7(w, 0, w->b));
    DLS_CUDA(cudaStreamWaitEvent(w->b, event, 0));
    return send7(w, 0, w->b);
}

static dls_status spin(bench *w, int from)
{
    DLS_TRY(recv7(w, from, w->a));
    cudaError_t answer = cudaErrorNotReady;
    while (answer == cudaErrorNotReady)
        answer = cudaStreamQuery(w->a);
    DLS_CUDA(answer);
    return DLS_OK;
}

static dls_status skip(bench *w, int rank)
{
    if (rank == 1)
        return dls_comm_barrier(w->comm);
    DLS_TRY(dls_comm_all_reduce(w->comm, w->buf, 7, DLS_F32, DLS_SUM, w->b));
    DLS_CUDA(cudaStreamSynchronize(w->b));
    return dls_comm_barrier(w->comm);
}

static dls_status build(int rank, void *arg)
{
    int how = *(int *)arg;
    bench w;
    DLS_TRY(open_bench(&w));
    /* go wrong in one of the ways */
    if (how == EVENT || how == EVENT_SYNC)
        DLS_TRY(wait_for_an_event(&w, rank, how));
    else if (how == SKIP)
        DLS_TRY(skip(&w, rank));
    else if (how == CROSS)
        DLS_TRY(cross(&w, rank));
    else if (how == ALL_SPIN || (how == SPIN && rank == 1))
        DLS_TRY(spin(&w, w.left));
    else if (how == SEND_LARGE)
        DLS_TRY(dls_comm_send(w.comm, w.buf, LARGE, DLS_F32, w.right, w.a));
    else if (how == APART && rank == 2)
        sleep(30);
    else if (how == APART)
        DLS_TRY(recv7(&w, 1 - rank, w.a));
    else
        DLS_TRY(recv7(&w, w.left, w.a));
    DLS_CUDA(cudaDeviceSynchronize());
    dls_comm_destroy(w.comm);
    return DLS_OK;
}

/* expect the circles */
#define AT " at chapters/04-data-parallelism-deadlock.md:"
#define R(r) "rank " r ", stream \"main\": recv of 7 f32" AT
#define H(r) "rank " r ", the host: cudaDeviceSynchronize" AT

static const char *const expected[][8] = {
    [RECV_FIRST] = {H("0"), R("0"), "(message 0) waits for rank 1, which has not sent it",
                    H("1"), R("1"),
                    "(message 0) waits for rank 0, which has not sent it"},
    [SEND_LARGE] = {H("0"), "rank 0, stream \"main\": send of 100000 f32" AT,
                    "(message 0) waits for rank 1, which has not received it", H("1")},
    [SKIP] = {"rank 0, the host: cudaStreamSynchronize" AT,
              "rank 0, stream \"comm\": all-reduce of 7 f32 (sum)" AT,
              "(collective 0) waits for rank 1, which has not sent it",
              "rank 1, the host: barrier" AT,
              "waits for rank 0, which has not called it"},
    [CROSS] = {H("0"), "rank 0, stream \"comm\": recv of 7 f32" AT,
               "(message 0) waits for rank 1, stream \"comm\"; rank 1, stream \"comm\": "
               "recv of 7 f32", "(message 0) waits for rank 0, which has not sent it"},
    [EVENT] = {"rank 0, stream \"comm\": cudaStreamWaitEvent" AT,
               "waits for stream \"main\"; " R("0"), "waits for rank 1, stream \"comm\"; "
               "rank 1, stream \"comm\": cudaStreamWaitEvent" AT, R("1"),
               "waits for rank 0, stream \"comm\""},
    [EVENT_SYNC] = {"rank 0, the host: cudaEventSynchronize" AT, R("0"), R("1"),
                    "rank 1, the host: cudaEventSynchronize" AT},
    [SPIN] = {H("0"), "rank 1, the host: cudaStreamQuery" AT, R("0"), R("1")},
    [ALL_SPIN] = {"rank 0, the host: cudaStreamQuery" AT, R("0"), R("1")},
    [APART] = {H("0"), R("0"), H("1"), R("1")},
};

Test(comm, deadlocks_name_the_circle)
{
    const char *words[9];
    for (int how = RECV_FIRST; how <= APART; how++) {
        words[0] = "found a deadlock: rank 0, ";
        memcpy(words + 1, expected[how], sizeof expected[how]);
        expect_failure(how == APART ? 3 : 2, build, &how, words);
    }
}

Test(comm, deadlocks_of_many_ranks_name_their_neighbours)
{
    int how = RECV_FIRST;
    const char *three[] = {R("0"), "waits for rank 2", R("2"), "waits for rank 1", R("1"),
                           "waits for rank 0", NULL};
    const char *eight[] = {R("0"), "waits for rank 7", R("7"), "waits for rank 6", NULL};
    expect_failure(3, build, &how, three);
    expect_failure(8, build, &how, eight);
    how = ALL_SPIN;
    expect_failure(8, build, &how, eight);
}

static int told[2];

static dls_status tell(int rank, void *arg)
{
    EXPECT(dup2(told[1], 2) == 2, "pipe");
    dls_status status = build(rank, arg);
    char line[2100];
    int n = snprintf(line, sizeof line, "%s\n", dls_status_message());
    EXPECT(write(told[1], line, (size_t)n) == n, "pipe");
    return status;
}

Test(comm, a_deadlock_is_told_once)
{
    int how = RECV_FIRST, places = 0, others = 0;
    char line[2100];
    cr_assert_eq(pipe(told), 0);
    cr_assert_eq(dls_run_ranks(4, tell, &how), DLS_ERR_COMM);
    close(told[1]);
    FILE *f = fdopen(told[0], "r");
    while (fgets(line, sizeof line, f)) {
        places += strstr(line, "deadlock: rank ") != NULL;
        others += strstr(line, "found a deadlock; this rank waits in recv of 7") != NULL;
    }
    cr_assert_eq(places, 8, "a host and a stream of each rank");
    cr_assert_eq(others, 4);
}

/* be slow */
static void doze(void *seconds) { usleep((useconds_t)(1e6 * *(double *)seconds)); }

/* A child process that stops this one for a second. */
static void be_stopped(void)
{
    if (fork() != 0)
        return;
    pid_t parent = getppid();
    usleep(100000);
    kill(parent, SIGSTOP);
    sleep(1);
    kill(parent, SIGCONT);
    _exit(0);
}

static dls_status be_slow(int rank, void *arg)
{
    static double pause = 1.5; // s
    bench w;
    (void)arg;
    if (rank == 3)
        be_stopped(); // before the first CUDA call
    DLS_TRY(open_bench(&w));
    if (rank == 1)
        DLS_CUDA(cudaLaunchHostFunc(w.a, doze, &pause));
    if (rank == 2)
        doze(&pause);
    w.buf[0] = 1;
    DLS_TRY(dls_comm_all_reduce(w.comm, w.buf, 7, DLS_F32, DLS_SUM, w.a));
    DLS_CUDA(cudaStreamSynchronize(w.a));
    EXPECT(w.buf[0] == (float)dls_comm_size(w.comm), "sum %g", (double)w.buf[0]);
    DLS_TRY(dls_comm_barrier(w.comm));
    dls_comm_destroy(w.comm);
    return DLS_OK;
}

Test(comm, slow_ranks_are_no_deadlock) { expect_ranks(5, be_slow, NULL); }

static void *wait_in_a_thread(void *arg)
{
    bench *w = arg;
    if (cudaSetDevice(0) || recv7(w, 1, w->a) != DLS_OK || cudaStreamSynchronize(w->a))
        return "the receiving thread failed";
    return NULL;
}

static dls_status use_threads(int rank, void *arg)
{
    bench w;
    pthread_t thread;
    void *complaint = NULL;
    (void)arg;
    DLS_TRY(open_bench(&w));
    if (rank == 1) {
        DLS_TRY(recv7(&w, 0, w.a));
        DLS_TRY(send7(&w, 0, w.a));
    } else {
        EXPECT(pthread_create(&thread, NULL, wait_in_a_thread, &w) == 0, "thread");
        sleep(1);
        DLS_TRY(send7(&w, 1, w.b));
        DLS_CUDA(cudaStreamSynchronize(w.b));
        EXPECT(pthread_join(thread, &complaint) == 0 && !complaint, "it failed");
    }
    DLS_CUDA(cudaDeviceSynchronize());
    dls_comm_destroy(w.comm);
    return DLS_OK;
}

Test(comm, a_thread_may_send_while_another_waits) { expect_ranks(2, use_threads, NULL); }

/* ask and ask again */
static int answers[2];

static dls_status ask(int rank, void *arg)
{
    const useconds_t delay = *(useconds_t *)arg;
    dls_gpu_op work = {.name = "work", .kind = DLS_GPU_COMPUTE, .bytes = 1e9};
    int asked = 0;
    bench w;
    DLS_TRY(open_bench(&w));
    if (rank == 1) {
        usleep(delay);
        DLS_CUDA(dls_gpu_enqueue(w.a, &work, NULL));
        DLS_TRY(send7(&w, 0, w.a));
    } else {
        work.bytes = 0;
        DLS_TRY(recv7(&w, 1, w.a));
        for (; cudaStreamQuery(w.a) == cudaErrorNotReady; asked++)
            DLS_CUDA(dls_gpu_enqueue(w.b, &work, NULL));
        double seen[2] = {asked, dls_gpu_host_time()};
        EXPECT(write(answers[1], seen, sizeof seen) == sizeof seen, "pipe");
    }
    DLS_CUDA(cudaDeviceSynchronize());
    dls_comm_destroy(w.comm);
    return DLS_OK;
}

Test(comm, answers_do_not_depend_on_how_slow_a_rank_is)
{
    double first[2], seen[2];
    cr_assert_eq(pipe(answers), 0);
    for (useconds_t delay = 0; delay <= 400000; delay = delay ? 20 * delay : 1000) {
        expect_ranks(2, ask, &delay);
        cr_assert_eq(read(answers[0], seen, sizeof seen), (ssize_t)sizeof seen);
        if (delay == 0)
            memcpy(first, seen, sizeof seen);
        cr_assert_eq(seen[0], first[0], "%g questions, then %g", first[0], seen[0]);
        cr_assert_eq(seen[1], first[1], "clock %g, then %g", first[1], seen[1]);
    }
    cr_assert_gt(first[0], 50);
}

static dls_status ask_each_other(int rank, void *arg)
{
    int patience = *(int *)arg, asked = 0;
    bench w;
    DLS_TRY(open_bench(&w));
    DLS_TRY(recv7(&w, 1 - rank, w.a));
    while (cudaStreamQuery(w.a) == cudaErrorNotReady)
        if (++asked == patience)
            DLS_TRY(send7(&w, 1 - rank, w.b));
    EXPECT(asked >= patience, "%d answers", asked);
    DLS_CUDA(cudaDeviceSynchronize());
    dls_comm_destroy(w.comm);
    return DLS_OK;
}

Test(comm, ranks_that_ask_each_other_get_answers)
{
    for (int patience = 3; patience <= 300; patience *= 10)
        expect_ranks(2, ask_each_other, &patience);
}

static dls_status ask_in_peace(int rank, void *arg)
{
    int computes = *(int *)arg;
    volatile double x = 1;
    bench w;
    DLS_TRY(open_bench(&w));
    DLS_TRY(recv7(&w, 1 - rank, w.a));
    double start = seconds();
    while (rank == 0 && seconds() - start < 1.5) {
        EXPECT(cudaStreamQuery(w.a) == cudaErrorNotReady, "an answer to nothing");
        for (int i = 0; i < 200000 * computes; i++)
            x = x * 0.5 + 1;
        if (!computes)
            usleep(500);
    }
    DLS_TRY(send7(&w, 1 - rank, rank ? w.a : w.b));
    DLS_CUDA(cudaDeviceSynchronize());
    dls_comm_destroy(w.comm);
    return DLS_OK;
}

Test(comm, asking_for_long_is_no_deadlock)
{
    for (int computes = 0; computes <= 1; computes++)
        expect_ranks(2, ask_in_peace, &computes);
}
