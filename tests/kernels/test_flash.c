/* tests/kernels/test_flash.c: from chapters/10-flash-attention-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Attention of every shape, in every way. */
#include "attention_case.h"

/* test shapes */
KERNEL_TEST(flash_small)
{
    dls_attention_shape s = {.B = 2, .Tq = 7, .Tk = 7, .H = 2, .Hk = 1, .D = 5, .causal = 1};
    acase_check(k, s, 2, "small");
    s.causal = 0;
    acase_check(k, s, 2, "small, full");
    s = (dls_attention_shape){.B = 1, .Tq = 130, .Tk = 130, .H = 2, .Hk = 2, .D = 64,
                              .causal = 1};
    acase_check(k, s, 2, "130");
    s.dropout = 0.25;
    s.seed = 5;
    acase_check(k, s, 2, "dropout");
}
