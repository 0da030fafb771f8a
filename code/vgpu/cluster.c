/* code/vgpu/cluster.c: from chapters/A-virtual-gpu.md. Edit the chapter, or edit here and run "make untangle". */
/* Loading cluster files and answering what a link or an operation costs.
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

/* read the device fields */
/* A number of the file times `unit`. */
static dls_status read_scaled(dls_config *cfg, const char *key, double min, double max,
                              double unit, double *out)
{
    DLS_TRY(dls_config_real(cfg, key, min, max, out));
    *out *= unit;
    return DLS_OK;
}

static dls_status read_rates(dls_config *cfg, dls_device_spec *d)
{
    DLS_TRY(read_scaled(cfg, "device.memory_gb", 1e-3, 1e5, 1e9, &d->memory_bytes));
    DLS_TRY(read_scaled(cfg, "device.f32_tflops", 1e-3, 1e6, 1e12, &d->f32));
    DLS_TRY(read_scaled(cfg, "device.tf32_tflops", 1e-3, 1e6, 1e12, &d->tf32));
    DLS_TRY(read_scaled(cfg, "device.bf16_tflops", 1e-3, 1e6, 1e12, &d->bf16));
    DLS_TRY(read_scaled(cfg, "device.f64_tflops", 1e-3, 1e6, 1e12, &d->f64));
    DLS_TRY(read_scaled(cfg, "device.memory_gb_s", 1e-1, 1e6, 1e9, &d->memory_bandwidth));
    DLS_TRY(read_scaled(cfg, "device.host_gb_s", 1e-2, 1e5, 1e9, &d->host_bandwidth));
    DLS_TRY(dls_config_real(cfg, "device.flops_efficiency", 0.01, 1,
                            &d->flops_efficiency));
    return dls_config_real(cfg, "device.memory_efficiency", 0.01, 1,
                           &d->memory_efficiency);
}

static dls_status read_latencies(dls_config *cfg, dls_device_spec *d)
{
    DLS_TRY(read_scaled(cfg, "device.launch_us", 0, 1e6, 1e-6, &d->launch));
    DLS_TRY(read_scaled(cfg, "device.launch_latency_us", 0, 1e6, 1e-6,
                        &d->launch_latency));
    DLS_TRY(read_scaled(cfg, "device.least_kernel_us", 0, 1e6, 1e-6, &d->least_kernel));
    return read_scaled(cfg, "device.host_latency_us", 0, 1e6, 1e-6, &d->host_latency);
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

static dls_status read_device(dls_config *cfg, dls_device_spec *d)
{
    int64_t processors;
    double capability;
    DLS_TRY(read_name(cfg, "device.name", d->name));
    DLS_TRY(read_rates(cfg, d));
    DLS_TRY(read_latencies(cfg, d));
    DLS_TRY(dls_config_int(cfg, "device.multiprocessors", 1, 100000, &processors));
    DLS_TRY(dls_config_real(cfg, "device.compute_capability", 1, 99, &capability));
    d->multiprocessors = (int)processors;
    d->compute_major = (int)capability;
    d->compute_minor = (int)lround((capability - d->compute_major) * 10);
    return DLS_OK;
}

/* read one link */
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
    int64_t nodes, gpus;
    DLS_TRY(read_name(cfg, "name", out->name));
    DLS_TRY(dls_config_int(cfg, "nodes", 1, 100000, &nodes));
    DLS_TRY(dls_config_int(cfg, "gpus_per_node", 1, 64, &gpus));
    out->nodes = (int)nodes;
    out->gpus_per_node = (int)gpus;
    DLS_TRY(read_device(cfg, &out->device));
    DLS_TRY(read_link(cfg, "intra", &out->intra));
    DLS_TRY(read_link(cfg, "inter", &out->inter));
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
void dls_cluster_default(dls_cluster *out)
{
    *out = (dls_cluster){
        .name = "dgx-h100", .nodes = 1, .gpus_per_node = 8,
        .device = {
            .name = "NVIDIA H100 80GB HBM3", .memory_bytes = 80 * 1e9,
            .f32 = 67 * 1e12, .tf32 = 494.7 * 1e12, .bf16 = 989.4 * 1e12,
            .f64 = 67 * 1e12, .memory_bandwidth = 3350 * 1e9,
            .flops_efficiency = 0.80, .memory_efficiency = 0.90,
            .launch = 3.8 * 1e-6, .launch_latency = 6.7 * 1e-6,
            .least_kernel = 2.0 * 1e-6, .host_bandwidth = 55 * 1e9,
            .host_latency = 8.0 * 1e-6, .multiprocessors = 132, .compute_major = 9,
        },
        .intra = {.alpha = 3.4 * 1e-6, .beta = 1 / (450 * 1e9 * 0.84)},
        .inter = {.alpha = 9.6 * 1e-6, .beta = 1 / (50 * 1e9 * 0.92)},
    };
}

/* answer what a link costs */
dls_status dls_cluster_link(const dls_cluster *cluster, int rank_a, int rank_b,
                            double *alpha, double *beta)
{
    int size = cluster->nodes * cluster->gpus_per_node;
    int worst = rank_a < 0 || rank_a >= size ? rank_a : rank_b;
    if (worst < 0 || worst >= size)
        return DLS_FAIL(DLS_ERR_INPUT, "rank %d is not in cluster %s: expected 0 to %d "
                        "(%d node(s) of %d GPUs)", worst, cluster->name, size - 1,
                        cluster->nodes, cluster->gpus_per_node);
    int near = rank_a / cluster->gpus_per_node == rank_b / cluster->gpus_per_node;
    const dls_link_spec *link = near ? &cluster->intra : &cluster->inter;
    const dls_device_spec *d = &cluster->device;
    *alpha = rank_a == rank_b ? 0 : link->alpha;
    *beta = rank_a == rank_b ? 2 / (d->memory_bandwidth * d->memory_efficiency)
                             : link->beta;
    return DLS_OK;
}

double dls_cluster_duration(const dls_device_spec *device, double peak, double flops,
                            double bytes)
{
    double rate = (peak > 0 ? peak : device->f32) * device->flops_efficiency;
    double traffic = device->memory_bandwidth * device->memory_efficiency;
    return fmax(device->least_kernel, fmax(flops / rate, bytes / traffic));
}
