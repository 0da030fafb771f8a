/* tests/parallel/test_laws.c: from chapters/04-data-parallelism-zero-plan.md. Edit the chapter, or edit here and run "make untangle". */
/* The paper's table, DeepSpeed's example, and what dls plan refuses. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "../cli/program.h"
#include "parallel/data/laws.h"

/* test the table of the paper */
static const struct { double n, gb[9]; } paper[] = {
    {1, {120, 120, 120, 2048, 2048, 2048, 16000, 16000, 16000}},
    {4, {52.5, 41.3, 30, 896, 704, 512, 7000, 5500, 4000}},
    {16, {35.6, 21.6, 7.5, 608, 368, 128, 4750, 2875, 1000}},
    {64, {31.4, 16.6, 1.88, 536, 284, 32, 4187, 2218, 250}},
    {256, {30.4, 15.4, 0.47, 518, 263, 8, 4046, 2054, 62.5}},
    {1024, {30.1, 15.1, 0.12, 513, 257, 2, 4011, 2013, 15.6}},
};

Test(laws, the_table_of_the_paper)
{
    static const double psi[] = {7.5, 128, 1000};
    for (size_t i = 0; i < sizeof paper / sizeof *paper; i++)
        for (int k = 0; k < 9; k++) {
            double law = psi[k / 3] * dls_law_memory(dls_bytes_mixed(), k % 3 + 1,
                                                     paper[i].n);
            double printed = paper[i].gb[k];
            double unit = printed == floor(printed) && printed > 9 ? 1
                : printed < 2.5 ? 0.01 : 0.1;
            cr_assert(fabs(law - printed) < unit || law == printed,
                      "%g GPUs, column %d: %g, in print %g", paper[i].n, k, law,
                      printed);
        }
}

Test(laws, the_row_of_seven_billion)
{
    const double gb[] = {120, 31.40625, 16.640625, 1.875};
    for (int stage = 0; stage <= 3; stage++) {
        cr_assert_eq(7.5 * dls_law_memory(dls_bytes_mixed(), stage, 64), gb[stage]);
        cr_assert_eq(dls_law_sent(stage, 64), (stage == 3 ? 3 : 2) * 63 / 64.0);
    }
}

Test(laws, the_estimator_of_deepspeed)
{
    double gib = 1 << 30;
    cr_assert_float_eq(dls_law_deepspeed(2, 2851e6, 32e6, 8) / gib, 15.93, 0.005);
    cr_assert_float_eq(dls_law_deepspeed(3, 2851e6, 32e6, 8) / gib, 6.09, 0.005);
}

/* test the plan command */
static void expect_words(const char *options, int exit_code, const char *words)
{
    program_says("build/bin/dls plan", options, exit_code, words);
}

Test(laws, dls_plan_prints_and_refuses)
{
    expect_words("--parameters 7.5e9 --gpus 64 --json", 0, "31.40625");
    expect_words("--parameters 7.5e9 --gpus 64", 0, "16.64");
    expect_words("--parameters 2851e6 --gpus 8 --deepspeed --largest 32e6", 0, "6.09");
    expect_words("--config code/cli/tour.yaml --gpus 4 --json", 0, "2544128");
    expect_words("--gpus 64", 2, "expected one of --model, --run, --parameters and");
    expect_words("--gpus x --parameters 1e9", 2, "--gpus: expected a number from 1 to");
    expect_words("--gpus 4 --parameters -3", 2, "--parameters: expected a number");
    expect_words("--config none.yaml --gpus 4", 1, "none.yaml");
    expect_words("--config code/cli/tour.yaml --gpus 4 --narrow", 2, "narrow_gradients");
}
