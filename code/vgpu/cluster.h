/* code/vgpu/cluster.h: from chapters/A-virtual-gpu.md. Edit the chapter, or edit here and run "make untangle". */
/* The hardware that the virtual clock imitates: device, node, links; from a YAML file.
 *
 * Ranks are numbered node by node: rank r is GPU r % gpus_per_node of node
 * r / gpus_per_node. Two ranks of one node talk over `intra`, others over `inter`. */
#ifndef DLS_VGPU_CLUSTER_H
#define DLS_VGPU_CLUSTER_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* describe a device */
enum { DLS_CLUSTER_NAME = 64 };

typedef struct dls_device_spec {
    char name[DLS_CLUSTER_NAME];
    double memory_bytes;
    double f32, tf32, bf16, f64;  // peak FLOP/s; f32 without tensor cores, f64 with
    double memory_bandwidth;      // bytes/s
    double flops_efficiency;      // share of the peak a good kernel reaches, 0..1
    double memory_efficiency;
    double launch;                // s of the host's time per launch (delta)
    double launch_latency;        // s from a launch to the kernel's start (lambda)
    double least_kernel;          // s that the shortest kernel takes (mu)
    double host_bandwidth;        // bytes/s to and from pinned host memory
    double host_latency;          // s per copy between host and device
    int multiprocessors, compute_major, compute_minor;
} dls_device_spec;

/* describe a cluster */
typedef struct dls_link_spec {
    double alpha; // s
    double beta;  // s per byte, one direction
} dls_link_spec;

typedef struct dls_cluster {
    char name[DLS_CLUSTER_NAME];
    int nodes, gpus_per_node;
    dls_device_spec device;
    dls_link_spec intra, inter;
} dls_cluster;

/* Reads a cluster file. `path`: a file, or a name such as "dgx-h100", looked for as
 * NAME.yaml in $DLS_HOME/code/vgpu/clusters and in code/vgpu/clusters.
 * DLS_ERR_INPUT with file, line and field; DLS_ERR_IO when there is no such file. */
dls_status dls_cluster_load(const char *path, dls_cluster *out);

/* The built-in cluster, the same as dgx-h100.yaml: works without any file. */
void dls_cluster_default(dls_cluster *out);

/* alpha (s) and beta (s/byte) between two ranks; between a rank and itself 0 and the time
 * of a copy within device memory. DLS_ERR_INPUT when a rank is not in the cluster. */
dls_status dls_cluster_link(const dls_cluster *cluster, int rank_a, int rank_b,
                            double *alpha, double *beta);

/* The roofline: seconds for an operation at the given peak (0: f32). */
double dls_cluster_duration(const dls_device_spec *device, double peak, double flops,
                            double bytes);

#ifdef __cplusplus
}
#endif
#endif
