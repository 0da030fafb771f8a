/* tests/vgpu/test_cluster.c: from chapters/A-virtual-gpu.md. Edit the chapter, or edit here and run "make untangle". */
/* Cluster files: the book's two, the built-in copy, links, and bad files. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vgpu/gpu.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s: %s", #expr, dls_status_message())

/* test the books clusters */
Test(vgpu, the_built_in_cluster_is_the_file)
{
    dls_cluster built_in, file;
    memset(&built_in, 0, sizeof built_in);
    memset(&file, 0, sizeof file);
    dls_cluster_default(&built_in);
    OK(dls_cluster_load("dgx-h100", &file));
    cr_assert_str_eq(file.name, built_in.name);
    cr_assert_str_eq(file.device.name, built_in.device.name);
    cr_assert_eq(file.nodes, built_in.nodes);
    cr_assert_eq(file.gpus_per_node, built_in.gpus_per_node);
    cr_assert_eq(memcmp(&file.device.memory_bytes, &built_in.device.memory_bytes,
                        sizeof file.device -
                            offsetof(dls_device_spec, memory_bytes)), 0);
    cr_assert_eq(memcmp(&file.intra, &built_in.intra, sizeof file.intra), 0);
    cr_assert_eq(memcmp(&file.inter, &built_in.inter, sizeof file.inter), 0);
}

/* test links */
Test(vgpu, links_know_the_nodes)
{
    dls_cluster c;
    double alpha, beta;
    OK(dls_cluster_load("code/vgpu/clusters/two-dgx-h100.yaml", &c));
    OK(dls_cluster_link(&c, 0, 7, &alpha, &beta));
    cr_assert_float_eq(alpha, 3.4e-6, 1e-15);
    cr_assert_float_eq(1 / beta, 378e9, 1);
    OK(dls_cluster_link(&c, 7, 8, &alpha, &beta));
    cr_assert_float_eq(alpha, 9.6e-6, 1e-15);
    cr_assert_float_eq(1 / beta, 46e9, 1);
    OK(dls_cluster_link(&c, 3, 3, &alpha, &beta));
    cr_assert_eq(alpha, 0);
    cr_assert_eq(dls_cluster_link(&c, 0, 16, &alpha, &beta), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "rank 16 is not in cluster two-dgx-h100: "
                     "expected 0 to 15 (2 node(s) of 8 GPUs)");
}

/* test bad cluster files */
/* The good file with `old` replaced by `new`: the message of loading it. */
static const char *message_of(const char *old, const char *new)
{
    char path[] = "/tmp/cluster-XXXXXX", text[8192] = "", *at;
    FILE *in = fopen("code/vgpu/clusters/dgx-h100.yaml", "r");
    cr_assert_not_null(in);
    size_t n = fread(text, 1, sizeof text - 1, in);
    fclose(in);
    cr_assert(n > 500 && (at = strstr(text, old)) != NULL, "'%s' is not there", old);
    int fd = mkstemp(path);
    FILE *out = fdopen(fd, "w");
    fprintf(out, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    fclose(out);
    dls_cluster c = {.name = "untouched"};
    cr_assert_eq(dls_cluster_load(path, &c), DLS_ERR_INPUT, "%s", new);
    cr_assert_str_eq(c.name, "untouched");
    unlink(path);
    const char *message = dls_status_message();
    cr_assert(strncmp(message, path, strlen(path)) == 0, "no file in: %s", message);
    cr_assert_null(strchr(message, '\n'));
    return message;
}

Test(vgpu, bad_cluster_files_name_the_key)
{
    static const char *const cases[][3] = {
        {"memory_gb: 80 ", "memory_gb: -80 ", "device.memory_gb"},
        {"memory_gb: 80 ", "memory_gb: lots ", "device.memory_gb"},
        {"memory_gb: 80 ", "memory_gigs: 80 ", "device.memory_gb"},
        {"memory_gb: 80 ", "memory_gb: 8e18 ", "device.memory_gb"},
        {"flops_efficiency: 0.80", "flops_efficiency: 80", "device.flops_efficiency"},
        {"gpus_per_node: 8", "gpus_per_node: 0", "gpus_per_node"},
        {"gpus_per_node: 8", "gpus_per_node: 8.5", "gpus_per_node"},
        {"nodes: 1", "nodes: 1\ncolour: red", "colour"},
        {"gb_s: 450", "gb_s: .inf", "links.intra.gb_s"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *message = message_of(cases[i][0], cases[i][1]);
        cr_assert(strstr(message, cases[i][2]), "'%s' gave: %s", cases[i][1], message);
    }
    dls_cluster c;
    cr_assert_eq(dls_cluster_load("dgx-h1000", &c), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "no cluster called 'dgx-h1000'"));
    cr_assert_eq(dls_cluster_load("/none/such.yaml", &c), DLS_ERR_IO);
}

/* test bad options */
#ifdef DLS_VIRTUAL_GPU // CUDA has no error for "cluster file"
Test(vgpu, bad_environment_is_one_clear_line)
{
    int count;
    setenv("DLS_SEED", "seven", 1);
    cr_assert_eq(cudaGetDeviceCount(&count), cudaErrorInitializationError);
    cr_assert_eq(dls_gpu_fail(cudaErrorInitializationError, "call", "f", 1),
                 DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "DLS_SEED=seven: expected a whole number "
                     "from 0 to 9223372036854775807");
}
#endif

Test(vgpu, a_world_must_fit_its_cluster)
{
    dls_gpu_options o = {.rank = 8, .world = 9};
    cr_assert_eq(dls_gpu_init(&o), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "9 ranks do not fit cluster dgx-h100: it has "
                     "1 node(s) of 8 GPUs");
    o = (dls_gpu_options){.cluster_file = "two-dgx-h100", .rank = 8, .world = 9};
    OK(dls_gpu_init(&o));
    cr_assert_eq(dls_gpu_rank(), 8);
    cr_assert_eq(dls_gpu_init(&o), DLS_ERR_STATE);
}
