/* tests/kernels/test_attention_tensor.c: from chapters/10-flash-attention-tensor-cores-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Attention by mma.sync. */
#include "attention_problem.h"

/* test the shapes */
#define SHAPE(...) .run = dls_attention_tensor_forward, .s = {__VA_ARGS__}, .size = 2

Test(attention_tensor, lengths_around_a_tile)
{
    static const int lengths[][2] = {{1, 1}, {63, 65}, {64, 64}, {65, 63}, {1, 130},
                                     {130, 1}, {17, 191}};
    for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++)
        for (int causal = 0; causal < 2; causal++)
            expect_attention((problem){SHAPE(.B = 1, .Tq = lengths[n][0],
                                           .Tk = lengths[n][1], .H = 1, .Hk = 1,
                                           .D = 64, .causal = causal)});
}

Test(attention_tensor, head_sizes)
{
    static const int sizes[] = {8, 32, 40, 64, 72, 96, 128, 200, 256};
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++)
        for (int format = 0; format < 2; format++)
            expect_attention((problem){SHAPE(.B = 1, .Tq = 20, .Tk = 70, .H = 1, .Hk = 1,
                                           .D = sizes[n], .causal = 1),
                                     .format = format});
}

Test(attention_tensor, groups_of_heads_in_one_array)
{
    expect_attention((problem){SHAPE(.B = 2, .Tq = 37, .Tk = 37, .H = 6, .Hk = 2, .D = 32,
                                   .causal = 1, .q_row = 328, .k_row = 72, .v_row = 80,
                                   .o_row = 200, .q_sequence = 37 * 328 + 16,
                                   .k_sequence = 40 * 72)});
    expect_attention((problem){SHAPE(.B = 1, .Tq = 5, .Tk = 9, .H = 4, .Hk = 1,
                                     .D = 64)});
}

Test(attention_tensor, packed_sequences)
{
    for (int causal = 0; causal < 2; causal++)
        expect_attention((problem){SHAPE(.B = 5, .Tq = 70, .Tk = 80, .H = 2, .Hk = 1,
                                       .D = 32, .causal = causal),
                                 .packed = 1, .starts_q = {0, 70, 70, 71, 84, 90},
                                 .starts_k = {0, 66, 70, 71, 151, 151}});
}

Test(attention_tensor, a_cache)
{
    expect_attention((problem){SHAPE(.B = 4, .Tq = 3, .Tk = 100, .H = 2, .Hk = 2, .D = 64,
                                   .causal = 1),
                             .cached = 1, .lengths_k = {100, 0, 1, 67}});
}

Test(attention_tensor, dropped_weights)
{
    for (int format = 0; format < 2; format++)
        expect_attention((problem){SHAPE(.B = 2, .Tq = 66, .Tk = 71, .H = 2, .Hk = 1,
                                       .D = 64, .causal = 1, .dropout = 0.25, .seed = 7,
                                       .stream = 11, .first_sequence = 5,
                                       .first_head = 3),
                                 .format = format});
}

Test(attention_tensor, large_scores)
{
    for (int format = 0; format < 2; format++)
        expect_attention((problem){SHAPE(.B = 1, .Tq = 20, .Tk = 90, .H = 1, .Hk = 1,
                                       .D = 64, .scale = 4),
                                 .format = format});
}

/* test what is not a number */
static double first_of_row(int i, double in_query, double in_key, int keys)
{
    problem p = {SHAPE(.B = 1, .Tq = 20, .Tk = keys, .H = 1, .Hk = 1, .D = 32)};
    make_attention(&p);
    memset(p.q, 0, 2 * p.n_q);
    p.q[3 * 32] = attention_to_bits(p.format, in_query);
    for (int j = 0; j < keys; j++)
        p.k[j * 32] = attention_to_bits(p.format, j == keys - 1 ? in_key : 0);
    run_attention(&p);
    double got = attention_from_bits(p.format, p.o[i * 32]);
    free_attention(&p);
    return got;
}

Test(attention_tensor, infinite_scores)
{
    cr_expect_eq(first_of_row(3, -1, INFINITY, 1), 0);
    cr_expect(isfinite(first_of_row(3, -1, INFINITY, 2)));
    cr_expect(isnan(first_of_row(3, 1, INFINITY, 2)));
    cr_expect(isnan(first_of_row(3, NAN, 1, 2)));
    cr_expect(isfinite(first_of_row(4, NAN, 1, 2)));
}

/* test what does not apply */
Test(attention_tensor, refusals)
{
    static uint16_t x[16] __attribute__((aligned(16)));
    dls_attention_shape good = {.B = 1, .Tq = 1, .Tk = 1, .H = 1, .Hk = 1, .D = 8};
    cr_expect(dls_attention_tensor_applies(&good, x, x, x, x));
    cr_expect_not(dls_attention_tensor_applies(&good, x + 1, x, x, x));
    dls_attention_shape bad[] = {good, good, good, good, good};
    bad[0].D = 12;
    bad[1].D = 264;
    bad[2].k_row = 12;
    bad[3].scale = -1;
    bad[4].v_sequence = 4;
    for (int i = 0; i < 5; i++) {
        cr_expect_not(dls_attention_tensor_applies(&bad[i], x, x, x, x), "%d", i);
        cr_expect_eq(dls_attention_tensor_forward(0, 0, &bad[i], x, NULL, x, x, x),
                     DLS_ERR_STATE);
    }
}
