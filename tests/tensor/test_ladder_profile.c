/* tests/tensor/test_ladder_profile.c: from chapters/02-gemm-ladder-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The steps of the ladder under the profiler and under the checker: counts equal to those
 * derived by hand, and no report, in fifty orders of the threads. */
#ifdef DLS_BACKEND_virtual
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "../cli/program.h"
#include "ladder_counts.h"
#include "tensor/ladder/ladder.h"

/* profile a step */
/* Runs the step in a process of its own; the kernel's entry of the profile. */
static json_t *profile(int step, int M, int N, int K, const char *environment)
{
    char *directory = fresh_directory("ladder"), path[300];
    snprintf(path, sizeof path, "%s/profile.json", directory);
    outcome o = run_program("%s build/bin/dls profile --json %s ladder --step %d --m %d "
                            "--n %d --k %d", environment, path, step, M, N, K);
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    json_t *root = json_load_file(path, 0, NULL);
    json_t *kernels = json_object_get(root, "kernels");
    cr_assert_eq(json_array_size(kernels), 1, "one kernel in %s", path);
    json_t *kernel = json_incref(json_array_get(kernels, 0));
    json_decref(root);
    free(directory);
    return kernel;
}

static long counted(const json_t *kernel, const char *name)
{
    const json_t *value = json_object_get(kernel, name);
    cr_assert(json_is_integer(value), "no \"%s\" in the profile", name);
    return (long)json_integer_value(value);
}

/* test the counts of the profiler */
static void expect_counts(int step, int M, int N, int K)
{
    ladder_counts n = ladder_count(step, M, N, K);
    json_t *k = profile(step, M, N, K, "");
    const struct { const char *name; long expected, counted; } all[] = {
        {"requests", n.load.requests + n.store.requests, counted(k, "requests")},
        {"sectors", n.load.pieces + n.store.pieces, counted(k, "sectors")},
        {"shared requests", n.shared_load.requests + n.shared_store.requests,
         counted(k, "shared_requests")},
        {"wavefronts", n.shared_load.pieces + n.shared_store.pieces,
         counted(k, "wavefronts")},
        {"DRAM bytes", n.cold, counted(k, "dram_read") + counted(k, "dram_written")},
        {"FLOPs", n.flops, counted(k, "flops") + counted(k, "tensor_flops")}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        cr_expect_eq(all[i].counted, all[i].expected,
                     "step %d, M %d N %d K %d: %s: the profiler says %ld, by hand %ld",
                     step, M, N, K, all[i].name, all[i].counted, all[i].expected);
    json_decref(k);
}

Test(ladder_profile, counts_are_those_by_hand)
{
    static const int sizes[][3] = {
        {67, 45, 33},   {1, 7, 5},      {13, 1, 3},  {1, 1, 1},
        {36, 132, 100}, {131, 137, 19}, {129, 8, 4}, {5, 5, 300}};
    for (int step = 1; step <= DLS_LADDER_STEPS; step++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            expect_counts(step, sizes[s][0], sizes[s][1], sizes[s][2]);
}

Test(ladder_profile, counts_of_the_text)
{
    for (int step = 1; step <= DLS_LADDER_STEPS; step++)
        expect_counts(step, 256, 256, 256);
}

/* test the traffic without a cache */
static void expect_uncached(int step, int M, int N, int K, const char *environment)
{
    ladder_counts n = ladder_count(step, M, N, K);
    json_t *k = profile(step, M, N, K, environment);
    cr_expect_eq(counted(k, "dram_read"), 32 * n.load.pieces, "step %d: %ld, not %ld",
                 step, counted(k, "dram_read"), 32 * n.load.pieces);
    json_decref(k);
}

Test(ladder_profile, traffic_of_a_device_without_a_cache)
{
    char *directory = fresh_directory("ladder"), environment[300];
    outcome o = run_program("sed 's/l2_mb:.*/l2_mb: 0.001/' "
                            "code/vgpu/clusters/dgx-h100.yaml > %s/cluster.yaml",
                            directory);
    cr_assert_eq(o.exit_code, 0, "%s", o.output);
    snprintf(environment, sizeof environment, "DLS_CLUSTER=%s/cluster.yaml", directory);
    for (int step = 1; step <= DLS_LADDER_STEPS; step++)
        if (step != 2)
            expect_uncached(step, 256, 128, 64, environment);
    free(directory);
}

/* test that the checker is silent */
static void expect_silence(int M, int N, int K, int seed)
{
    outcome o = run_program("DLS_SEED=%d build/bin/dls check ladder --m %d --n %d --k %d",
                            seed, M, N, K);
    cr_expect_eq(o.exit_code, 0, "%s", o.output);
    cr_expect(strstr(o.output, "0 errors, 0 warnings"), "seed %d: %s", seed, o.output);
}

Test(ladder_profile, the_checker_is_silent)
{
    expect_silence(67, 45, 33, 1);
    expect_silence(36, 132, 100, 1);
    expect_silence(131, 137, 19, 1);
    for (int seed = 0; seed < 50; seed++)
        expect_silence(35, 24, 72, seed);
}

/* test that the checker finds mistakes */
static const char program[] =
    "int main()\n"
    "{\n"
    "    float *m;\n"
    "    cudaMalloc(&m, 3 * 72 * 72 * sizeof *m);\n"
    "    cudaMemset(m, 0, 2 * 72 * 72 * sizeof *m);\n"
    "    dls_ladder_product p = {72, 72, 72, 1, 0, m, m + 5184, m + 10368};\n"
    "    dls_ladder_%s(0, &p);\n"
    "    cudaDeviceSynchronize();\n"
    "    cudaFree(m);\n"
    "}\n";

static void expect_report(const char *step, const char *edit, const char *kind,
                          const char *line)
{
    char *directory = fresh_directory("ladder"), text[sizeof program + 20];
    snprintf(text, sizeof text, program, step);
    outcome o = run_program("{ sed '%s' code/tensor/ladder/%s.cu; cat <<'END'\n%sEND\n} "
                            "> %s/wrong.cu; build/bin/dls check %s/wrong.cu", edit, step,
                            text, directory, directory);
    cr_expect_eq(o.exit_code, 86, "%s, %s: %s", step, edit, o.output);
    cr_expect(strstr(o.output, kind) && strstr(o.output, line), "%s, %s: %s", step, edit,
              o.output);
    free(directory);
}

Test(ladder_profile, the_checker_finds_mistakes)
{
    expect_report("shared", "s/__syncthreads();  .. nobody.*//", "shared-race",
                  "sum += a[y][l] * b[l][x];");
    expect_report("column", "0,/__syncthreads/s/__syncthreads();//", "shared-race",
                  "float y = b[l][column];");
    expect_report("pipeline", "s/wait<0>/wait<1>/", "shared-race",
                  "dls_cp_async_wait<1>");
    expect_report("pipeline", "s/dls_cp_async_wait<0>()/NOW/; "
                  "s/__syncthreads()/dls_cp_async_wait<0>()/; s/NOW/__syncthreads()/",
                  "shared-race", "dls_cp_async_wait<0>");
    expect_report("vector", "s/PITCH = ROWS + 4/PITCH = ROWS + 1/", "misaligned",
                  "as_quad(x) = as_quad(&a[l][row]);");
}

/* test the ladder command */
Test(ladder_profile, the_command)
{
    outcome o = run_program("build/bin/dls ladder --m 5 --n 6 --k 7 --json");
    json_t *rows = json_loads(o.output, 0, NULL);
    cr_expect_eq(json_array_size(rows), DLS_LADDER_STEPS, "%s", o.output);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i);
        double share = json_number_value(json_object_get(row, "error/bound"));
        cr_expect_eq(json_integer_value(json_object_get(row, "step")), (int)i + 1);
        cr_expect(share >= 0 && share <= 1, "%s", o.output);
    }
    json_decref(rows);
    o = run_program("build/bin/dls ladder --step 10");
    cr_expect_eq(o.exit_code, 2);
    cr_expect(strstr(o.output, "--step: expected 1 to 9, got 10"), "%s", o.output);
    o = run_program("build/bin/dls ladder --k 0");
    cr_expect_eq(o.exit_code, 2);
    cr_expect(strstr(o.output, "expected sizes from 1 to 4096, got 256, 256 and 0"), "%s",
              o.output);
}
#endif
