/* tests/layers/test_one_sided.c: from chapters/08-dispatch-nodes-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* One-sided dispatch: every row in its place, turn after turn. */
#include "nodes_case.h"

#include "../comm/world.h"
#include "comm/window.h"

/* open a rank with a window */
enum { PER = 3, ROOM = 5, COLUMNS = 4, TURNS = 40 };

typedef struct one_sided {
    dls_comm *comm;
    dls_window *window;
    int n, rank, slots;
    int *going, *coming;            // (slots)
    int *sent, *placed, *back;      // rows of ints, (slots * ROOM, COLUMNS)
    cudaStream_t stream;
} one_sided;

static dls_status open_window(one_sided *x, int nodes, int places)
{
    size_t rows = sizeof(int) * ROOM * COLUMNS;
    *x = (one_sided){0};
    DLS_TRY(test_world(test_cluster(nodes, places), &x->comm));
    x->n = dls_comm_size(x->comm);
    x->rank = dls_comm_rank(x->comm);
    x->slots = PER * x->n;
    DLS_TRY(dls_window_open(&x->window, x->comm, x->slots, rows));
    DLS_TRY(test_buffer(&x->going, sizeof(int) * x->slots));
    DLS_TRY(test_buffer(&x->coming, sizeof(int) * x->slots));
    DLS_TRY(test_buffer(&x->sent, rows * x->slots));
    DLS_TRY(test_buffer(&x->placed, rows * x->slots));
    DLS_TRY(test_buffer(&x->back, rows * x->slots));
    DLS_CUDA(cudaStreamCreate(&x->stream));
    return DLS_OK;
}

static void close_window(one_sided *x)
{
    void *all[] = {x->going, x->coming, x->sent, x->placed, x->back};
    for (int i = 0; i < 5; i++)
        cudaFree(all[i]);
    dls_window_close(x->window);
    cudaStreamDestroy(x->stream);
    dls_comm_destroy(x->comm);
}

/* fill and compare places */
static int count_of(int turn, int source, int expert)
{
    int many = (turn * 7 + source * 3 + expert * 5) % (ROOM + 3) % (ROOM + 1);
    return turn % TURNS == 3 ? 0 : many;
}

static int number_of(int turn, int source, int expert, int row, int column)
{
    return (((turn * 16 + source) * 64 + expert) * 8 + row) * COLUMNS + column + 1;
}

static void fill_turn(one_sided *x, int turn)
{
    int *to = x->sent;
    for (int e = 0; e < x->slots; e++) {
        x->going[e] = count_of(turn, x->rank, e);
        for (int i = 0; i < x->going[e] * COLUMNS; i++)
            *to++ = number_of(turn, x->rank, e, i / COLUMNS, i % COLUMNS);
    }
    memset(x->placed, 0x7f, sizeof(int) * x->slots * ROOM * COLUMNS);
    memset(x->back, 0x7f, sizeof(int) * x->slots * ROOM * COLUMNS);
}

/* compare every place */
static dls_status compare_places(const one_sided *x, int turn)
{
    for (int s = 0; s < x->slots; s++) {
        int source = s % x->n, e = x->rank * PER + s / x->n;
        int count = count_of(turn, source, e);
        EXPECT(x->coming[s] == count, "turn %d: %d rows of rank %d for expert %d", turn,
               x->coming[s], source, e);
        for (int i = 0; i < ROOM * COLUMNS; i++) {
            int want = i < count * COLUMNS
                ? number_of(turn, source, e, i / COLUMNS, i % COLUMNS) : 0;
            EXPECT(x->placed[s * ROOM * COLUMNS + i] == want, "turn %d: number %d of "
                   "rank %d for expert %d is %d, not %d", turn, i, source, e,
                   x->placed[s * ROOM * COLUMNS + i], want);
        }
    }
    return DLS_OK;
}

/* compare what came back */
static dls_status compare_back(const one_sided *x, int turn)
{
    int rows = 0;
    for (int e = 0; e < x->slots; e++)
        rows += x->going[e];
    EXPECT(!memcmp(x->back, x->sent, sizeof(int) * rows * COLUMNS),
           "turn %d: something else came back", turn);
    EXPECT(rows == x->slots * ROOM || x->back[rows * COLUMNS] == 0x7f7f7f7f,
           "turn %d: more came back", turn);
    return DLS_OK;
}

/* run turns of a window */
static dls_status there_and_back(one_sided *x)
{
    size_t row = sizeof(int) * COLUMNS;
    dls_window_rows there = {DLS_BY_RANK, x->going, ROOM, row, NULL};
    dls_window_rows here = {DLS_BY_BLOCK, x->coming, ROOM, row, NULL};
    DLS_TRY(dls_window_put(x->window, &there, x->sent, x->stream));
    DLS_TRY(dls_window_take(x->window, &here, x->placed, x->coming, x->stream));
    DLS_TRY(dls_window_put(x->window, &here, x->placed, x->stream));
    DLS_TRY(dls_window_take(x->window, &there, x->back, NULL, x->stream));
    DLS_CUDA(cudaStreamSynchronize(x->stream));
    return DLS_OK;
}

/* count messages of turns */
static dls_status count_messages(const one_sided *x)
{
    dls_window_statistics s = dls_window_stats(x->window);
    EXPECT(s.turns == 2 * TURNS && s.messages == 2 * TURNS * (uint64_t)(x->n - 1),
           "%llu messages", (unsigned long long)s.messages);
    for (int r = 0; r < x->n; r++) {
        uint64_t rows = 0;
        for (int turn = 0; turn < TURNS; turn++)
            for (int k = 0; k < PER; k++)
                rows += count_of(turn, x->rank, r * PER + k)
                      + count_of(turn, r, x->rank * PER + k);
        uint64_t bytes = (rows * COLUMNS + 2 * TURNS * PER) * sizeof(int);
        EXPECT(s.bytes[r] == (r == x->rank ? 0 : bytes), "%llu bytes to rank %d, not %llu",
               (unsigned long long)s.bytes[r], r, (unsigned long long)bytes);
    }
    return DLS_OK;
}

/* run many turns */
static dls_status run_turns(int rank, void *arg)
{
    const int *grid = arg;
    one_sided x;
    DLS_TRY(open_window(&x, grid[0], grid[1]));
    for (int turn = 0; turn < TURNS; turn++) {
        fill_turn(&x, turn);
        if ((turn + rank) % 5 == 0)
            usleep(2000);           // a late one
        DLS_TRY(there_and_back(&x));
        DLS_TRY(compare_places(&x, turn));
        DLS_TRY(compare_back(&x, turn));
    }
    DLS_TRY(count_messages(&x));
    close_window(&x);
    return DLS_OK;
}

#define TURNS_TEST(nodes, places)                                             \
    Test(one_sided, every_row_in_its_place_on_##nodes##_nodes_of_##places)    \
    {                                                                         \
        int grid[] = {nodes, places};                                         \
        expect_ranks(nodes *places, run_turns, grid);                         \
    }
TURNS_TEST(1, 2)
TURNS_TEST(3, 1)
TURNS_TEST(1, 3)
TURNS_TEST(2, 2)
TURNS_TEST(2, 4)

/* run ahead of slow ranks */
static dls_status run_ahead(int rank, void *arg)
{
    enum { AHEAD = 20 };
    one_sided x;
    int *placed[AHEAD], *sent[AHEAD], *going[AHEAD];
    size_t row = sizeof(int) * COLUMNS;
    (void)arg;
    DLS_TRY(open_window(&x, 1, 3));
    size_t rows = row * x.slots * ROOM;
    for (int t = 0; t < AHEAD; t++) {
        DLS_TRY(test_buffer(&placed[t], rows));
        DLS_TRY(test_buffer(&sent[t], rows));
        DLS_TRY(test_buffer(&going[t], sizeof(int) * x.slots));
        fill_turn(&x, t);
        memcpy(sent[t], x.sent, rows);
        memcpy(going[t], x.going, sizeof(int) * x.slots);
    }
    usleep(rank * 5000);
    for (int t = 0; t < AHEAD; t++) {
        dls_window_rows there = {DLS_BY_RANK, going[t], ROOM, row, NULL}, here = there;
        here.order = DLS_BY_BLOCK;
        DLS_TRY(dls_window_put(x.window, &there, sent[t], x.stream));
        DLS_TRY(dls_window_take(x.window, &here, placed[t], NULL, x.stream));
    }
    DLS_CUDA(cudaStreamSynchronize(x.stream));
    for (int t = 0; t < AHEAD; t++) {
        for (int s = 0; s < x.slots; s++)
            x.coming[s] = count_of(t, s % x.n, x.rank * PER + s / x.n);
        memcpy(x.placed, placed[t], rows);
        DLS_TRY(compare_places(&x, t));
        cudaFree(placed[t]);
        cudaFree(sent[t]);
        cudaFree(going[t]);
    }
    close_window(&x);
    return DLS_OK;
}

/* let fast ranks run */
Test(one_sided, fast_ranks_do_not_write_over_slow_ones)
{
    int ranks = 3;
    expect_ranks(ranks, run_ahead, NULL);
}

/* time a turn of a window */
static dls_status time_turn(one_sided *x, int rows, double *seconds)
{
    size_t row = sizeof(int) * COLUMNS;
    dls_window_rows there = {DLS_BY_RANK, x->going, ROOM, row, NULL}, here = there;
    here.order = DLS_BY_BLOCK;
    for (int e = 0; e < x->slots; e++)
        x->going[e] = e / PER != x->rank ? rows : 0;
    DLS_CUDA(cudaStreamSynchronize(x->stream));
    DLS_TRY(dls_comm_barrier(x->comm));
    double before = dls_gpu_host_time();
    DLS_TRY(dls_window_put(x->window, &there, x->sent, x->stream));
    DLS_TRY(dls_window_take(x->window, &here, x->placed, x->coming, x->stream));
    DLS_CUDA(cudaStreamSynchronize(x->stream));
    *seconds = dls_gpu_host_time() - before;
    return DLS_OK;
}

/* hold a turn against the link */
static dls_status run_clock(int rank, void *arg)
{
    one_sided x;
    double none, all, alpha, beta;
    (void)arg;
    DLS_TRY(open_window(&x, 2, 1));
    DLS_TRY(dls_cluster_link(dls_gpu_cluster(), rank, 1 - rank, &alpha, &beta));
    DLS_TRY(time_turn(&x, 0, &none));
    DLS_TRY(time_turn(&x, 0, &none));
    DLS_TRY(time_turn(&x, ROOM, &all));
    double more = beta * PER * ROOM * COLUMNS * sizeof(int);
    EXPECT(fabs(all - none - more) < 1e-12, "%g s longer, not %g", all - none, more);
    EXPECT(none >= alpha && none < alpha + 30e-6, "an empty turn takes %g s", none);
    close_window(&x);
    return DLS_OK;
}

Test(one_sided, a_turn_takes_alpha_and_beta)
{
    int ranks = 2;
    expect_ranks(ranks, run_clock, NULL);
}

/* hold a turn against the ports */
static dls_status run_order(int rank, void *arg)
{
    one_sided x;
    double empty;
    (void)arg;
    DLS_TRY(open_window(&x, 2, 4));
    DLS_TRY(time_turn(&x, 0, &empty));
    DLS_TRY(time_turn(&x, 0, &empty));
    EXPECT(empty >= 40e-6 && empty < 55e-6, "rank %d took %g s", rank, empty);
    close_window(&x);
    return DLS_OK;
}

Test(one_sided, ports_to_the_network_are_never_idle)
{
    int ranks = 8;
    expect_ranks(ranks, run_order, NULL);
}

/* refuse what has no room */
static dls_status run_too_many(int rank, void *arg)
{
    one_sided x;
    size_t row = sizeof(int) * COLUMNS;
    (void)arg;
    DLS_TRY(open_window(&x, 1, 2));
    fill_turn(&x, 0);
    x.going[2] = rank == 1 ? ROOM + 1 : 0;
    memset(x.placed, 0, sizeof(int));
    dls_window_rows there = {DLS_BY_RANK, x.going, ROOM, row, NULL}, wide = there;
    wide.row = row + 1;
    EXPECT(dls_window_put(x.window, &wide, x.sent, x.stream) == DLS_ERR_INPUT,
           "a slot took more than it has");
    DLS_TRY(there_and_back(&x));
    return DLS_OK;
}

Test(one_sided, refuses_more_rows_than_there_is_room_for)
{
    int ranks = 2;
    if (test_skips(ranks))
        return;
    dls_status s = test_run_ranks(ranks, run_too_many, NULL);
    cr_assert_neq(s, DLS_OK);
    cr_assert(strstr(dls_status_message(), "one-sided: 6 rows in block 2; there is room "
                                           "for 5"), "%s", dls_status_message());
}
