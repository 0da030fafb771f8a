/* tests/data/test_sampler_worlds.c: from chapters/04-data-parallelism-sampler.md. Edit the chapter, or edit here and run "make untangle". */
/* The sampler under changing world sizes: nothing repeated, nothing left out. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "data/sampler.h"

/* draw a sampler */
enum { SAMPLERS = 300, MOST_WINDOWS = 220, BEGIN = 11 };

static int drawn(int which, int n, int least, int most)
{
    return least + (int)(dls_rng_u32(77, (uint64_t)which, (uint64_t)n) %
                         (uint32_t)(most - least + 1));
}

/* Sampler n of the test. Every third has a batch larger than an epoch. */
static dls_sampler draw(int n)
{
    dls_sampler s;
    int length = drawn(1, n, 1, 9), windows = drawn(2, n, 1, n % 3 ? MOST_WINDOWS : 6);
    int rest = drawn(3, n, 0, length - 1), batch = drawn(4, n, 1, 40);
    uint64_t end = BEGIN + (uint64_t)(windows * length + rest) + 1;
    cr_assert_eq(dls_sampler_init(&s, (uint64_t)n, BEGIN, end, length, batch), DLS_OK);
    cr_assert_eq(s.windows, (uint64_t)windows);
    return s;
}

/* test shares of any world */
Test(data, shares_of_any_world_are_the_batch)
{
    for (int n = 0; n < SAMPLERS; n++) {
        dls_sampler s = draw(n);
        uint64_t whole[40], mine[40];
        int64_t step = drawn(5, n, 0, 1000);
        cr_assert_eq(dls_sampler_windows(&s, step, 0, s.batch, whole), DLS_OK);
        for (int world = 1; world <= 9; world++) {
            int next = 0, least = s.batch, most = 0;
            for (int r = 0, first, count; r < world; r++, next += count) {
                dls_sampler_share(&s, r, world, &first, &count);
                cr_assert_eq(first, next, "a gap or an overlap");
                cr_assert_eq(dls_sampler_windows(&s, step, first, count, mine), DLS_OK);
                cr_assert(memcmp(mine, whole + first, (size_t)count * sizeof *mine) == 0);
                least = count < least ? count : least;
                most = count > most ? count : most;
            }
            cr_assert_eq(next, s.batch);
            cr_assert_leq(most - least, 1, "unequal by more than one");
        }
    }
}

/* test worlds that change in every step */
/* Counts a step's windows, as the ranks of a world see them, at their positions. */
static int64_t count_step(const dls_sampler *s, int64_t step, int world, int64_t position,
                          int *seen)
{
    uint64_t at[40];
    for (int r = 0, first, n; r < world; r++) {
        dls_sampler_share(s, r, world, &first, &n);
        cr_assert_eq(dls_sampler_windows(s, step, first, n, at), DLS_OK);
        for (int i = 0; i < n; i++, position++) {
            uint64_t epoch = (uint64_t)position / s->windows;
            uint64_t window = (at[i] - BEGIN) / (uint64_t)s->length;
            cr_assert(window < s->windows && at[i] + (uint64_t)s->length < s->end);
            seen[epoch * s->windows + window]++;
        }
    }
    return position;
}

Test(data, nothing_is_repeated_or_left_out_when_the_world_changes)
{
    for (int n = 0; n < SAMPLERS; n++) {
        dls_sampler s = draw(n);
        int64_t position = 0, epochs = 3 + 2 * s.batch / (int64_t)s.windows;
        int *seen = calloc((size_t)(epochs + 1) * s.windows, sizeof *seen);
        int64_t steps = epochs * (int64_t)s.windows / s.batch;
        for (int64_t step = 0; step < steps; step++)
            position = count_step(&s, step, drawn(6 + n, (int)step, 1, 9), position,
                                  seen);
        cr_assert_eq(position, steps * s.batch);
        int64_t complete = position / (int64_t)s.windows * (int64_t)s.windows;
        for (int64_t i = 0; i < complete; i++)
            cr_assert_eq(seen[i], 1, "sampler %d: a window %d times", n, seen[i]);
        int64_t rest = 0; // of the epoch in which the last batch ended
        for (int64_t i = complete; i < (epochs + 1) * (int64_t)s.windows; i++) {
            rest += seen[i];
            cr_assert_leq(seen[i], 1);
        }
        cr_assert_eq(rest, position - complete);
        free(seen);
    }
}

/* test resuming at any step */
Test(data, a_sampler_made_anew_goes_on_where_the_old_one_was)
{
    for (int n = 0; n < SAMPLERS; n++) {
        dls_sampler old = draw(n);
        uint64_t before[40], after[40];
        for (int64_t step = 0; step < 8; step++) {
            dls_sampler_windows(&old, step, 0, old.batch, before);
            if (step % 3 == 2)
                memset(&old, 0xff, sizeof old), old = draw(n); // as after a restart
            dls_sampler_windows(&old, step, 0, old.batch, after);
            cr_assert_arr_eq(before, after, (size_t)old.batch * sizeof *before);
        }
    }
}
