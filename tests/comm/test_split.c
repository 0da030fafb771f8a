/* tests/comm/test_split.c: from chapters/04-data-parallelism-collectives-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Groups of messages, all-to-all-v, and communicators within the communicator. */
#include "failure.h"

/* exchange large messages in a group */
enum { LARGE = 100000 };

static dls_status exchange_in_a_group(int rank, void *arg)
{
    int n = *(int *)arg, right = (rank + 1) % n, left = (rank + n - 1) % n;
    dls_comm *comm;
    float *out, *in;
    int *small;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(test_buffer(&out, LARGE * sizeof *out));
    DLS_TRY(test_buffer(&in, LARGE * sizeof *in));
    DLS_TRY(test_buffer(&small, 2 * sizeof *small));
    for (int i = 0; i < LARGE; i++)
        out[i] = (float)(rank * 1000 + i % 991);
    small[0] = rank;
    DLS_TRY(dls_comm_group_begin(comm));
    DLS_TRY(dls_comm_send(comm, out, LARGE, DLS_F32, right, 0));
    DLS_TRY(dls_comm_send(comm, small, 1, DLS_COMM_I32, right, 0));
    DLS_TRY(dls_comm_recv(comm, in, LARGE, DLS_F32, left, 0));
    DLS_TRY(dls_comm_recv(comm, small + 1, 1, DLS_COMM_I32, left, 0));
    EXPECT(dls_comm_group_begin(comm) == DLS_ERR_STATE, "groups nest");
    EXPECT(dls_comm_all_reduce(comm, out, 1, DLS_F32, DLS_SUM, 0) == DLS_ERR_STATE,
           "a collective in a group");
    DLS_TRY(dls_comm_group_end(comm));
    EXPECT(dls_comm_group_end(comm) == DLS_ERR_STATE, "ended twice");
    DLS_CUDA(cudaStreamSynchronize(0));
    for (int i = 0; i < LARGE; i++)
        EXPECT(in[i] == (float)(left * 1000 + i % 991), "element %d", i);
    EXPECT(small[1] == left, "the small one");
    EXPECT(dls_comm_stats(comm).operations == 1, "one operation");
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(collectives, a_group_exchanges_large_messages_on_one_stream)
{
    for (int n = 2; n <= 4; n++)
        expect_ranks(n, exchange_in_a_group, &n);
}

/* exchange blocks of every size */
static size_t amount(int from, int to) { return (size_t)((from + 2 * to) % 5); }

static dls_status exchange_unequal(int rank, void *arg)
{
    int n = *(int *)arg;
    size_t to[9], to_at[9], from[9], from_at[9];
    dls_comm *comm;
    int *in, *out;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(test_buffer(&in, 9 * 8 * sizeof *in));
    DLS_TRY(test_buffer(&out, 9 * 8 * sizeof *out));
    for (int r = 0; r < n; r++) {
        to[r] = amount(rank, r);
        from[r] = amount(r, rank);
        to_at[r] = (size_t)(8 * r + 1);
        from_at[r] = (size_t)(8 * (n - 1 - r));
        for (int i = 0; i < 8; i++) {
            in[8 * r + i] = 100 * rank + 10 * r + i;
            out[8 * r + i] = -1;
        }
    }
    DLS_TRY(dls_comm_all_to_all_v(comm, in, to, to_at, out, from, from_at, DLS_COMM_I32,
                                  0));
    memset(to, 255, sizeof to); // the call has copied them
    DLS_CUDA(cudaStreamSynchronize(0));
    for (int r = 0; r < n; r++)
        for (int i = 0; i < 8; i++) {
            int is = out[from_at[r] + (size_t)i];
            int want = (size_t)i < from[r] ? 100 * r + 10 * rank + 1 + i : -1;
            EXPECT(is == want, "from %d, element %d is %d, not %d", r, i, is, want);
        }
    dls_comm_destroy(comm);
    return DLS_OK;
}

static dls_status exchange_wrong(int rank, void *arg)
{
    size_t counts[2] = {3, 3}, offsets[2] = {0, 3};
    dls_comm *comm;
    float *buf;
    (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(test_buffer(&buf, 64));
    memset(buf, 0, 64);
    counts[1 - rank] += rank == 0;
    DLS_TRY(dls_comm_all_to_all_v(comm, buf, counts, offsets, buf + 8, counts, offsets,
                                  DLS_F32, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    return DLS_OK;
}

Test(collectives, all_to_all_v_moves_blocks_of_every_size)
{
    const char *words[] = {"calls all-to-all-v", "expects", "bytes from rank",
                           "and sends", "chapters/04", NULL};
    for (int n = 1; n <= 8; n++)
        expect_ranks(n, exchange_unequal, &n);
    expect_failure(2, exchange_wrong, NULL, words);
}

/* split in rows and columns */
static dls_status sum_of(dls_comm *comm, int mine, int *sum)
{
    int *buf;
    DLS_TRY(test_buffer(&buf, sizeof *buf));
    *buf = mine;
    DLS_TRY(dls_comm_all_reduce(comm, buf, 1, DLS_COMM_I32, DLS_SUM, 0));
    DLS_CUDA(cudaStreamSynchronize(0));
    *sum = *buf;
    cudaFree(buf);
    return DLS_OK;
}

static dls_status split_a_mesh(int rank, void *arg)
{
    dls_comm *all, *row, *column, *back, *some;
    int sum, first = 3 * (rank / 3), gathered[3];
    (void)arg;
    DLS_TRY(test_world(NULL, &all));
    DLS_TRY(dls_comm_split(all, rank / 3, 0, &row));
    DLS_TRY(dls_comm_split(all, rank % 3, rank, &column));
    DLS_TRY(dls_comm_split(row, 0, -rank, &back));
    DLS_TRY(dls_comm_split(all, rank == 4 ? -1 : 7, 0, &some));
    EXPECT(dls_comm_size(row) == 3 && dls_comm_rank(row) == rank % 3, "row");
    EXPECT(dls_comm_size(column) == 2 && dls_comm_rank(column) == rank / 3, "column");
    EXPECT(dls_comm_rank(back) == 2 - rank % 3, "reversed");
    EXPECT(dls_comm_world_rank(back, 0) == first + 2, "world rank");
    EXPECT((some == NULL) == (rank == 4), "left out");
    DLS_TRY(sum_of(row, rank, &sum));
    EXPECT(sum == 3 * first + 3, "row sums to %d", sum);
    DLS_TRY(sum_of(column, rank, &sum));
    EXPECT(sum == 2 * (rank % 3) + 3, "column sums to %d", sum);
    if (some)
        DLS_TRY(sum_of(some, rank, &sum));
    EXPECT(!some || (sum == 11 && dls_comm_rank(some) == rank - (rank > 4)), "some");
    DLS_TRY(dls_comm_all_gather_host(back, &rank, sizeof rank, gathered));
    for (int i = 0; i < 3; i++)
        EXPECT(gathered[i] == first + 2 - i, "host gather in the reversed row");
    dls_comm_destroy(all); // the others live on
    DLS_TRY(dls_comm_barrier(row));
    DLS_TRY(sum_of(back, 1, &sum));
    EXPECT(sum == 3, "%d", sum);
    dls_comm_destroy(row);
    dls_comm_destroy(column);
    dls_comm_destroy(some);
    dls_comm_destroy(back);
    return DLS_OK;
}

Test(collectives, rows_and_columns_of_a_mesh_are_communicators)
{
    expect_ranks(6, split_a_mesh, NULL);
}

/* use two communicators crosswise */
static dls_status cross(int rank, void *arg)
{
    int is_split = *(int *)arg;
    dls_comm *one, *two;
    cudaStream_t a, b;
    cudaEvent_t event;
    float *buf;
    DLS_TRY(test_world(NULL, &one));
    two = one;
    if (is_split)
        DLS_TRY(dls_comm_split(one, 0, 0, &two));
    DLS_TRY(test_buffer(&buf, 2 * sizeof *buf));
    buf[0] = buf[1] = 1;
    DLS_CUDA(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
    DLS_CUDA(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
    DLS_CUDA(cudaEventCreate(&event));
    if (rank == 0)
        DLS_TRY(dls_comm_all_reduce(one, buf, 1, DLS_F32, DLS_SUM, a));
    DLS_TRY(dls_comm_all_reduce(two, buf + 1, 1, DLS_F32, DLS_SUM, b));
    DLS_CUDA(cudaEventRecord(event, b));
    DLS_CUDA(cudaStreamWaitEvent(a, event, 0));
    if (rank == 1)
        DLS_TRY(dls_comm_all_reduce(one, buf, 1, DLS_F32, DLS_SUM, a));
    DLS_CUDA(cudaDeviceSynchronize());
    EXPECT(buf[0] == 2 && buf[1] == 2, "sums");
    if (is_split)
        dls_comm_destroy(two);
    dls_comm_destroy(one);
    return DLS_OK;
}

static dls_status starve(int rank, void *arg)
{
    dls_comm *all, *pair;
    float *buf;
    (void)arg;
    DLS_TRY(test_world(NULL, &all));
    DLS_TRY(dls_comm_split(all, rank / 2, 0, &pair));
    DLS_TRY(test_buffer(&buf, sizeof *buf));
    *buf = 1;
    if (rank != 3)
        DLS_TRY(dls_comm_all_reduce(pair, buf, 1, DLS_F32, DLS_SUM, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    return dls_comm_barrier(all);
}

Test(collectives, communicators_do_not_wait_for_each_other)
{
    int is_split = 1;
    expect_ranks(2, cross, &is_split);
}

Test(collectives, a_deadlock_within_a_part_is_named_in_ranks_of_the_world)
{
    const char *words[] = {"found a deadlock", "rank 2, ", "all-reduce of 1 f32 (sum)",
                           "waits for rank 3", NULL};
    expect_failure(4, starve, NULL, words);
}

/* use up the communicators */
static dls_status split_too_often(int rank, void *arg)
{
    dls_comm *all, *part;
    int *buf;
    (void)arg;
    DLS_TRY(test_world(NULL, &all));
    DLS_TRY(test_buffer(&buf, sizeof *buf));
    for (int k = 1; k < 32; k++) {
        DLS_TRY(dls_comm_split(all, 0, -rank, &part));
        EXPECT(dls_comm_rank(part) == 1 - rank, "rank %d is %d", rank,
               dls_comm_rank(part));
        dls_comm_destroy(part);
    }
    EXPECT(dls_comm_split(all, 0, 0, &part) == DLS_ERR_STATE && part == NULL, "a 33rd");
    EXPECT(strstr(dls_status_message(), "a rank has been in 32 communicators: no more"),
           "it says: %s", dls_status_message());
    *buf = rank + 1;
    DLS_TRY(dls_comm_all_reduce(all, buf, 1, DLS_COMM_I32, DLS_SUM, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    EXPECT(*buf == 3, "the world's sum is %d", *buf);
    dls_comm_destroy(all);
    return DLS_OK;
}

Test(collectives, communicators_are_counted_and_the_limit_is_named)
{
    expect_ranks(2, split_too_often, NULL);
}

/* disagree on the new collectives */
static dls_status disagree(int rank, void *arg)
{
    int how = *(int *)arg, odd = rank == 1;
    const dls_comm_options ring = {.algorithm = "all_reduce:ring,gather:binomial"};
    const dls_comm_options direct = {.algorithm = "all_reduce:direct,gather:binomial"};
    dls_comm *comm;
    float *in, *out;
    DLS_TRY(dls_gpu_init(NULL));
    DLS_TRY(dls_comm_create(&comm, how == 3 && odd ? &direct : &ring));
    DLS_TRY(test_buffer(&in, 4096));
    DLS_TRY(test_buffer(&out, 4096));
    memset(in, 0, 4096);
    if (how == 0)
        DLS_TRY(dls_comm_gather(comm, in, out, 5, DLS_F32, odd, 0));
    else if (how == 1)
        DLS_TRY(dls_comm_reduce_scatter(comm, in, out, 5, DLS_F32,
                                        odd ? DLS_PROD : DLS_SUM, 0));
    else if (how == 2 && odd)
        DLS_TRY(dls_comm_all_to_all(comm, in, out, 5, DLS_F32, 0));
    else if (how == 2)
        DLS_TRY(dls_comm_all_gather(comm, in, out, 5, DLS_F32, 0));
    else
        DLS_TRY(dls_comm_all_reduce(comm, in, 5, DLS_F32, DLS_SUM, 0));
    DLS_CUDA(cudaDeviceSynchronize());
    return DLS_OK;
}

Test(collectives, disagreements_are_reported_with_both_sites)
{
    static const char *const said[3][2] = {
        {"reduce-scatter of 5 f32 (sum)", "reduce-scatter of 5 f32 (prod)"},
        {"all-gather of 5 f32", "all-to-all of 5 f32"},
        {"all-reduce of 5 f32 (sum)", "direct"}};
    for (int how = 1; how < 4; how++) {
        const char *words[] = {said[how - 1][0], said[how - 1][1], "(collective 0", NULL};
        expect_failure(2, disagree, &how, words);
    }
}

/* Both ranks only wait: found by the search for deadlocks. */
Test(collectives, two_roots_are_reported_with_both_sites)
{
    const char *words[] = {"rank 1 calls gather of 5 f32", "rank 0 calls gather of 5 f32",
                           "(collective 0", NULL};
    int how = 0;
    expect_failure(2, disagree, &how, words);
}
