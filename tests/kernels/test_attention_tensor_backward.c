/* tests/kernels/test_attention_tensor_backward.c: from chapters/10-flash-attention-tensor-cores-backward.md. Edit the chapter, or edit here and run "make untangle". */
/* The backward pass of attention by mma.sync. */
#include "attention_problem.h"

#define SHAPE(...) .run = dls_attention_tensor_forward, .s = {__VA_ARGS__}, .size = 1

/* test the backward shapes */
Test(attention_tensor_backward, lengths_around_a_tile)
{
    static const int lengths[][2] = {{1, 1}, {64, 64}, {65, 63}, {63, 65}, {1, 130},
                                     {130, 1}, {33, 97}};
    for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++)
        for (int causal = 0; causal < 2; causal++)
            expect_attention_gradients(
                (problem){SHAPE(.B = 1, .Tq = lengths[n][0], .Tk = lengths[n][1], .H = 1,
                                .Hk = 1, .D = 64, .causal = causal),
                          .format = causal});
}

Test(attention_tensor_backward, head_sizes)
{
    static const int sizes[] = {8, 32, 72, 96, 128, 200, 256};
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++)
        for (int format = 0; format < 2; format++)
            expect_attention_gradients(
                (problem){SHAPE(.B = 1, .Tq = 40, .Tk = 70, .H = 1, .Hk = 1,
                                .D = sizes[n], .causal = 1),
                          .format = format});
}

Test(attention_tensor_backward, groups_of_heads_in_one_array)
{
    expect_attention_gradients(
        (problem){SHAPE(.B = 2, .Tq = 37, .Tk = 37, .H = 6, .Hk = 2, .D = 32, .causal = 1,
                        .q_row = 328, .k_row = 72, .v_row = 80, .o_row = 200,
                        .q_sequence = 37 * 328 + 16, .k_sequence = 40 * 72)});
}

Test(attention_tensor_backward, packed_sequences)
{
    for (int causal = 0; causal < 2; causal++)
        expect_attention_gradients(
            (problem){SHAPE(.B = 5, .Tq = 70, .Tk = 80, .H = 2, .Hk = 1, .D = 32,
                            .causal = causal),
                      .packed = 1, .starts_q = {0, 70, 70, 71, 84, 90},
                      .starts_k = {0, 66, 70, 71, 151, 151}});
}

Test(attention_tensor_backward, a_cache)
{
    expect_attention_gradients(
        (problem){SHAPE(.B = 4, .Tq = 3, .Tk = 100, .H = 2, .Hk = 2, .D = 64,
                        .causal = 1),
                  .cached = 1, .lengths_k = {100, 0, 1, 67}});
}

Test(attention_tensor_backward, dropped_weights)
{
    for (int format = 0; format < 2; format++)
        expect_attention_gradients(
            (problem){SHAPE(.B = 2, .Tq = 66, .Tk = 71, .H = 4, .Hk = 2, .D = 64,
                            .causal = 1, .dropout = 0.25, .seed = 7, .stream = 11,
                            .first_sequence = 5, .first_head = 3),
                      .format = format});
}
