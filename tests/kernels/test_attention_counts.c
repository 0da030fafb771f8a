/* tests/kernels/test_attention_counts.c: from chapters/10-flash-attention-tensor-cores-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Attention on tensor cores under the profiler and under the checker. */
#ifdef DLS_BACKEND_virtual
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cli/program.h"

/* profile an attention */
static long counted(const json_t *kernel, const char *name)
{
    return (long)json_integer_value(json_object_get(kernel, name));
}

static void expect_counts(const char *directory, int D, int blocks, int causal)
{
    outcome o = run_program("build/bin/dls profile --json %s/p.json %s/attention %d %d "
                            "%d", directory, directory, D, 64 * blocks, causal);
    char path[300];
    snprintf(path, sizeof path, "%s/p.json", directory);
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    json_t *root = json_load_file(path, 0, NULL);
    json_t *k = json_array_get(json_object_get(root, "kernels"), 0);
    long tiles = causal ? blocks * (blocks + 1) / 2 : (long)blocks * blocks;
    long T = 64 * blocks;
    const struct { const char *name; long expected; } all[] = {
        {"shared_requests", 7 * D * blocks / 4 + 5 * D * tiles / 2},
        {"wavefronts", 4 * D * blocks + 10 * D * tiles},
        {"requests", blocks * (D / 2 + 8) + tiles * D / 2},
        {"dram_read", 6 * T * D},
        {"dram_written", 2 * T * D + 4 * T},
        {"tensor_flops", tiles * 4 * 64 * 64 * D}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        cr_expect_eq(counted(k, all[i].name), all[i].expected, "D %d, %d blocks: %s: "
                     "%ld, by hand %ld", D, blocks, all[i].name,
                     counted(k, all[i].name), all[i].expected);
    json_decref(root);
}

Test(attention_counts, counts_are_those_by_hand)
{
    char *directory = fresh_directory("attention");
    outcome o = run_program("build/bin/dls cc tests/kernels/homework/attention.cu -o "
                            "%s/attention", directory);
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    expect_counts(directory, 64, 3, 0);
    expect_counts(directory, 96, 2, 1);
    expect_counts(directory, 128, 2, 0);
    free(directory);
}

/* check the tensor attention */
Test(attention_counts, the_checker_is_silent)
{
    outcome o = run_program("build/bin/dls check tests/kernels/homework/attention.cu 64 "
                            "150 1");
    cr_expect_eq(o.exit_code, 0, "%s", o.output);
    cr_expect(strstr(o.output, "0 errors, 0 warnings"), "%s", o.output);
}

static const char one_kernel[] = "s/<[0-9]*, format>(stream/<64, format>(stream/; "
    "s/format, true>(stream/format, false>(stream/; "
    "s/<attention_fp16>(stream/<attention_bf16>(stream/";

Test(attention_counts, the_checker_misses_the_barrier)
{
    char *directory = fresh_directory("attention");
    outcome o = run_program("{ sed '%s; /<0>/,/if/s/__syncthreads();//' "
                            "code/kernels/attention_tensor.cu; "
                            "cat tests/kernels/homework/attention.cu; } > %s/a.cu; "
                            "build/bin/dls check %s/a.cu 64 150 1", one_kernel, directory,
                            directory);
    cr_expect_eq(o.exit_code, 86, "%s", o.output);
    cr_expect(strstr(o.output, "shared-race"), "%s", o.output);
    free(directory);
}
#endif
