/* tests/data/test_sampler.c: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* The sampler's promises: one batch for all worlds, epochs complete, orders random. */
#include <criterion/criterion.h>
#include <string.h>

#include "data/sampler.h"

/* test that worlds share a batch */
Test(data, every_world_sees_the_same_batch)
{
    const int worlds[] = {1, 2, 3, 4, 8}, batch = 26;
    dls_sampler s;
    uint64_t whole[26], mine[26];
    cr_assert_eq(dls_sampler_init(&s, 5, 100, 9000, 16, batch), DLS_OK);
    for (int64_t step = 0; step < 60; step++) {
        cr_assert_eq(dls_sampler_windows(&s, step, 0, batch, whole), DLS_OK);
        for (int w = 0; w < 5; w++) {
            int next = 0;
            for (int r = 0, first, n; r < worlds[w]; r++, next = first + n) {
                dls_sampler_share(&s, r, worlds[w], &first, &n);
                cr_assert_eq(first, next);
                cr_assert(n == batch / worlds[w] || n == batch / worlds[w] + 1);
                cr_assert_eq(dls_sampler_windows(&s, step, first, n, mine), DLS_OK);
                cr_assert_arr_eq(mine, whole + first, (size_t)n * sizeof *mine);
            }
            cr_assert_eq(next, batch);
        }
    }
}

/* test that epochs are complete */
Test(data, each_epoch_has_each_window_once)
{
    enum { LONGEST = 700 };
    uint64_t offset;
    for (uint64_t bytes = 8; bytes <= LONGEST; bytes += 1 + bytes / 7)
        for (int batch = 1; batch <= 13; batch += 4) {
            dls_sampler s;
            cr_assert_eq(dls_sampler_init(&s, 3, 40, 40 + bytes, 7, batch), DLS_OK);
            cr_assert_eq(s.windows, (bytes - 1) / 7);
            int64_t position = 0;
            for (int epoch = 0; epoch < 3; epoch++) {
                char seen[LONGEST] = {0};
                uint64_t shift = 7;
                for (uint64_t i = 0; i < s.windows; i++, position++) {
                    dls_sampler_windows(&s, position / batch, (int)(position % batch), 1,
                                        &offset);
                    cr_assert(offset >= 40 && offset + 7 + 1 <= 40 + bytes);
                    cr_assert(i == 0 || (offset - 40) % 7 == shift, "one grid per epoch");
                    shift = (offset - 40) % 7;
                    cr_assert_eq(seen[(offset - 40) / 7]++, 0, "a window twice");
                }
            }
        }
}

/* test that orders are random */
static int order_number(const dls_sampler *s, uint64_t epoch)
{
    uint64_t w[5];
    int number = 0;
    for (int i = 0; i < 5; i++) {
        uint64_t position = epoch * 5 + (uint64_t)i;
        dls_sampler_windows(s, (int64_t)position, 0, 1, &w[i]);
    }
    for (int i = 0; i < 5; i++) { // Lehmer code
        int smaller = 0;
        for (int j = i + 1; j < 5; j++)
            smaller += w[j] < w[i];
        number = number * (5 - i) + smaller;
    }
    return number;
}

Test(data, all_orders_are_equally_likely)
{
    int counts[120] = {0};
    double chi2 = 0;
    for (uint64_t seed = 0; seed < 24; seed++) {
        dls_sampler s;
        cr_assert_eq(dls_sampler_init(&s, seed, 0, 11, 2, 1), DLS_OK);
        for (uint64_t epoch = 0; epoch < 1000; epoch++)
            counts[order_number(&s, epoch)]++;
    }
    for (int i = 0; i < 120; i++)
        chi2 += (counts[i] - 200.0) * (counts[i] - 200.0) / 200.0;
    cr_assert(chi2 > 60 && chi2 < 200, "chi squared is %g", chi2);
}

/* test the edges of the sampler */
Test(data, every_byte_is_reached_in_some_epoch)
{
    dls_sampler s;
    char reached[58] = {0};
    uint64_t offset;
    cr_assert_eq(dls_sampler_init(&s, 2, 0, 58, 10, 1), DLS_OK); // rest of 7 bytes
    for (int64_t step = 0; step < 5 * 100; step++) {
        cr_assert_eq(dls_sampler_windows(&s, step, 0, 1, &offset), DLS_OK);
        memset(reached + offset, 1, 11);
    }
    for (int i = 0; i < 58; i++)
        cr_assert(reached[i], "byte %d", i);
}

Test(data, sampler_works_at_its_edges)
{
    dls_sampler s;
    uint64_t a[3], b[3];
    cr_assert_eq(dls_sampler_init(&s, 1, 0, 8, 8, 1), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "8 bytes of text: expected at least 9"));
    cr_assert_eq(dls_sampler_init(&s, 1, 0, 100, 0, 1), DLS_ERR_INPUT);
    cr_assert_eq(dls_sampler_init(&s, 1, 0, 9, 8, 3),
                 DLS_OK); // one window, batch of three
    cr_assert_eq(dls_sampler_windows(&s, 7, 0, 3, a), DLS_OK);
    cr_assert(a[0] == 0 && a[1] == 0 && a[2] == 0);
    cr_assert_eq(dls_sampler_windows(&s, 7, 1, 3, a), DLS_ERR_INPUT);
    cr_assert_eq(dls_sampler_windows(&s, -1, 0, 1, a), DLS_ERR_INPUT);
    cr_assert_eq(dls_sampler_init(&s, 1, 0, (uint64_t)1 << 40, 1, 3), DLS_OK); // terabyte
    cr_assert_eq(dls_sampler_windows(&s, INT64_C(1) << 38, 0, 3, a), DLS_OK);
    cr_assert_eq(dls_sampler_windows(&s, INT64_C(1) << 38, 0, 3, b), DLS_OK);
    cr_assert_arr_eq(a, b, sizeof a);
}
