/* tests/kernels/test_attention_every.c: from chapters/10-flash-attention-every.md. Edit the chapter, or edit here and run "make untangle". */
/* Attention in every combination of mask, lengths, sharing, head size and dropout; each
 * program, each type, forward and backward. What a program refuses is asserted, too. */
#include <stdio.h>

#include "attention_case.h"
#include "attention_problem.h"
#include "kernels/attention_hopper.h"
#ifdef DLS_BACKEND_virtual
#include "vgpu/trace.h"
#endif

/* list every shape */
enum { EQUAL, PACKED, CACHE, LENGTHS, SHARINGS = 3, SHAPES = LENGTHS * SHARINGS * 4 };

typedef struct every {
    int lengths, sharing, causal, drops;
    int starts[4], lengths_k[2];
    char text[80];
    dls_attention_shape s;
} every;

static void make_every(every *e, int number, int D, int T)
{
    *e = (every){.drops = number % 2, .causal = number / 2 % 2,
                 .sharing = number / 4 % SHARINGS, .lengths = number / 12};
    e->s = (dls_attention_shape){.B = 1, .Tq = T, .Tk = T, .D = D, .causal = e->causal,
                                 .dropout = e->drops ? 0.3 : 0, .seed = 11, .stream = 3,
                                 .first_sequence = 2, .first_head = 5};
    e->s.H = e->sharing == 1 ? 4 : 2;
    e->s.Hk = e->sharing == 2 ? 1 : 2;
    /* give every shape its lengths */
    if (e->lengths == PACKED) {
        e->s.B = 3;
        e->starts[1] = e->starts[2] = T;
        e->starts[3] = T + (T + 1) / 2;
        e->s.starts_q = e->s.starts_k = e->starts;
    }
    if (e->lengths == CACHE) {
        e->s.B = 2;
        e->s.Tk = T + 18;
        e->lengths_k[0] = T + 17;
        e->lengths_k[1] = (T + 1) / 2;
        e->s.lengths_k = e->lengths_k;
    }
    snprintf(e->text, sizeof e->text, "D %d, %s, %s, %s%s", D,
             e->causal ? "causal" : "full",
             (const char *[]){"equal", "packed", "cache"}[e->lengths],
             (const char *[]){"MHA", "GQA", "MQA"}[e->sharing],
             e->drops ? ", dropout" : "");
}

/* test every shape */
static void check_every(kcase *k, int D)
{
    for (int n = 0; n < SHAPES; n++) {
        every e;
        make_every(&e, n, D, 21);
        e.s.q_row = e.s.k_row = e.s.v_row = (size_t)(e.s.H + 2 * e.s.Hk) * D + 3;
        e.s.o_row = (size_t)e.s.H * D + 1;
        acase_check(k, e.s, 1.5, e.text);
    }
}

KERNEL_TEST(attention_every_64) { check_every(k, 64); }
KERNEL_TEST(attention_every_96) { check_every(k, 96); }
KERNEL_TEST(attention_every_128) { check_every(k, 128); }
KERNEL_TEST(attention_every_256) { check_every(k, 256); }

/* test every shape on tensor cores */
static problem problem_of(const every *e, int format, attention_run *run)
{
    problem p = {.run = run, .s = e->s, .format = format, .size = 1.5,
                 .packed = e->lengths == PACKED, .cached = e->lengths == CACHE};
    memcpy(p.starts_q, e->starts, sizeof e->starts);
    memcpy(p.starts_k, e->starts, sizeof e->starts);
    memcpy(p.lengths_k, e->lengths_k, sizeof e->lengths_k);
    p.s.starts_q = p.s.starts_k = p.s.lengths_k = NULL;  // the problem puts its own
    return p;
}

static void check_tensor(int D, int format)
{
    for (int n = 0; n < SHAPES; n++) {
        every e;
        make_every(&e, n, D, 21);
        problem p = problem_of(&e, format, dls_attention_tensor_forward);
        expect_attention(p);
        expect_attention_gradients(p);
    }
}

Test(attention_every, tensor_64_bf16) { check_tensor(64, DLS_ATTENTION_BF16); }
Test(attention_every, tensor_96_bf16) { check_tensor(96, DLS_ATTENTION_BF16); }
Test(attention_every, tensor_128_bf16) { check_tensor(128, DLS_ATTENTION_BF16); }
Test(attention_every, tensor_256_bf16) { check_tensor(256, DLS_ATTENTION_BF16); }
Test(attention_every, tensor_64_fp16) { check_tensor(64, DLS_ATTENTION_FP16); }
Test(attention_every, tensor_96_fp16) { check_tensor(96, DLS_ATTENTION_FP16); }
Test(attention_every, tensor_128_fp16) { check_tensor(128, DLS_ATTENTION_FP16); }
Test(attention_every, tensor_256_fp16) { check_tensor(256, DLS_ATTENTION_FP16); }

/* test every shape on hopper */
static void expect_hopper_refusal(const every *e, const char *why)
{
    static uint16_t x[16] __attribute__((aligned(16)));
    cr_expect_eq(dls_attention_hopper_forward(0, DLS_ATTENTION_BF16, &e->s, x, NULL, x, x,
                                              x),
                 DLS_ERR_STATE, "%s", e->text);
    cr_expect_str_eq(dls_status_message(), why, "%s", e->text);
}

static void check_hopper(int D)
{
    int ran = 0, refused = 0;
    for (int n = 0; n < SHAPES; n++) {
        every e;
        make_every(&e, n, D, 21);
        const char *why =
            D > 128 ? "attention on Hopper: the head size is above 128"
            : e.lengths == PACKED ? "attention on Hopper: the sequences are packed"
            : e.lengths == CACHE  ? "attention on Hopper: the lengths of the keys differ"
                                  : NULL;
        if (why)
            expect_hopper_refusal(&e, why), refused++;
        else
            for (int format = 0; format < 2; format++, ran++)
                expect_attention(problem_of(&e, format, dls_attention_hopper_forward));
    }
    cr_expect_eq(ran, D > 128 ? 0 : 24);
    cr_expect_eq(refused, D > 128 ? 36 : 24);
}

Test(attention_every, hopper_64) { check_hopper(64); }
Test(attention_every, hopper_96) { check_hopper(96); }
Test(attention_every, hopper_128) { check_hopper(128); }
Test(attention_every, hopper_256) { check_hopper(256); }

/* test which program runs */
#ifdef DLS_BACKEND_virtual
/* find a launch in the trace */
static int launched(const char *name)
{
    const dls_trace_span *span;
    for (int i = 0; (span = dls_trace_span_at(i)) != NULL; i++)
        if (strcmp(span->name, name) == 0)
            return 1;
    return 0;
}

/* One pass forward and one backward of the shape, with arrays of zeros. */
static void run_zeros(kcase *k, every *e)
{
    acase *a = acase_make(k, e->s, 0);
    acase_put(k, a);
    dls_trace_clear();
    acase_run(k, a, "");
}

/* expect a program */
static void expect_program(kcase *k, every *e, const char *forward, const char *backward)
{
    run_zeros(k, e);
    cr_expect(launched(forward), "%s: no %s", e->text, forward);
    cr_expect(launched(backward), "%s: no %s", e->text, backward);
    kcase_release(k, 0, 0);
}

static void check_programs(const char *kernels, dls_dtype type)
{
    static const char *const flash_walk = "flash backward by query";
    static const int sizes[] = {64, 96, 128, 256};
    static kcase k;
    setenv("DLS_KERNELS", kernels, 1);
    OK(dls_ctx_create(&k.ctx, 0, type));
    dls_trace_enable(1);
    every e;
    for (int n = 0; n < SHAPES * 4; n++) {
        make_every(&e, n % SHAPES, sizes[n / SHAPES], 5);
        if (type != DLS_BF16 || strcmp(kernels, "host") == 0)
            expect_program(&k, &e, "flash attention", flash_walk);
        else
            expect_program(&k, &e, e.lengths == EQUAL && e.s.D <= 128
                                       ? "attention on Hopper"
                                       : "attention on tensor cores",
                           "attention backward by query");
    }
    make_every(&e, 0, 64, 5);
    e.s.q_row = 2 * 64 + 3;
    expect_program(&k, &e, "flash attention", flash_walk);
    dls_ctx_destroy(&k.ctx);
}

Test(attention_every, programs_of_f32) { check_programs("simt", DLS_F32); }
Test(attention_every, programs_of_f64) { check_programs("simt", DLS_F64); }
Test(attention_every, programs_of_bf16) { check_programs("simt", DLS_BF16); }
Test(attention_every, programs_of_bf16_on_the_host) { check_programs("host", DLS_BF16); }
#endif
