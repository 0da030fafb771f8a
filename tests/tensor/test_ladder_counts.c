/* tests/tensor/test_ladder_counts.c: from chapters/02-gemm-ladder-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The counts by hand: the sums agree with the formulas of the chapter. */
#include <criterion/criterion.h>

#include "ladder_counts.h"

/* test the sums against the formulas */
static const struct {
    long load_requests, load_sectors, store_requests, store_sectors;
    long read_requests, read_wavefronts, write_requests, write_wavefronts;
} at_256[10] = {
    [1] = {1048576, 17301504, 2048, 65536, 0, 0, 0, 0},
    [2] = {1048576, 2621440, 2048, 8192, 0, 0, 0, 0},
    [3] = {32768, 131072, 2048, 8192, 1048576, 1048576, 32768, 32768},
    [4] = {16384, 65536, 2048, 8192, 589824, 589824, 16384, 16384},
    [5] = {8192, 32768, 2048, 65536, 131072, 393216, 8192, 8192},
    [6] = {2048, 32768, 512, 8192, 32768, 131072, 5120, 8192},
    [7] = {2048, 32768, 512, 8192, 32768, 131072, 2048, 8192},
    [8] = {2048, 32768, 512, 8192, 24576, 98304, 2048, 8192},
    [9] = {1024, 16384, 2048, 16384, 3072, 12288, 1024, 4096},
};

Test(ladder_counts, sums_are_the_formulas)
{
    for (int step = 1; step <= 9; step++) {
        ladder_counts n = ladder_count(step, 256, 256, 256);
        cr_expect_eq(n.load.requests, at_256[step].load_requests, "step %d", step);
        cr_expect_eq(n.load.pieces, at_256[step].load_sectors, "step %d", step);
        cr_expect_eq(n.store.requests, at_256[step].store_requests, "step %d", step);
        cr_expect_eq(n.store.pieces, at_256[step].store_sectors, "step %d", step);
        cr_expect_eq(n.shared_load.requests, at_256[step].read_requests, "%d", step);
        cr_expect_eq(n.shared_load.pieces, at_256[step].read_wavefronts, "%d", step);
        cr_expect_eq(n.shared_store.requests, at_256[step].write_requests, "%d", step);
        cr_expect_eq(n.shared_store.pieces, at_256[step].write_wavefronts, "%d", step);
        cr_expect_eq(n.flops, 2l * 256 * 256 * 256 + 256 * 256, "step %d", step);
        cr_expect_eq(n.cold, (step == 9 ? 2 : 3) * 256l * 256 * 4, "step %d", step);
    }
}

static const long at_odd[10][7] = {
    [1] = {9045, 103950, 3015, 0, 0, 202005, 26880},
    [2] = {8978, 20636, 493, 0, 0, 202005, 26880},
    [3] = {600, 1512, 493, 25344, 25344, 789447, 26880},
    [4] = {351, 1051, 493, 11840, 11840, 658375, 26880},
    [5] = {431, 809, 3015, 5440, 15680, 1313735, 26880},
    [6] = {357, 2471, 1641, 1480, 5440, 1313735, 26880},
    [7] = {357, 2471, 1641, 1600, 6400, 1313735, 26880},
    [8] = {325, 2471, 1907, 1280, 5120, 1313735, 26880},
    [9] = {325, 2009, 1354, 704, 2816, 2100167, 19488},
};

Test(ladder_counts, the_table_of_the_odd_size)
{
    for (int step = 1; step <= 9; step++) {
        ladder_counts n = ladder_count(step, 67, 45, 33);
        const long row[7] = {n.load.requests + n.store.requests, n.load.pieces,
                             n.store.pieces,
                             n.shared_load.requests + n.shared_store.requests,
                             n.shared_load.pieces + n.shared_store.pieces, n.flops,
                             n.cold};
        for (int i = 0; i < 7; i++)
            cr_expect_eq(row[i], at_odd[step][i], "step %d, column %d", step, i + 1);
    }
}

/* test the sums at an odd size */
Test(ladder_counts, a_row_of_odd_length)
{
    ladder_counts n = ladder_count(2, 1, 45, 8);
    cr_expect_eq(n.load.requests, 32);
    cr_expect_eq(n.load.pieces, 39 + 20 + 16);
    cr_expect_eq(n.store.requests, 2);
    cr_expect_eq(n.store.pieces, 4 + 2);
    cr_expect_eq(n.cold, 32 * (1 + 45 + 6));
}
