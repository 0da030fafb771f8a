/* tests/layers/test_experts.c: from chapters/08-mixture-of-experts-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "expert_case.h"

/* list the expert cases */
#define SWIGLU DLS_MLP_SWIGLU
#define SIGMOID DLS_GATE_SIGMOID
static const expert_case cases[] = {
    {2, 3, 4, DLS_MLP_GELU, {.experts = 4, .chosen = 2, .hidden = 3}, 0},
    {2, 5, 7, SWIGLU, {.experts = 4, .chosen = 2, .hidden = 3, .normalised = 1}, 0},
    {1, 1, 1, SWIGLU, {.experts = 1, .chosen = 1, .hidden = 1}, 0},
    {2, 3, 4, SWIGLU, {.experts = 5, .chosen = 5, .hidden = 3, .shared = 1}, 0},
    {3, 7, 5, SWIGLU, {.experts = 7, .chosen = 1, .hidden = 6, .normalised = 1}, 0},
    {1, 13, 3, DLS_MLP_GELU, {.experts = 3, .chosen = 1, .hidden = 5}, PULL_TO_ONE},
    {2, 4, 3, SWIGLU, {.experts = 6, .chosen = 3, .hidden = 5}, PULL_FROM_ONE},
    {2, 8, 6, SWIGLU, {.experts = 8, .chosen = 3, .hidden = 5, .shared = 2,
                       .gate = SIGMOID, .normalised = 1, .scale = 2.5}, 0},
    {2, 8, 6, SWIGLU, {.experts = 4, .chosen = 2, .hidden = 5, .capacity = 1}, 0},
    {2, 8, 6, SWIGLU, {.experts = 4, .chosen = 2, .hidden = 5, .capacity = 0.5,
                       .padded = 1, .normalised = 1}, 0},
    {1, 9, 6, SWIGLU, {.experts = 4, .chosen = 1, .hidden = 5, .capacity = 1.3,
                       .padded = 1}, PULL_TO_ONE},
    {2, 5, 4, DLS_MLP_GELU, {.experts = 3, .chosen = 2, .hidden = 3,
                             .gate = DLS_GATE_IDENTITY}, 0},
};
enum { CASES = sizeof cases / sizeof *cases };

/* compare with the naive experts */
static void near(const double *got, const double *want, size_t n, int i, const char *what)
{
    double size = 1;            // of what it is computed from
    for (size_t a = 0; a < n; a++)
        size = fmax(size, fabs(want[a]));
    for (size_t a = 0; a < n; a++)
        cr_assert(fabs(got[a] - want[a]) <= 1e-12 * size, "case %d, %s[%zu]: %.17g, "
                  "expected %.17g", i, what, a, got[a], want[a]);
}

static void compare(int i, int halves)
{
    expert_rig f;
    size_t rows = (size_t)cases[i].B * cases[i].T * cases[i].C;
    expert_rig_open(&f, &cases[i], halves);
    expert_result want = expert_naive(&f), got = expert_rig_run(&f, halves);
    near(got.y, want.y, rows, i, "y");
    near(got.dx, want.dx, rows, i, "dx");
    for (int j = 0; j < f.params.n; j++)
        near(got.grads + f.params.items[j].offset, want.grads + f.params.items[j].offset,
             f.params.items[j].count, i, f.params.items[j].name);
    expert_result_free(&want);
    expert_result_free(&got);
    expert_rig_close(&f);
}

Test(experts, equal_the_naive_ones)
{
    for (int i = 0; i < CASES; i++)
        compare(i, 0);
}

Test(experts, equal_the_naive_ones_in_halves)
{
    for (int i = 0; i < CASES; i++)
        compare(i, 1);
}

Test(experts, equal_the_naive_ones_thread_by_thread)
{
    setenv("DLS_KERNELS", "simt", 1);
    setenv("DLS_GROUPED", "tiles", 1);
    for (int i = 0; i < CASES; i++)
        compare(i, i % 2);
}
