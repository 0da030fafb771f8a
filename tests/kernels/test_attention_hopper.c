/* tests/kernels/test_attention_hopper.c: from chapters/10-flash-attention-hopper.md. Edit the chapter, or edit here and run "make untangle". */
/* Attention by wgmma and TMA; on a device of capability 9.0, emulated or not. */
#include "attention_problem.h"

#include "kernels/attention_hopper.h"
#include "vgpu/simt.h"

#define SHAPE(...) .run = dls_attention_hopper_forward, .s = {__VA_ARGS__}, .size = 2

/* hold the hopper kernel to the bound */
Test(attention_hopper, lengths_around_a_tile)
{
    static const int lengths[][2] = {{1, 1}, {128, 128}, {129, 127}, {64, 300}, {190, 1}};
    for (size_t n = 0; n < sizeof lengths / sizeof *lengths; n++)
        for (int causal = 0; causal < 2; causal++)
            expect_attention((problem){SHAPE(.B = 1, .Tq = lengths[n][0],
                                             .Tk = lengths[n][1], .H = 1, .Hk = 1,
                                             .D = 64, .causal = causal),
                                       .format = causal});
}

Test(attention_hopper, wide_heads)
{
    for (int format = 0; format < 2; format++)
        expect_attention((problem){SHAPE(.B = 1, .Tq = 70, .Tk = 400, .H = 1, .Hk = 1,
                                         .D = 128, .causal = format),
                                   .format = format});
}

Test(attention_hopper, padded_heads)
{
    static const int sizes[] = {8, 40, 72, 96, 120};
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++)
        for (int format = 0; format < 2; format++)
            expect_attention((problem){SHAPE(.B = 1, .Tq = 20, .Tk = 150, .H = 2, .Hk = 1,
                                             .D = sizes[n], .causal = format),
                                       .format = format});
}

Test(attention_hopper, dropped_weights)
{
    for (int format = 0; format < 2; format++)
        expect_attention((problem){SHAPE(.B = 2, .Tq = 130, .Tk = 135, .H = 2, .Hk = 1,
                                         .D = 64, .causal = 1, .dropout = 0.25, .seed = 7,
                                         .stream = 11, .first_sequence = 5,
                                         .first_head = 3),
                                   .format = format});
}

Test(attention_hopper, groups_of_heads_in_one_array)
{
    expect_attention((problem){SHAPE(.B = 2, .Tq = 37, .Tk = 45, .H = 4, .Hk = 2,
                                     .D = 64, .causal = 1, .q_row = 520, .k_row = 136,
                                     .v_row = 144, .o_row = 264,
                                     .q_sequence = 37 * 520 + 16,
                                     .k_sequence = 50 * 136)});
}

Test(attention_hopper, large_scores)
{
    expect_attention((problem){SHAPE(.B = 1, .Tq = 20, .Tk = 290, .H = 1, .Hk = 1,
                                     .D = 64, .scale = 4)});
}

#ifdef DLS_BACKEND_virtual
Test(attention_hopper, any_order_of_the_threads)
{
    for (unsigned seed = 1; seed <= 6; seed++) {
        dls_simt_configure(1, seed);
        expect_attention((problem){SHAPE(.B = 1, .Tq = 65, .Tk = 510, .H = 1, .Hk = 1,
                                         .D = 64)});
    }
}
#endif

/* test where the hopper kernel applies */
static uint16_t x[16] __attribute__((aligned(16)));
static const int starts[2];

static int applies(const dls_attention_shape *s)
{
    return dls_attention_hopper_applies(s, x, x, x, x);
}

Test(attention_hopper, applies)
{
    dls_attention_shape good = {.B = 1, .Tq = 1, .Tk = 1, .H = 1, .Hk = 1, .D = 128};
    cr_expect(applies(&good));
    dls_attention_shape bad[] = {good, good, good, good, good};
    static const char *const why[] = {
        "attention on Hopper: the head size is above 128",
        "attention on Hopper: the sequences are packed",
        "attention on Hopper: the lengths of the keys differ",
        "attention on Hopper: a size or a stride is not a multiple of 8",
        "attention on Hopper: there are no queries or no keys"};
    bad[0].D = 136;
    bad[1].starts_q = starts;
    bad[2].lengths_k = starts;
    bad[3].D = 20;
    bad[4].Tk = 0;
    for (int i = 0; i < 5; i++) {
        cr_expect_not(applies(&bad[i]), "%d", i);
        cr_expect_eq(dls_attention_hopper_forward(0, 0, &bad[i], x, NULL, x, x, x),
                     DLS_ERR_STATE);
        cr_expect_str_eq(dls_status_message(), why[i]);
    }
}

#ifdef DLS_BACKEND_virtual
Test(attention_hopper, applies_to_hopper_alone)
{
    dls_attention_shape good = {.B = 1, .Tq = 1, .Tk = 1, .H = 1, .Hk = 1, .D = 128};
    setenv("DLS_CLUSTER", "code/vgpu/clusters/dgx-a100.yaml", 1);
    cr_expect_not(applies(&good));
}
#endif
