/* tests/vgpu/test_cluster.c: from chapters/A-virtual-gpu-clusters.md. Edit the chapter, or edit here and run "make untangle". */
/* Cluster files: the book's, the built-in copy, paths, sensitivity, and bad files. */
#include <criterion/criterion.h>
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "vgpu/gpu.h"
#include "vgpu/occupancy.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s: %s", #expr, dls_status_message())

/* test the books clusters */
static const char *const clusters[] = {
    "dgx-h100", "two-dgx-h100", "hgx-h200", "dgx-a100", "dgx-a100-40gb", "dgx-b200",
    "a100-pcie-pairs", "hgx-a100-4", "four-nodes-spine", "laptop-rtx-4060",
    "h100-128-nodes",
};
enum { CLUSTERS = sizeof clusters / sizeof *clusters };

Test(vgpu, every_cluster_file_loads)
{
    glob_t found;
    dls_cluster c;
    cr_assert_eq(glob("code/vgpu/clusters/*.yaml", 0, NULL, &found), 0);
    cr_assert_eq((int)found.gl_pathc, CLUSTERS, "list them above");
    for (size_t i = 0; i < found.gl_pathc; i++)
        OK(dls_cluster_load(found.gl_pathv[i], &c));
    for (int i = 0; i < CLUSTERS; i++) {
        OK(dls_cluster_load(clusters[i], &c));
        cr_assert_str_eq(c.name, clusters[i]);
    }
    globfree(&found);
}

static int needs_source(const char *line)
{
    static const char *const plain[] = {"nodes", "gpus_per_node", "compute_capability",
                                        "pcie_generation", "pcie_lanes"};
    char key[64];
    double value;
    if (sscanf(line, " %63[a-z_0-9]: %lf", key, &value) != 2)
        return 0;
    for (int i = 0; i < 5; i++)
        if (strcmp(key, plain[i]) == 0)
            return 0;
    return 1;
}

Test(vgpu, every_number_has_its_source)
{
    glob_t found;
    char line[256];
    int numbers = 0;
    cr_assert_eq(glob("code/vgpu/clusters/*.yaml", 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        FILE *in = fopen(found.gl_pathv[i], "r");
        for (int n = 1; fgets(line, sizeof line, in); n++)
            if (needs_source(line)) {
                cr_assert(strstr(line, " # "), "%s:%d: %s", found.gl_pathv[i], n, line);
                numbers++;
            }
        fclose(in);
    }
    cr_assert_gt(numbers, 200);
    globfree(&found);
}

Test(vgpu, the_built_in_cluster_is_the_file)
{
    dls_cluster built_in, file;
    memset(&file, 0, sizeof file);
    dls_cluster_default(&built_in);
    OK(dls_cluster_load("dgx-h100", &file));
    cr_assert_str_eq(file.device.name, built_in.device.name);
    cr_assert_eq(memcmp(&file, &built_in, sizeof file), 0);
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

/* test paths in a node */
static void expect_link(const dls_cluster *c, int a, int b, double us, double gb_s)
{
    double alpha, beta;
    OK(dls_cluster_link(c, a, b, &alpha, &beta));
    cr_assert_float_eq(alpha * 1e6, us, 1e-9, "%s %d to %d: %g us", c->name, a, b,
                       alpha * 1e6);
    cr_assert_float_eq(1e-9 / beta, gb_s, 1e-6, "%s %d to %d: %g GB/s", c->name, a, b,
                       1e-9 / beta);
}

Test(vgpu, paths_follow_the_shape_of_a_node)
{
    dls_cluster c;
    OK(dls_cluster_load("a100-pcie-pairs", &c));
    expect_link(&c, 0, 1, 3.4, 300 * 0.783);
    expect_link(&c, 3, 2, 3.4, 300 * 0.783);
    expect_link(&c, 1, 2, 5 * 2.85, 32 * 0.68);
    OK(dls_cluster_load("hgx-a100-4", &c));
    expect_link(&c, 3, 0, 3.4, 100 * 0.783);
    OK(dls_cluster_load("dgx-a100", &c));
    expect_link(&c, 0, 7, 3.4, 300 * 0.783);
    c.shape = DLS_SHAPE_RING;
    expect_link(&c, 7, 0, 3.4, 300 * 0.783);
    expect_link(&c, 3, 4, 3.4, 300 * 0.783);
    expect_link(&c, 0, 2, 4 * 2.85, 32 * 0.82);
    c.shape = DLS_SHAPE_NONE;
    expect_link(&c, 0, 1, 2 * 2.85, 32 * 0.82);
    expect_link(&c, 0, 2, 4 * 2.85, 32 * 0.82);
    expect_link(&c, 0, 4, 5 * 2.85, 32 * 0.68);
}

/* test paths between nodes */
Test(vgpu, paths_between_nodes_know_rails_and_leaves)
{
    dls_cluster c;
    OK(dls_cluster_load("four-nodes-spine", &c));
    expect_link(&c, 0, 4, 9.6, 23);        // node 0 to 1, card 0 to card 0
    expect_link(&c, 1, 4, 9.6, 23);        // GPU 1 uses card 0 as well
    expect_link(&c, 0, 6, 10.6, 11.5);     // card 0 to card 1: another rail
    expect_link(&c, 0, 8, 10.6, 11.5);     // node 0 to 2: another leaf
    c.rails = 0;
    expect_link(&c, 0, 6, 9.6, 23);
    c.oversubscription = 1;
    expect_link(&c, 0, 8, 10.6, 23);
    OK(dls_cluster_load("laptop-rtx-4060", &c));
    expect_link(&c, 0, 0, 0, 256 * 0.9 / 2);
}

/* test flows */
Test(vgpu, rings_share_no_link)
{
    for (int i = 0; i < CLUSTERS; i++) {
        dls_cluster c;
        int flows[1024][2], n;
        OK(dls_cluster_load(clusters[i], &c));
        n = c.nodes * c.gpus_per_node;
        cr_assert_leq(n, 1024);
        for (int r = 0; r < n; r++) {
            flows[r][0] = r;
            flows[r][1] = (r + 1) % n;
        }
        for (int r = 0; r < n; r++) {
            double a, b, alone_a, alone_b;
            OK(dls_cluster_flow(&c, (const int (*)[2])flows, n, r, &a, &b));
            OK(dls_cluster_link(&c, r, (r + 1) % n, &alone_a, &alone_b));
            cr_assert(a == alone_a && b == alone_b, "%s: %d", clusters[i], r);
        }
    }
}

Test(vgpu, flows_divide_what_they_share)
{
    dls_cluster c;
    double alpha, beta;
    const int across[2][2] = {{0, 2}, {1, 3}}, back[2][2] = {{0, 2}, {3, 1}};
    int incast[7][2];
    OK(dls_cluster_load("a100-pcie-pairs", &c));
    OK(dls_cluster_flow(&c, across, 2, 1, &alpha, &beta));
    cr_assert_float_eq(1e-9 / beta, 32 * 0.68 / 2, 1e-9);
    OK(dls_cluster_flow(&c, back, 2, 1, &alpha, &beta));
    cr_assert_float_eq(1e-9 / beta, 32 * 0.68, 1e-9, "directions are separate");
    OK(dls_cluster_load("dgx-h100", &c));
    for (int i = 0; i < 7; i++)
        memcpy(incast[i], (int[2]){i, 7}, sizeof incast[i]);
    OK(dls_cluster_flow(&c, (const int (*)[2])incast, 7, 3, &alpha, &beta));
    cr_assert_float_eq(1e-9 / beta, 378.0 / 7, 1e-9);
    OK(dls_cluster_load("dgx-a100", &c));
    cr_assert_float_eq(dls_cluster_host_bandwidth(&c, 1, 1) / 1e9, 26.3, 1e-9);
    cr_assert_float_eq(dls_cluster_host_bandwidth(&c, 1, 8) / 1e9, 26.24 / 2, 1e-9);
    cr_assert_float_eq(dls_cluster_host_bandwidth(&c, 2, 3) / 1e9, 26.3, 1e-9);
}

/* ask a cluster */
enum { F64, F32, TF32, BF16, FP8, INT8, NORM, TINY, WAIT, LAUNCH, GAP, COPY, UPLOAD,
       DOWNLOAD, SECOND, PEER, FAR, QUESTIONS };

static int note_start(void *start_of, double start, double *finish)
{
    (void)finish;
    *(double *)start_of = start;
    return 0;
}

/* The time that an operation of this kind takes; *wait: from the call to its start. */
static double kernel_takes(dls_work work, double flops, double bytes, double *wait)
{
    double called = dls_gpu_host_time(), start;
    dls_gpu_op op = {.work = work, .flops = flops, .bytes = bytes, .run = note_start};
    OK(dls_gpu_enqueue(NULL, &op, &start));
    OK(cudaDeviceSynchronize());
    *wait = start - called;
    return dls_gpu_host_time() - start;
}

static void ask_for_kernels(double *answer)
{
    static const dls_work works[] = {DLS_WORK_GEMM_F64, DLS_WORK_GEMM_F32,
                                     DLS_WORK_GEMM_TF32, DLS_WORK_GEMM_BF16,
                                     DLS_WORK_GEMM_FP8, DLS_WORK_GEMM_INT8};
    for (int q = F64; q <= INT8; q++)
        answer[q] = kernel_takes(works[q], 1e12, 0, &answer[WAIT]);
    answer[NORM] = kernel_takes(DLS_WORK_NORM, 0, 1e9, &answer[WAIT]);
    answer[TINY] = kernel_takes(DLS_WORK_OTHER, 0, 0, &answer[WAIT]);
}

static void nothing(void *unused) { (void)unused; }

static void ask_for_launches(double *answer)
{
    double start[2], before = dls_gpu_host_time();
    dls_gpu_op op = {.flops = 1e9, .run = note_start};
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaStream_t s;
    OK(cudaLaunchHostFunc(NULL, nothing, NULL));
    answer[LAUNCH] = dls_gpu_host_time() - before;
    OK(cudaStreamCreate(&s));
    OK(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal));
    OK(dls_gpu_enqueue(s, &op, &start[0]));
    OK(dls_gpu_enqueue(s, &op, &start[1]));
    OK(cudaStreamEndCapture(s, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphLaunch(exec, s));
    OK(cudaStreamSynchronize(s));
    answer[GAP] = start[1] - start[0] - (dls_gpu_host_time() - start[1]);
}

static double copy_takes(void *to, const void *from, cudaStream_t stream)
{
    double before = dls_gpu_host_time();
    OK(cudaMemcpyAsync(to, from, 8 << 20, cudaMemcpyDefault, stream));
    OK(cudaDeviceSynchronize());
    return dls_gpu_host_time() - before;
}

static void ask_for_copies(double *answer)
{
    char *host, *there, *device;
    cudaStream_t s[2];
    OK(cudaMalloc((void **)&device, 16 << 20));
    OK(cudaMallocHost((void **)&host, 16 << 20));
    for (int i = 0; i < 2; i++)
        OK(cudaStreamCreateWithFlags(&s[i], cudaStreamNonBlocking));
    answer[COPY] = copy_takes(device, device + (8 << 20), s[0]);
    answer[UPLOAD] = copy_takes(device, host, s[0]);
    answer[DOWNLOAD] = copy_takes(host, device, s[0]);
    OK(cudaMemcpyAsync(device, host, 8 << 20, cudaMemcpyDefault, s[0]));
    answer[SECOND] = copy_takes(host + (8 << 20), device + (8 << 20), s[1]);
    if (dls_gpu_cluster()->gpus_per_node < 2)
        return;
    OK(cudaSetDevice(1));
    OK(cudaMalloc((void **)&there, 8 << 20));
    OK(cudaSetDevice(0));
    OK(cudaDeviceEnablePeerAccess(1, 0)); // else the copy is staged through the host
    answer[PEER] = copy_takes(there, device, s[0]);
}

static void ask(const char *file, uint64_t seed, double answer[QUESTIONS])
{
    double alpha = 0, beta = 0;
    int ends[2], status;
    OK(pipe(ends));
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dls_gpu_options o = {.cluster_file = file, .world = 1, .seed = seed};
        memset(answer, 0, QUESTIONS * sizeof *answer);
        OK(dls_gpu_init(&o));
        const dls_cluster *c = dls_gpu_cluster();
        ask_for_kernels(answer);
        ask_for_launches(answer);
        ask_for_copies(answer);
        if (c->nodes > 1)
            OK(dls_cluster_link(c, 0, c->gpus_per_node, &alpha, &beta));
        answer[FAR] = alpha + 1e6 * beta;
        ssize_t n = write(ends[1], answer, QUESTIONS * sizeof *answer);
        _exit(n == QUESTIONS * sizeof *answer ? 0 : 1);
    }
    close(ends[1]);
    cr_assert_eq(read(ends[0], answer, QUESTIONS * sizeof *answer),
                 (ssize_t)(QUESTIONS * sizeof *answer));
    close(ends[0]);
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* test each number of the file */
static const char *replaced(const char *name, const char *old, const char *new);

Test(vgpu, every_cluster_gives_one_time)
{
    double one[QUESTIONS], two[QUESTIONS];
    for (int i = 0; i < CLUSTERS; i++) {
        ask(clusters[i], 1, one);
        ask(clusters[i], 77, two);
        cr_assert_eq(memcmp(one, two, sizeof one), 0, "%s", clusters[i]);
    }
}

#define BIT(q) (1 << (q))
#define COPIES (BIT(COPY) | BIT(UPLOAD) | BIT(DOWNLOAD) | BIT(SECOND) | BIT(PEER))
#define HOST (BIT(UPLOAD) | BIT(DOWNLOAD) | BIT(SECOND))

static const struct { const char *old, *new; int moves; } cases[] = {
    {"f64_tflops: 67 ", "f64_tflops: 33 ", BIT(F64)},
    {"  f32_tflops: 67 ", "  f32_tflops: 33 ", BIT(F32)},
    {"tf32_tflops: 494.7", "tf32_tflops: 100", BIT(TF32)},
    {"bf16_tflops: 989.4", "bf16_tflops: 500", BIT(BF16)},
    {"fp8_tflops: 1978.9", "fp8_tflops: 1000", BIT(FP8)},
    {"int8_tops: 1978.9", "int8_tops: 1000", BIT(INT8)},
    {"memory_gb_s: 3350", "memory_gb_s: 1675", BIT(NORM) | BIT(COPY)},
    {"flops_efficiency: 0.80", "flops_efficiency: 0.4",
     BIT(F64) | BIT(F32) | BIT(TF32) | BIT(FP8) | BIT(INT8)},
    {"memory_efficiency: 0.90", "memory_efficiency: 0.45", BIT(NORM) | BIT(COPY)},
    {"gemm_bf16: {flops: 0.80}", "gemm_bf16: {flops: 0.4}", BIT(BF16)},
    {"gemm_bf16: {flops: 0.80}", "norm: {memory: 0.4}", BIT(NORM)},
    {"gemm_bf16: {flops: 0.80}", "copy: {memory: 0.4}", BIT(COPY)},
    {"least_kernel_us: 2.0", "least_kernel_us: 4.0", BIT(TINY)},
    {"launch_us: 3.8", "launch_us: 7.6", BIT(LAUNCH)},
    {"launch_latency_us: 6.7", "launch_latency_us: 13", BIT(WAIT) | COPIES},
    {"graph_gap_us: 0.17", "graph_gap_us: 0.34", BIT(GAP)},
    {"host_gb_s: 55", "host_gb_s: 27", HOST},
    {"host_latency_us: 8.0", "host_latency_us: 16", HOST},
    {"copy_engines: 3", "copy_engines: 2", 0},
    {"copy_engines: 3", "copy_engines: 1", BIT(SECOND)},
    {"alpha_us: 3.4", "alpha_us: 6.8", BIT(PEER)},
    {"gb_s: 450", "gb_s: 225", BIT(PEER)},
    {"efficiency: 0.84", "efficiency: 0.42", BIT(PEER)},
    {"alpha_us: 9.6", "alpha_us: 19.2", BIT(FAR)},
    {"    gb_s: 50 ", "    gb_s: 25 ", BIT(FAR)},
    {"efficiency: 0.92", "efficiency: 0.46", BIT(FAR)},
    {"memory_gb: 80", "memory_gb: 40", 0},
    {"shared_kb_per_block: 227", "shared_kb_per_block: 99", 0},
};

Test(vgpu, each_number_moves_its_times_and_no_other)
{
    double before[QUESTIONS], after[QUESTIONS];
    ask("two-dgx-h100", 1, before);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ask(replaced("two-dgx-h100", cases[i].old, cases[i].new), 1, after);
        for (int q = 0; q < QUESTIONS; q++)
            cr_assert_eq(fabs(after[q] - before[q]) > 1e-9 * before[q],
                         (cases[i].moves >> q) & 1, "%s, question %d: %.12g, %.12g s",
                         cases[i].new, q, before[q], after[q]);
    }
}

#ifdef DLS_VIRTUAL_GPU
Test(vgpu, properties_come_from_the_file)
{
    dls_gpu_options o = {.cluster_file = "dgx-a100", .world = 1};
    cudaDeviceProp p;
    OK(dls_gpu_init(&o));
    OK(cudaGetDeviceProperties(&p, 0));
    cr_assert_eq(p.sharedMemPerBlockOptin, 163 * 1024);
    cr_assert_eq(p.sharedMemPerMultiprocessor, 164 * 1024);
    cr_assert_eq(p.multiProcessorCount, 108);
    cr_assert_eq(p.l2CacheSize, 41943040);
    cr_assert_eq(p.asyncEngineCount, 3);
    cr_assert_eq(dls_gpu_occupancy(128, 32, 100 * 1024), 1, "of 164 KB");
    cr_assert_eq(dls_gpu_occupancy(1024, 32, 0), 2);
    cr_assert(p.major == 8 && p.minor == 0);
}
#endif

/* test bad cluster files */
/* The path of a copy of the named file with `old` replaced by `new`. */
static const char *replaced(const char *name, const char *old, const char *new)
{
    static char path[64];
    char from[128], text[8192] = "", *at;
    snprintf(from, sizeof from, "code/vgpu/clusters/%s.yaml", name);
    FILE *in = fopen(from, "r");
    cr_assert_not_null(in);
    size_t n = fread(text, 1, sizeof text - 1, in);
    fclose(in);
    cr_assert(n > 500 && (at = strstr(text, old)) != NULL, "'%s' is not there", old);
    snprintf(path, sizeof path, "/tmp/cluster-%d.yaml", (int)getpid());
    FILE *out = fopen(path, "w");
    fprintf(out, "%.*s%s%s", (int)(at - text), text, new, at + strlen(old));
    fclose(out);
    return path;
}

/* The message of loading the good file with `old` replaced by `new`. */
static const char *message_of(const char *old, const char *new)
{
    const char *path = replaced("dgx-h100", old, new);
    dls_cluster c = {.name = "untouched"};
    cr_assert_eq(dls_cluster_load(path, &c), DLS_ERR_INPUT, "%s", new);
    cr_assert_str_eq(c.name, "untouched");
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
        {"gemm_bf16: {", "gem_bf16: {", "device.efficiency.gem_bf16"},
        {"fp8_tflops", "fp9_tflops", "device.fp9_tflops"},
        {"shape: switch", "shape: star", "links.intra.shape"},
        {"shape: switch", "shape: ring", "links.intra.shape"},
        {"shared_kb_per_block: 227", "shared_kb_per_block: 0", "shared_kb_per_block"},
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

/* test the pictures */
static int count(const char *text, const char *what)
{
    int n = 0;
    while ((text = strstr(text, what)) != NULL) {
        text += strlen(what);
        n++;
    }
    return n;
}

Test(vgpu, clusters_are_drawn_from_their_files)
{
    static const struct { const char *name; int gpus, nvlinks; } want[] = {
        {"dgx-a100", 8, 8 + 1}, {"hgx-a100-4", 4, 6 + 1}, {"a100-pcie-pairs", 4, 2 + 1},
        {"four-nodes-spine", 16, 4 * 6 + 1}, {"laptop-rtx-4060", 1, 0},
    };
    for (int i = 0; i < 5; i++) {
        char path[64], *text;
        size_t size;
        dls_cluster c;
        snprintf(path, sizeof path, "/tmp/shape-%d.svg", (int)getpid());
        OK(dls_cluster_load(want[i].name, &c));
        OK(dls_cluster_draw(&c, path));
        OK(dls_file_read(path, &text, &size));
        cr_expect_eq(count(text, "class=\"gpu\""), want[i].gpus, "%s", want[i].name);
        cr_expect_eq(count(text, "class=\"nvlink\""), want[i].nvlinks, "%s: %d",
                     want[i].name, count(text, "class=\"nvlink\""));
        cr_expect_eq(count(text, "nan") + count(text, "inf"), 0);
        free(text);
        unlink(path);
    }
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
