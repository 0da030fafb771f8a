/* tests/base/test_rng.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Philox against the known answers of the Random123 distribution; distributions. */
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "expect.h"

/* check the known answers */
static void expect_philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0,
                          uint32_t k1, const uint32_t answer[4])
{
    uint32_t counter[4] = {c0, c1, c2, c3}, key[2] = {k0, k1}, out[4];
    dls_philox(key, counter, out);
    cr_expect_arr_eq(out, answer, sizeof out);
}

Test(base, philox_known_answers)
{
    static const uint32_t zero[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    static const uint32_t ones[4] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    static const uint32_t pi[4] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
    expect_philox(0, 0, 0, 0, 0, 0, zero);
    expect_philox(~0u, ~0u, ~0u, ~0u, ~0u, ~0u, ones);
    expect_philox(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0,
                  pi);
}

/* check the indices */
Test(base, rng_words_follow_the_counter)
{
    uint32_t key[2] = {7, 1}, counter[4] = {5, 0, 9, 2}, out[4];
    dls_philox(key, counter, out);
    for (uint64_t i = 0; i < 4; i++)
        cr_expect_eq(dls_rng_u32(1ull << 32 | 7, 2ull << 32 | 9, 20 + i), out[i]);
}

Test(base, rng_depends_on_all_three)
{
    uint32_t word = dls_rng_u32(1, 2, 3);
    cr_expect_eq(dls_rng_u32(1, 2, 3), word);
    cr_expect_neq(dls_rng_u32(1 + (1ull << 40), 2, 3), word);
    cr_expect_neq(dls_rng_u32(1, 2 + (1ull << 40), 3), word);
    cr_expect_neq(dls_rng_u32(1, 2, 3 + (1ull << 40)), word);
}

/* check the distributions */
enum { SAMPLES = 200000 };

Test(base, rng_uniform_fills_the_interval)
{
    int bins[16] = {0};
    for (int i = 0; i < SAMPLES; i++) {
        double u = dls_rng_uniform(42, 0, (uint64_t)i);
        cr_assert(u > 0 && u < 1);
        bins[(int)(u * 16)]++;
    }
    for (int b = 0; b < 16; b++)
        cr_expect_lt(fabs(bins[b] - SAMPLES / 16.0), 5 * sqrt(SAMPLES / 16.0));
}

Test(base, rng_normal_has_the_right_moments)
{
    double sum[5] = {0}, neighbours = 0, before = 0;
    for (int i = 0; i < SAMPLES; i++) {
        double z = dls_rng_normal(42, 1, (uint64_t)i), power = 1;
        for (int k = 1; k <= 4; k++)
            sum[k] += power *= z;
        neighbours += z * before;
        before = z;
    }
    double error = 5 / sqrt(SAMPLES);
    cr_expect_lt(fabs(sum[1] / SAMPLES), error);
    cr_expect_lt(fabs(sum[2] / SAMPLES - 1), error * sqrt(2));
    cr_expect_lt(fabs(sum[3] / SAMPLES), error * sqrt(15));
    cr_expect_lt(fabs(sum[4] / SAMPLES - 3), error * sqrt(96));
    cr_expect_lt(fabs(neighbours / SAMPLES), error);
}
