/* tests/kernels/test_attention_decode.c: from chapters/10-flash-attention-decode.md. Edit the chapter, or edit here and run "make untangle". */
/* Split-KV decoding: every number of parts gives the attention. */
#include <stdio.h>

#include "attention_case.h"
#include "kernels/attention_decode.h"

/* decode in every number of parts */
static void decode(kcase *k, acase *a, int splits)
{
    size_t rows = (size_t)a->s.B * a->s.H * a->s.Tq;
    size_t bytes = dls_attention_decode_temporary(&a->s, k->ctx.dtype, splits);
    a->dev_lse = kcase_space_acc(k, rows);
    a->temporary = kcase_space_acc(k, bytes / 4 + 1);
    a->dev[OUT] = kcase_space(k, a->size[OUT]);
    OK(dls_attention_decode(&k->ctx, &a->on_device, splits, a->dev[OUT], a->dev_lse,
                            a->temporary, a->dev[Q], a->dev[K], a->dev[V]));
    OK(dls_ctx_sync(&k->ctx));
}

static void check(kcase *k, dls_attention_shape s, double range)
{
    static const int parts[] = {1, 2, 3, 7, 64};
    int devices = k->devices, hosts = k->hosts;
    acase *a = acase_make(k, s, range);
    size_t rows = (size_t)s.B * s.H * s.Tq;
    acase_refer(k, a);
    acase_put(k, a);
    for (size_t n = 0; n < sizeof parts / sizeof *parts; n++) {
        char what[60];
        int kept_devices = k->devices, kept_hosts = k->hosts;
        decode(k, a, parts[n]);
        snprintf(what, sizeof what, "%d parts: lse", parts[n]);
        expect_near(kcase_get_acc(k, a->dev_lse, rows), a->lse, a->lse_e, rows, what);
        snprintf(what, sizeof what, "%d parts: out", parts[n]);
        expect_stored(k, kcase_get(k, a->dev[OUT], a->size[OUT]), a->x[OUT], a->x_e[OUT],
                      a->size[OUT], what);
        kcase_release(k, kept_devices, kept_hosts);
    }
    kcase_release(k, devices, hosts);
}

/* test decoding */
KERNEL_TEST(decode_lengths_of_a_cache)
{
    static const int lengths[] = {0, 1, 31, 133, 64};
    check(k, (dls_attention_shape){.B = 5, .Tq = 1, .Tk = 140, .H = 2, .Hk = 1, .D = 20,
                                   .causal = 1, .lengths_k = lengths, .k_row = 33,
                                   .v_row = 21, .k_sequence = 141 * 33},
          2);
}

KERNEL_TEST(decode_groups_of_heads)
{
    for (int group = 1; group <= 9; group += 2)
        check(k, (dls_attention_shape){.B = 1, .Tq = 1, .Tk = 45, .H = 2 * group, .Hk = 2,
                                       .D = 64},
              2);
}

KERNEL_TEST(decode_a_few_queries)
{
    check(k, (dls_attention_shape){.B = 2, .Tq = 3, .Tk = 50, .H = 4, .Hk = 2, .D = 96,
                                   .causal = 1},
          2);
    check(k, (dls_attention_shape){.B = 1, .Tq = 5, .Tk = 3, .H = 1, .Hk = 1, .D = 7,
                                   .causal = 1},
          2);
}

KERNEL_TEST(decode_wide_heads)
{
    check(k, (dls_attention_shape){.B = 1, .Tq = 1, .Tk = 70, .H = 2, .Hk = 1, .D = 256},
          2);
    check(k, (dls_attention_shape){.B = 1, .Tq = 1, .Tk = 33, .H = 8, .Hk = 1, .D = 128},
          20);
}

KERNEL_TEST(decode_packed_sequences)
{
    static const int starts_q[] = {0, 1, 1, 2}, starts_k[] = {0, 40, 45, 46};
    check(k, (dls_attention_shape){.B = 3, .Tq = 1, .Tk = 40, .H = 3, .Hk = 3, .D = 32,
                                   .starts_q = starts_q, .starts_k = starts_k},
          2);
}

Test(attention_decode, refusals)
{
    dls_ctx ctx;
    dls_attention_shape s = {.B = 1, .Tq = 1, .Tk = 1, .H = 1, .Hk = 1, .D = 257};
    OK(dls_ctx_create(&ctx, 0, DLS_F32));
    cr_expect_eq(dls_attention_decode(&ctx, &s, 1, 0, 0, 0, 0, 0, 0), DLS_ERR_INPUT);
    s.D = 8;
    cr_expect_eq(dls_attention_decode(&ctx, &s, 0, 0, 0, 0, 0, 0, 0), DLS_ERR_INPUT);
    cr_expect_eq(dls_attention_decode(&ctx, &s, 65, 0, 0, 0, 0, 0, 0), DLS_ERR_INPUT);
    s.dropout = 0.1;
    cr_expect_eq(dls_attention_decode(&ctx, &s, 1, 0, 0, 0, 0, 0, 0), DLS_ERR_INPUT);
    s.B = 0;
    s.dropout = 0;
    OK(dls_attention_decode(&ctx, &s, 1, 0, 0, 0, 0, 0, 0));
    dls_ctx_destroy(&ctx);
}

KERNEL_TEST(decode_is_chosen)
{
    dls_attention_shape s = {.B = 1, .Tq = 1, .Tk = 300, .H = 4, .Hk = 1, .D = 16};
    dls_attention_way way;
    unsetenv("DLS_ATTENTION");
    acase *a = acase_make(k, s, 2);
    OK(dls_attention_choose(&a->s, k->ctx.dtype, &way));
    cr_expect_eq(way, DLS_ATTENTION_DECODE);
    acase_refer(k, a);
    acase_put(k, a);
    a->dev[OUT] = kcase_space(k, a->size[OUT]);
    OK(dls_attention_forward(&k->ctx, &a->on_device, a->dev[OUT], NULL, a->dev[Q],
                             a->dev[K], a->dev[V]));
    expect_stored(k, kcase_get(k, a->dev[OUT], a->size[OUT]), a->x[OUT], a->x_e[OUT],
                  a->size[OUT], "out");
    s.Tq = 3;
    OK(dls_attention_choose(&s, k->ctx.dtype, &way));
    cr_expect_neq(way, DLS_ATTENTION_DECODE);
}

/* test the number of parts */
Test(attention_decode, number_of_parts)
{
    static const struct { int B, Hk, Tk, parts; } all[] = {
        {1, 8, 16384, 33}, {1, 1, 16384, 64}, {64, 8, 16384, 1}, {1, 8, 128, 1},
        {1, 8, 129, 2}, {2, 8, 4096, 17}, {0, 8, 4096, 1}, {1, 8, 0, 1}};
    dls_ctx ctx;
    OK(dls_ctx_create(&ctx, 0, DLS_F32));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        dls_attention_shape s = {.B = all[i].B, .Tq = 1, .Tk = all[i].Tk,
                                 .H = 4 * all[i].Hk, .Hk = all[i].Hk, .D = 128};
        cr_expect_eq(dls_attention_splits(&s), all[i].parts, "%zu: %d", i,
                     dls_attention_splits(&s));
    }
    dls_ctx_destroy(&ctx);
}
