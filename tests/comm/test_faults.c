/* tests/comm/test_faults.c: from chapters/04-data-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Killed ranks, mismatched calls, ranks that left: each an error with the right words. */
#include "failure.h"

#include <signal.h>

/* kill a rank in the middle */
static int notes[2];

static dls_status synchronise(void)
{
    DLS_CUDA(cudaDeviceSynchronize());
    return DLS_OK;
}

static dls_status die_in_the_middle(int rank, void *arg)
{
    (void)arg;
    dls_comm *comm;
    float *buf;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(test_buffer(&buf, 100000 * sizeof *buf));
    memset(buf, 0, 100000 * sizeof *buf);
    for (int i = 0; i < 100; i++) {
        if (rank == 2 && i == 50)
            raise(SIGKILL);
        DLS_TRY(dls_comm_all_reduce(comm, buf, 100000, DLS_F32, DLS_SUM, 0));
        dls_status status = synchronise();
        if (strstr(dls_status_message(), "rank 2 was killed by signal 9 (SIGKILL)"))
            EXPECT(write(notes[1], "x", 1) == 1, "pipe");
        DLS_TRY(status);
    }
    return DLS_OK;
}

Test(comm, killed_rank_is_named_and_the_others_stop)
{
    const char *words[] = {"rank 2 was killed by signal 9 (SIGKILL)", NULL};
    char buffer[8];
    cr_assert_eq(pipe(notes), 0);
    expect_failure(4, die_in_the_middle, NULL, words);
    close(notes[1]);
    cr_assert_eq(read(notes[0], buffer, sizeof buffer), 3, "survivors that noticed");
}

/* disagree on a collective */
static dls_status disagree(int rank, void *arg)
{
    int how = *(int *)arg;
    dls_comm *comm;
    float *buf;
    DLS_TRY(test_start(&comm, &buf));
    DLS_TRY(dls_comm_all_reduce(comm, buf, 100, DLS_F32, DLS_SUM, 0));
    if (rank == 1 && how == 0)
        DLS_TRY(dls_comm_all_reduce(comm, buf, 101, DLS_F32, DLS_SUM, 0));
    else if (rank == 1 && how == 1)
        DLS_TRY(dls_comm_all_reduce(comm, buf, 100, DLS_COMM_I32, DLS_SUM, 0));
    else if (rank == 1 && how == 2)
        DLS_TRY(dls_comm_all_reduce(comm, buf, 100, DLS_F32, DLS_MAX, 0));
    else if (rank == 1 && how == 3)
        DLS_TRY(dls_comm_broadcast(comm, buf, 100, DLS_F32, 0, 0));
    else
        DLS_TRY(dls_comm_all_reduce(comm, buf, 100, DLS_F32, DLS_SUM, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, mismatched_collectives_are_reported_with_both_sites)
{
    const char *calls[] = {"all-reduce of 101 f32 (sum)", "all-reduce of 100 i32 (sum)",
                           "all-reduce of 100 f32 (max)",
                           "broadcast of 100 f32 from rank 0"};
    for (int n = 2; n <= 4; n++)
        for (int how = 0; how < 4; how++) {
            const char *words[] = {"all-reduce of 100 f32 (sum)", calls[how],
                                   "rank 1 calls", "(collective 1)", "chapters/04", NULL};
            expect_failure(n, disagree, &how, words);
        }
}

static dls_status disagree_on_a_message(int rank, void *arg)
{
    int how = *(int *)arg;
    dls_comm *comm;
    float *buf;
    DLS_TRY(test_start(&comm, &buf));
    if (rank == 1)
        DLS_TRY(dls_comm_recv(comm, buf, 8, DLS_F32, 0, 0));
    else if (how == 2)
        DLS_TRY(dls_comm_all_reduce(comm, buf, 8, DLS_F32, DLS_SUM, 0));
    else
        DLS_TRY(dls_comm_send(comm, buf, how ? 8 : 7, how ? DLS_COMM_I32 : DLS_F32, 1,
                              0));
    DLS_CUDA(cudaDeviceSynchronize());
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, mismatched_messages_are_reported_with_both_sites)
{
    const char *sent[] = {"send of 7 f32 at chapters/04", "send of 8 i32 at chapters/04",
                          "all-reduce of 8 f32 (sum) at chapters/04"};
    for (int how = 0; how < 3; how++) {
        const char *words[] = {"rank 1 calls recv of 8 f32 at chapters/04",
                               "but rank 0 calls", sent[how], NULL};
        expect_failure(2, disagree_on_a_message, &how, words);
    }
}

static dls_status gather_unequal(int rank, void *arg)
{
    (void)arg;
    char mine[16] = {0}, all[64];
    dls_comm *comm;
    DLS_TRY(test_world(NULL, &comm));
    return dls_comm_all_gather_host(comm, mine, rank == 1 ? 9 : 8, all);
}

Test(comm, unequal_host_gathers_are_reported)
{
    const char *words[] = {"gathers 8", "gathers 9", "chapters/04", NULL};
    expect_failure(2, gather_unequal, NULL, words);
}

/* leave early */
static dls_status leave_early(int rank, void *arg)
{
    int barrier = *(int *)arg;
    dls_comm *comm;
    float *buf;
    DLS_TRY(test_start(&comm, &buf));
    if (rank != 1 && barrier)
        DLS_TRY(dls_comm_barrier(comm));
    else if (rank != 1)
        DLS_TRY(dls_comm_all_reduce(comm, buf, 9, DLS_F32, DLS_SUM, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(comm, a_rank_that_left_is_named_by_those_who_wait)
{
    const char *in_all_reduce[] = {"rank 1 has finished, but rank",
                                   "waits in all-reduce of 9 f32", NULL};
    const char *in_barrier[] = {"rank 1 has finished, but rank", "waits in a barrier",
                                NULL};
    int barrier = 0;
    expect_failure(3, leave_early, &barrier, in_all_reduce);
    barrier = 1;
    expect_failure(3, leave_early, &barrier, in_barrier);
}

/* give wrong arguments */
static void expect_refusal(dls_status status, const char *words)
{
    cr_assert_eq(status, DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), words), "no \"%s\" in: %s", words,
              dls_status_message());
}

Test(comm, wrong_environments_are_refused_in_one_line)
{
    dls_comm *comm = NULL;
    setenv("DLS_WORLD_SIZE", "four", 1);
    expect_refusal(dls_comm_create(&comm, NULL),
                   "DLS_WORLD_SIZE=four: expected a number from 1 to 64");
    setenv("DLS_WORLD_SIZE", "4", 1);
    setenv("DLS_RANK", "4", 1);
    expect_refusal(dls_comm_create(&comm, NULL),
                   "DLS_RANK=4: expected a number from 0 to 3");
    setenv("DLS_RANK", "1", 1);
    expect_refusal(dls_comm_create(&comm, NULL),
                   "DLS_ARENA_FD is not set; start the ranks "
                   "with `dls run -n 4`");
    setenv("DLS_ARENA_FD", "0", 1);
    expect_refusal(dls_comm_create(&comm, NULL), "not the shared memory of a launcher");
    cr_assert_null(comm);
}

Test(comm, wrong_arguments_are_refused_in_one_line)
{
    dls_comm *comm;
    float x = 3;
    cr_assert_eq(dls_comm_create(&comm, NULL), DLS_OK);
    expect_refusal(dls_comm_send(comm, &x, 1, DLS_F32, 0, 0), "send to rank 0");
    expect_refusal(dls_comm_recv(comm, &x, 1, DLS_F32, 5, 0), "recv from rank 5");
    expect_refusal(dls_comm_broadcast(comm, &x, 1, DLS_F32, 1, 0), "there are 1 ranks");
    cr_assert_eq(dls_comm_all_reduce(comm, &x, 1, DLS_F32, DLS_AVG, 0), DLS_OK);
    cr_assert_eq(x, 3);
    cr_assert_eq(dls_comm_stats(comm).operations, 0, "a world of one has no messages");
    dls_comm *second;
    cr_assert_eq(dls_comm_create(&second, NULL), DLS_ERR_STATE);
    dls_comm_destroy(comm);
}
