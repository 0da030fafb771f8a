/* code/vgpu/cluster.c: from chapters/A-virtual-gpu-clusters.md. Edit the chapter, or edit here and run "make untangle". */
/* Loading cluster files, and the roofline.
 *
 * The file is written in data-sheet units (GB, TFLOP/s, us); everything here is SI. The
 * built-in cluster exists so that a program started in an empty directory still runs. */
#include "vgpu/cluster.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/config.h"

/* read numbers of the file */
/* A number of the file times `unit`. */
static dls_status read_scaled(dls_config *cfg, const char *key, double min, double max,
                              double unit, double *out)
{
    DLS_TRY(dls_config_real(cfg, key, min, max, out));
    *out *= unit;
    return DLS_OK;
}

/* The same, and 0 when the file does not have it. */
static dls_status read_optional(dls_config *cfg, const char *key, double max, double unit,
                                double *out)
{
    *out = 0;
    return dls_config_has(cfg, key) ? read_scaled(cfg, key, 1e-3, max, unit, out)
                                    : DLS_OK;
}

static dls_status read_count(dls_config *cfg, const char *key, int max, int *out)
{
    int64_t value;
    DLS_TRY(dls_config_int(cfg, key, 1, max, &value));
    *out = (int)value;
    return DLS_OK;
}

static dls_status read_name(dls_config *cfg, const char *key, char *out)
{
    const char *text;
    DLS_TRY(dls_config_string(cfg, key, &text));
    if (strlen(text) >= DLS_CLUSTER_NAME)
        return dls_config_fail(cfg, key, "at most %d characters", DLS_CLUSTER_NAME - 1);
    strcpy(out, text);
    return DLS_OK;
}

/* read the device fields */
static dls_status read_rates(dls_config *cfg, dls_device_spec *d)
{
    DLS_TRY(read_scaled(cfg, "device.f64_tflops", 1e-3, 1e6, 1e12, &d->f64));
    DLS_TRY(read_scaled(cfg, "device.f32_tflops", 1e-3, 1e6, 1e12, &d->f32));
    DLS_TRY(read_scaled(cfg, "device.tf32_tflops", 1e-3, 1e6, 1e12, &d->tf32));
    DLS_TRY(read_scaled(cfg, "device.bf16_tflops", 1e-3, 1e6, 1e12, &d->bf16));
    DLS_TRY(read_optional(cfg, "device.fp8_tflops", 1e6, 1e12, &d->fp8));
    DLS_TRY(read_optional(cfg, "device.fp4_tflops", 1e6, 1e12, &d->fp4));
    DLS_TRY(read_optional(cfg, "device.int8_tops", 1e6, 1e12, &d->int8));
    DLS_TRY(read_scaled(cfg, "device.clock_mhz", 1, 1e5, 1e6, &d->clock));
    DLS_TRY(read_scaled(cfg, "device.memory_gb", 1e-3, 1e5, 1e9, &d->memory_bytes));
    DLS_TRY(read_scaled(cfg, "device.memory_gb_s", 1e-1, 1e6, 1e9, &d->memory_bandwidth));
    DLS_TRY(read_scaled(cfg, "device.l2_mb", 1e-3, 1e5, 1048576, &d->l2_bytes));
    return read_scaled(cfg, "device.host_gb_s", 1e-2, 1e5, 1e9, &d->host_bandwidth);
}

static dls_status read_latencies(dls_config *cfg, dls_device_spec *d)
{
    DLS_TRY(read_scaled(cfg, "device.launch_us", 0, 1e6, 1e-6, &d->launch));
    DLS_TRY(read_scaled(cfg, "device.launch_latency_us", 0, 1e6, 1e-6,
                        &d->launch_latency));
    DLS_TRY(read_scaled(cfg, "device.least_kernel_us", 0, 1e6, 1e-6, &d->least_kernel));
    DLS_TRY(read_scaled(cfg, "device.graph_gap_us", 0, 1e6, 1e-6, &d->graph_gap));
    return read_scaled(cfg, "device.host_latency_us", 0, 1e6, 1e-6, &d->host_latency);
}

static dls_status read_limits(dls_config *cfg, dls_device_spec *d)
{
    DLS_TRY(read_count(cfg, "device.multiprocessors", 100000, &d->multiprocessors));
    DLS_TRY(read_count(cfg, "device.memory_bus_bits", 100000, &d->memory_bus_bits));
    DLS_TRY(read_count(cfg, "device.shared_kb_per_multiprocessor", 10000,
                       &d->shared_per_multiprocessor));
    DLS_TRY(read_count(cfg, "device.shared_kb_per_block", 10000, &d->shared_per_block));
    DLS_TRY(read_count(cfg, "device.registers_per_multiprocessor", 1 << 24,
                       &d->registers_per_multiprocessor));
    DLS_TRY(read_count(cfg, "device.threads_per_multiprocessor", 1 << 16,
                       &d->threads_per_multiprocessor));
    DLS_TRY(read_count(cfg, "device.blocks_per_multiprocessor", 1 << 10,
                       &d->blocks_per_multiprocessor));
    DLS_TRY(read_count(cfg, "device.copy_engines", 16, &d->copy_engines));
    DLS_TRY(read_count(cfg, "device.pcie_generation", 9, &d->pcie_generation));
    d->shared_per_multiprocessor *= 1024;
    d->shared_per_block *= 1024;
    return read_count(cfg, "device.pcie_lanes", 32, &d->pcie_lanes);
}

static dls_status read_shares(dls_config *cfg, dls_device_spec *d);

static dls_status read_device(dls_config *cfg, dls_device_spec *d)
{
    double capability;
    DLS_TRY(read_name(cfg, "device.name", d->name));
    DLS_TRY(read_rates(cfg, d));
    DLS_TRY(read_latencies(cfg, d));
    DLS_TRY(read_limits(cfg, d));
    DLS_TRY(read_shares(cfg, d));
    DLS_TRY(dls_config_real(cfg, "device.compute_capability", 1, 99, &capability));
    d->compute_major = (int)capability;
    d->compute_minor = (int)lround((capability - d->compute_major) * 10);
    return DLS_OK;
}

/* read the shares */
static const char *const work_names[DLS_WORKS] = {
    "other", "gemm_f64", "gemm_f32", "gemm_tf32", "gemm_bf16", "gemm_fp8", "gemm_fp4",
    "gemm_int8", "attention_f32", "attention_bf16", "norm", "elementwise", "reduction",
    "copy", "upload", "download", "peer",
};

const char *dls_work_name(dls_work work) { return work_names[work]; }

static dls_status read_shares(dls_config *cfg, dls_device_spec *d)
{
    dls_share usual;
    DLS_TRY(dls_config_real(cfg, "device.flops_efficiency", 0.01, 1, &usual.flops));
    DLS_TRY(dls_config_real(cfg, "device.memory_efficiency", 0.01, 1, &usual.memory));
    for (int w = 0; w < DLS_WORKS; w++) {
        char key[80];
        d->share[w] = usual;
        if (w == DLS_WORK_OTHER || w > DLS_WORK_COPY)
            continue;
        snprintf(key, sizeof key, "device.efficiency.%s.flops", work_names[w]);
        DLS_TRY(dls_config_real_or(cfg, key, 0.01, 1, usual.flops, &d->share[w].flops));
        snprintf(key, sizeof key, "device.efficiency.%s.memory", work_names[w]);
        DLS_TRY(dls_config_real_or(cfg, key, 0.01, 1, usual.memory,
                                   &d->share[w].memory));
    }
    return DLS_OK;
}

/* read the links */
/* links.NAME -> alpha and beta; beta is the inverse of what the link delivers. */
static dls_status read_link(dls_config *cfg, const char *name, dls_link_spec *link)
{
    char key[64];
    double rate, efficiency;
    snprintf(key, sizeof key, "links.%s.alpha_us", name);
    DLS_TRY(read_scaled(cfg, key, 0, 1e6, 1e-6, &link->alpha));
    snprintf(key, sizeof key, "links.%s.gb_s", name);
    DLS_TRY(read_scaled(cfg, key, 1e-3, 1e6, 1e9, &rate));
    snprintf(key, sizeof key, "links.%s.efficiency", name);
    DLS_TRY(dls_config_real(cfg, key, 0.01, 1, &efficiency));
    link->beta = 1 / (rate * efficiency);
    return DLS_OK;
}

static dls_status read_node(dls_config *cfg, dls_cluster *c)
{
    int shape = DLS_SHAPE_NONE, several = c->gpus_per_node > 1;
    if (dls_config_has(cfg, "links.intra.alpha_us")) {
        DLS_TRY(dls_config_choice_or(cfg, "links.intra.shape", "switch|mesh|ring|pairs",
                                     DLS_SHAPE_SWITCH, &shape));
        DLS_TRY(read_link(cfg, "intra", &c->intra));
    }
    c->shape = (dls_shape_of_node)shape;
    c->gpus_per_switch = c->switches_per_socket = 1;
    if (dls_config_has(cfg, "links.pcie.alpha_us")) {
        DLS_TRY(read_link(cfg, "pcie", &c->pcie));
        DLS_TRY(read_count(cfg, "links.pcie.gpus_per_switch", 64, &c->gpus_per_switch));
        DLS_TRY(read_count(cfg, "links.pcie.switches_per_socket", 64,
                           &c->switches_per_socket));
        if (c->gpus_per_node > c->gpus_per_switch * c->switches_per_socket)
            DLS_TRY(read_link(cfg, "socket", &c->socket));
    } else if (several && shape == DLS_SHAPE_NONE) {
        return dls_config_fail(cfg, "links", "intra or pcie is missing: how do the %d "
                               "GPUs of a node talk?", c->gpus_per_node);
    } else if (several && shape >= DLS_SHAPE_RING) {
        return dls_config_fail(cfg, "links.intra.shape", "needs links.pcie for the GPUs "
                               "that it does not join");
    }
    return DLS_OK;
}

static dls_status read_network(dls_config *cfg, dls_cluster *c)
{
    int64_t gpus, nodes;
    c->oversubscription = c->gpus_per_nic = 1;
    c->nodes_per_leaf = c->nodes;
    if (c->nodes == 1 && !dls_config_has(cfg, "links.inter.alpha_us"))
        return DLS_OK;
    DLS_TRY(read_link(cfg, "inter", &c->inter));
    DLS_TRY(dls_config_int_or(cfg, "links.inter.gpus_per_nic", 1, 64, 1, &gpus));
    c->gpus_per_nic = (int)gpus;
    if (!dls_config_has(cfg, "links.spine.alpha_us"))
        return DLS_OK;
    DLS_TRY(dls_config_int_or(cfg, "links.spine.nodes_per_leaf", 1, 100000, c->nodes,
                              &nodes));
    c->nodes_per_leaf = (int)nodes;
    DLS_TRY(dls_config_bool_or(cfg, "links.spine.rails", 0, &c->rails));
    DLS_TRY(read_scaled(cfg, "links.spine.alpha_us", 0, 1e6, 1e-6, &c->spine_alpha));
    return dls_config_real(cfg, "links.spine.oversubscription", 1, 1000,
                           &c->oversubscription);
}

/* find the cluster file */
static dls_status find_file(const char *path, char *out, size_t size)
{
    const char *home = getenv("DLS_HOME");
    if (strchr(path, '/') || strstr(path, ".yaml") || strstr(path, ".yml")) {
        snprintf(out, size, "%s", path);
        return DLS_OK;
    }
    for (int i = home ? 0 : 1; i < 2; i++) {
        snprintf(out, size, "%s/code/vgpu/clusters/%s.yaml", i == 0 ? home : ".", path);
        if (access(out, R_OK) == 0)
            return DLS_OK;
    }
    return DLS_FAIL(DLS_ERR_INPUT, "no cluster called '%s': expected a file path, or the "
                    "name of a file in code/vgpu/clusters (is DLS_HOME set?)", path);
}

/* load a cluster */
static dls_status read_cluster(dls_config *cfg, dls_cluster *out)
{
    DLS_TRY(read_name(cfg, "name", out->name));
    DLS_TRY(read_count(cfg, "nodes", 100000, &out->nodes));
    DLS_TRY(read_count(cfg, "gpus_per_node", 64, &out->gpus_per_node));
    DLS_TRY(read_device(cfg, &out->device));
    DLS_TRY(read_node(cfg, out));
    DLS_TRY(read_network(cfg, out));
    return dls_config_check_unused(cfg);
}

dls_status dls_cluster_load(const char *path, dls_cluster *out)
{
    char file[4096];
    dls_config *cfg;
    DLS_TRY(find_file(path, file, sizeof file));
    DLS_TRY(dls_config_load(file, &cfg));
    dls_cluster read = {0}; // *out stays as it was on an error
    dls_status status = read_cluster(cfg, &read);
    dls_config_free(cfg);
    if (status == DLS_OK)
        *out = read;
    return status;
}

/* build the default cluster */
static const dls_device_spec h100 = {
    .name = "NVIDIA H100 80GB HBM3", .memory_bytes = 80 * 1e9, .l2_bytes = 50 * 1048576.0,
    .f64 = 67 * 1e12, .f32 = 67 * 1e12, .tf32 = 494.7 * 1e12, .bf16 = 989.4 * 1e12,
    .fp8 = 1978.9 * 1e12, .int8 = 1978.9 * 1e12, .memory_bandwidth = 3350 * 1e9,
    .launch = 3.8 * 1e-6, .launch_latency = 6.7 * 1e-6, .least_kernel = 2.0 * 1e-6,
    .graph_gap = 0.17 * 1e-6, .host_bandwidth = 55 * 1e9, .host_latency = 8.0 * 1e-6,
    .clock = 1980 * 1e6, .compute_major = 9, .multiprocessors = 132,
    .memory_bus_bits = 5120, .shared_per_multiprocessor = 228 * 1024,
    .shared_per_block = 227 * 1024, .registers_per_multiprocessor = 65536,
    .threads_per_multiprocessor = 2048, .blocks_per_multiprocessor = 32,
    .copy_engines = 3, .pcie_generation = 5, .pcie_lanes = 16,
};

void dls_cluster_default(dls_cluster *out)
{
    memset(out, 0, sizeof *out);
    strcpy(out->name, "dgx-h100");
    out->nodes = 1;
    out->gpus_per_node = 8;
    out->device = h100;
    for (int w = 0; w < DLS_WORKS; w++)
        out->device.share[w] = (dls_share){.flops = 0.80, .memory = 0.90};
    out->device.share[DLS_WORK_ATTENTION_BF16].flops = 0.655;
    out->intra = (dls_link_spec){.alpha = 3.4 * 1e-6, .beta = 1 / (450 * 1e9 * 0.84)};
    out->inter = (dls_link_spec){.alpha = 9.6 * 1e-6, .beta = 1 / (50 * 1e9 * 0.92)};
    out->gpus_per_switch = out->switches_per_socket = 1;
    out->oversubscription = out->gpus_per_nic = out->nodes_per_leaf = 1;
}

/* apply the roofline */
double dls_cluster_peak(const dls_device_spec *d, dls_work work)
{
    double peak = work == DLS_WORK_GEMM_F64    ? d->f64
                  : work == DLS_WORK_GEMM_TF32 ? d->tf32
                  : work == DLS_WORK_GEMM_BF16 || work == DLS_WORK_ATTENTION_BF16
                      ? d->bf16
                  : work == DLS_WORK_GEMM_FP8  ? d->fp8
                  : work == DLS_WORK_GEMM_FP4  ? d->fp4
                  : work == DLS_WORK_GEMM_INT8 ? d->int8 : d->f32;
    return peak > 0 ? peak : d->f32;
}

double dls_cluster_roofline(const dls_device_spec *d, dls_work work, double flops,
                            double bytes)
{
    double rate = dls_cluster_peak(d, work) * d->share[work].flops;
    double traffic = d->memory_bandwidth * d->share[work].memory;
    return fmax(flops / rate, bytes / traffic);
}

double dls_cluster_duration(const dls_device_spec *d, dls_work work, double flops,
                            double bytes)
{
    return fmax(d->least_kernel, dls_cluster_roofline(d, work, flops, bytes));
}
