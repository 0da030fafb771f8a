/* code/vgpu/cluster.h: from chapters/A-virtual-gpu-clusters.md. Edit the chapter, or edit here and run "make untangle". */
/* The hardware that the virtual clock imitates: device, node, links; from a YAML file.
 *
 * Ranks are numbered node by node: rank r is GPU r % gpus_per_node of node
 * r / gpus_per_node. A message's path is a list of hops; its latency is the sum of
 * theirs, its bandwidth the least of theirs. */
#ifndef DLS_VGPU_CLUSTER_H
#define DLS_VGPU_CLUSTER_H

#include <stddef.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* name the kinds of work */
typedef enum dls_work {
    DLS_WORK_OTHER, // f32 arithmetic of no particular kind
    DLS_WORK_GEMM_F64, DLS_WORK_GEMM_F32, DLS_WORK_GEMM_TF32,
    DLS_WORK_GEMM_BF16, // or f16
    DLS_WORK_GEMM_FP8, DLS_WORK_GEMM_FP4, DLS_WORK_GEMM_INT8,
    DLS_WORK_ATTENTION_F32, DLS_WORK_ATTENTION_BF16, DLS_WORK_NORM,
    DLS_WORK_ELEMENTWISE, DLS_WORK_REDUCTION,
    DLS_WORK_COPY,                                          // within a device
    DLS_WORK_UPLOAD, DLS_WORK_DOWNLOAD, DLS_WORK_PEER,      // on a link: no share
    DLS_WORKS
} dls_work;

/* describe a device */

enum { DLS_CLUSTER_NAME = 64 };

/* What a good program reaches of the peaks, 0..1. */
typedef struct dls_share { double flops, memory; } dls_share;

typedef struct dls_device_spec {
    char name[DLS_CLUSTER_NAME];
    double memory_bytes, l2_bytes;
    double f64, f32, tf32, bf16, fp8, fp4, int8; // peak operations/s, dense; 0: has none
    double memory_bandwidth;      // bytes/s
    dls_share share[DLS_WORKS];
    double launch;                // s of the host's time per launch (delta)
    double launch_latency;        // s from a launch to the kernel's start (lambda)
    double least_kernel;          // s that the shortest kernel takes (mu)
    double graph_gap;             // s between two kernels of a graph (gamma)
    double host_bandwidth;        // bytes/s to and from pinned host memory
    double host_latency;          // s per copy between host and device
    double clock;                 // Hz, the highest
    int compute_major, compute_minor, multiprocessors, memory_bus_bits;
    /* describe the limits of a device */
    int shared_per_multiprocessor, shared_per_block; // bytes; the latter by opting in
    int registers_per_multiprocessor, threads_per_multiprocessor;
    int blocks_per_multiprocessor;
    int copy_engines;             // as cudaDeviceProp.asyncEngineCount
    int pcie_generation, pcie_lanes;
    int unused;                   // the number of ints is even: no padding to compare
} dls_device_spec;

/* describe a cluster */

typedef struct dls_link_spec {
    double alpha; // s
    double beta;  // s per byte, one direction; 0: there is no such link
} dls_link_spec;

/* How the GPUs of a node reach each other without PCI Express. */
typedef enum dls_shape_of_node {
    DLS_SHAPE_SWITCH, // every GPU has one port to a switch between all of them
    DLS_SHAPE_MESH,   // a link between every two
    DLS_SHAPE_RING,   // a link to the next and to the previous
    DLS_SHAPE_PAIRS,  // a bridge between 0 and 1, 2 and 3, ...
    DLS_SHAPE_NONE
} dls_shape_of_node;

typedef struct dls_cluster {
    char name[DLS_CLUSTER_NAME];
    int nodes, gpus_per_node;
    dls_device_spec device;
    dls_link_spec intra, pcie, socket, inter;
    double spine_alpha, oversubscription; // between leaf switches
    dls_shape_of_node shape;
    int gpus_per_switch, switches_per_socket; // PCI Express; with `pcie` only
    int gpus_per_nic, nodes_per_leaf, rails;
} dls_cluster;

/* declare loading and rates */

/* Reads a cluster file. `path`: a file, or a name such as "dgx-h100", looked for as
 * NAME.yaml in $DLS_HOME/code/vgpu/clusters and in code/vgpu/clusters.
 * DLS_ERR_INPUT with file, line and field; DLS_ERR_IO when there is no such file. */
dls_status dls_cluster_load(const char *path, dls_cluster *out);

/* The built-in cluster, the same as dgx-h100.yaml: works without any file. */
void dls_cluster_default(dls_cluster *out);

const char *dls_work_name(dls_work work); // as in the file, "gemm_bf16"

/* The peak that this work runs at (operations/s); f32's where the device has none. */
double dls_cluster_peak(const dls_device_spec *device, dls_work work);

/* The roofline: seconds that the work needs at its peak or from memory, and what it takes
 * on an otherwise idle device, which is at least the shortest kernel. */
double dls_cluster_roofline(const dls_device_spec *device, dls_work work, double flops,
                            double bytes);
double dls_cluster_duration(const dls_device_spec *device, dls_work work, double flops,
                            double bytes);

/* declare paths */

typedef enum dls_hop_kind {
    DLS_HOP_PORT, DLS_HOP_NVLINK, DLS_HOP_PCIE, DLS_HOP_SOCKET, DLS_HOP_NIC,
    DLS_HOP_SPINE
} dls_hop_kind;

/* One directed link. from, to: numbers of its ends among all of their kind; -1: a
 * switch. */
typedef struct dls_hop {
    dls_hop_kind kind;
    int from, to;
    double alpha, beta;
} dls_hop;

enum { DLS_HOPS = 6 };

/* In words, "switch 1". */
void dls_hop_end(const dls_hop *hop, int end, char *text, size_t size);

/* The hops from rank a to rank b, 0 for a == b. DLS_ERR_INPUT: no such rank. */
dls_status dls_cluster_path(const dls_cluster *cluster, int a, int b,
                            dls_hop hops[DLS_HOPS], int *count);

/* alpha (s) and beta (s/byte) between two ranks; between a rank and itself 0 and the time
 * of a copy within device memory. DLS_ERR_INPUT when a rank is not in the cluster. */
dls_status dls_cluster_link(const dls_cluster *cluster, int rank_a, int rank_b,
                            double *alpha, double *beta);

/* The same for flow number `which` of `n` that are under way together, flow i from rank
 * flows[i][0] to flows[i][1]: a link's bandwidth is divided among those that use it. */
dls_status dls_cluster_flow(const dls_cluster *cluster, const int (*flows)[2], int n,
                            int which, double *alpha, double *beta);

/* bytes/s between host and device of a rank, when `world` ranks copy at once. */
double dls_cluster_host_bandwidth(const dls_cluster *cluster, int rank, int world);

/* Draws the shape (topology_svg.c). DLS_ERR_IO. */
dls_status dls_cluster_draw(const dls_cluster *cluster, const char *path);

#ifdef __cplusplus
}
#endif
#endif
