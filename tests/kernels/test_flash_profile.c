/* tests/kernels/test_flash_profile.c: from chapters/10-flash-attention-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Flash attention under the profiler and under the checker. */
#ifdef DLS_BACKEND_virtual
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../cli/program.h"
#include "kernels/attention_ways.h"

/* sum the counts of kernels */
typedef struct counts { double bytes, sectors, wavefronts, ideal_wavefronts; } counts;

/* The sum over the kernels whose names begin so. */
static counts sum_of(const json_t *root, const char *name)
{
    counts sum = {0};
    size_t i;
    json_t *kernel;
    json_array_foreach(json_object_get(root, "kernels"), i, kernel) {
        if (strncmp(json_string_value(json_object_get(kernel, "kernel")), name,
                    strlen(name)))
            continue;
        sum.bytes += json_number_value(json_object_get(kernel, "bytes"));
        sum.sectors += json_number_value(json_object_get(kernel, "sectors"));
        sum.wavefronts += json_number_value(json_object_get(kernel, "wavefronts"));
        sum.ideal_wavefronts +=
            json_number_value(json_object_get(kernel, "ideal_wavefronts"));
    }
    return sum;
}

static json_t *profile(const char *options)
{
    char *directory = fresh_directory("flash"), path[300];
    snprintf(path, sizeof path, "%s/profile.json", directory);
    outcome o =
        run_program("DLS_KERNELS=simt build/bin/dls profile --json %s attention %s",
                            path, options);
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    json_t *root = json_load_file(path, 0, NULL);
    cr_assert_not_null(root);
    free(directory);
    return root;
}

/* test the bytes of flash attention */
static void expect_bytes(const json_t *root, const char *kernel, double want, int aligned)
{
    counts got = sum_of(root, kernel);
    cr_expect_eq(got.bytes, want, "%s: %.0f bytes, the formula says %.0f", kernel,
                 got.bytes, want);
    if (aligned)
        cr_expect_float_eq(32 * got.sectors, want, 0.05 * want,
                           "%s: %.0f sectors for %.0f", kernel, got.sectors, want);
    cr_expect_eq(got.wavefronts, got.ideal_wavefronts, "%s: %.0f wavefronts, not %.0f",
                 kernel, got.wavefronts, got.ideal_wavefronts);
}

/* All kernels together. */
static void expect_sectors(const json_t *root, double want)
{
    double got = 32 * sum_of(root, "flash").sectors;
    cr_expect_float_eq(got, want, 0.05 * want, "%.0f bytes in sectors, not %.0f", got,
                       want);
}

static void expect_traffic(dls_attention_shape s, dls_dtype type, int aligned)
{
    char options[200];
    int R, C;
    cr_assert_eq(dls_attention_complete(&s), DLS_OK);
    dls_flash_tiles(type, s.D, &R, &C);
    snprintf(options, sizeof options, "--way flash --type %s --t %d --keys %d --d %d "
             "--heads %d --kv-heads %d%s", dls_dtype_name(type), s.Tq, s.Tk, s.D, s.H,
                 s.Hk, s.causal ? "" : " --full");
    json_t *root = profile(options);
    double forward = dls_flash_forward_cost(&s, type, R, C).bytes;
    double delta = dls_flash_delta_cost(&s, type).bytes;
    double walks = dls_flash_backward_cost(&s, type, R, C, 1).bytes
                   + dls_flash_backward_cost(&s, type, R, C, 0).bytes;
    expect_bytes(root, "flash_forward", forward, aligned);
    expect_bytes(root, "flash_delta", delta, 0);
    expect_bytes(root, "flash_backward", walks, aligned);
    if (aligned)
        expect_sectors(root, forward + delta + walks);
    json_decref(root);
}

Test(flash_profile, bytes_of_f32_are_the_formula)
{
    expect_traffic((dls_attention_shape){.B = 1, .Tq = 256, .Tk = 256, .H = 1, .Hk = 1,
                                         .D = 64}, DLS_F32, 1);
    expect_traffic((dls_attention_shape){.B = 1, .Tq = 192, .Tk = 192, .H = 2, .Hk = 1,
                                         .D = 64, .causal = 1}, DLS_F32, 1);
}

Test(flash_profile, bytes_of_wide_heads_are_the_formula)
{
    expect_traffic((dls_attention_shape){.B = 1, .Tq = 96, .Tk = 160, .H = 1, .Hk = 1,
                                         .D = 128, .causal = 1}, DLS_F32, 1);
    expect_traffic((dls_attention_shape){.B = 1, .Tq = 64, .Tk = 64, .H = 1, .Hk = 1,
                                         .D = 256}, DLS_F32, 1);
}

Test(flash_profile, bytes_of_other_types_are_the_formula)
{
    expect_traffic((dls_attention_shape){.B = 1, .Tq = 128, .Tk = 128, .H = 1, .Hk = 1,
                                         .D = 64, .causal = 1}, DLS_BF16, 1);
    expect_traffic((dls_attention_shape){.B = 1, .Tq = 96, .Tk = 96, .H = 1, .Hk = 1,
                                         .D = 96}, DLS_F64, 1);
}

Test(flash_profile, bytes_of_odd_sizes_are_the_formula)
{
    expect_traffic((dls_attention_shape){.B = 1, .Tq = 67, .Tk = 35, .H = 2, .Hk = 2,
                                         .D = 33, .causal = 1}, DLS_F32, 0);
    expect_traffic((dls_attention_shape){.B = 1, .Tq = 1, .Tk = 129, .H = 2, .Hk = 1,
                                         .D = 5, .causal = 1}, DLS_F64, 0);
}

/* test the checker on attention */
static void expect_silence(const char *options, int seed)
{
    outcome o =
        run_program("DLS_SEED=%d DLS_KERNELS=simt build/bin/dls check attention %s",
                            seed, options);
    cr_expect_eq(o.exit_code, 0, "%s", o.output);
    cr_expect(strstr(o.output, "0 errors, 0 warnings"), "seed %d: %s", seed, o.output);
}

Test(flash_profile, the_checker_is_silent)
{
    for (int seed = 1; seed <= 3; seed++) {
        expect_silence("--way flash --t 67 --heads 2 --kv-heads 1 --dropout 0.2", seed);
        expect_silence("--way flash --t 65 --keys 90 --d 33 --type bf16 --full", seed);
        expect_silence("--way naive --t 35 --keys 20 --d 7 --heads 2 --kv-heads 1", seed);
    }
}
#endif
