/* code/vgpu/profile.h: from chapters/A-virtual-gpu-profile.md. Edit the chapter, or edit here and run "make untangle". */
/* The profiler: what kernels do to memory and how much they compute, counted exactly.
 *
 *   dls_profile_begin(); ... launches ...; dls_profile_end();
 *   dls_profile_kernel("transpose", &k);          k.total.sectors, ...
 *   dls_profile_line("homework.cu", 12, &c);      c.wavefronts, ...
 *
 * The numbers are the same in every run and for every order of the lanes. Needs a probed
 * program.
 */
#ifndef DLS_VGPU_PROFILE_H
#define DLS_VGPU_PROFILE_H

#include <stdint.h>
#include <stdio.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the counters */
typedef struct dls_profile_counters {
    /* global memory: loads, stores and atomics */
    uint64_t requests;         // of warps
    uint64_t sectors;          // of 32 bytes that the requests touched
    uint64_t ideal_sectors;    // the least that could hold the bytes they asked for
    uint64_t bytes;            // lanes x size
    uint64_t dram_read, dram_written;  // bytes, behind a second-level cache
    /* shared memory */
    uint64_t shared_requests;
    uint64_t wavefronts;       // passes over the 32 banks
    uint64_t ideal_wavefronts; // without conflicts
    uint64_t shared_bytes;
    uint64_t atomics;          // requests, of the global and shared ones above
    /* arithmetic, of all lanes */
    uint64_t flops;            // +, -, x, /, sqrt: 1 each; fused multiply-add: 2
    uint64_t tensor_flops;     // of warp-wide matrix instructions
    uint64_t specials;         // calls of expf, sinf, ...
    /* control */
    uint64_t blocks;           // basic blocks entered by warps
    uint64_t lanes;            // lanes that entered them, summed
} dls_profile_counters;
/* declare what is known of a kernel */
typedef struct dls_profiled_kernel {
    const char *name;          // as in the launch: "tiled<16>"
    const char *file;          // of the first launch
    int line;
    uint64_t launches;
    unsigned grid[3], block[3];          // of the last launch
    size_t static_shared, dynamic_shared; // bytes per block, of the last launch
    dls_profile_counters total;          // of all launches
    /* the roofline on the cluster's device, summed over the launches (s) */
    double compute_time, memory_time, shared_time, time;
    const char *bound;         // "compute", "memory", "shared memory" or "latency"
    double occupancy;          // 0..1, by threads and shared memory; registers unknown
} dls_profiled_kernel;
/* declare the profiler */
/* Host. Counts from zero. DLS_ERR_STATE when another profile or too many probes run. */
dls_status dls_profile_begin(void);

/* Host. Stops counting; the numbers can be asked for until the next begin. */
void dls_profile_end(void);

/* Host. The kernel of that name; "tiled" also finds a lone "tiled<16>". 0: none ran. */
int dls_profile_kernel(const char *name, dls_profiled_kernel *out);

/* Host. The counters of one line, of all kernels; `file` may be the end of a path.
 * 0: the line did nothing that is counted. */
int dls_profile_line(const char *file, int line, dls_profile_counters *out);

/* Host. A table of the kernels and one of the `hottest` lines, with their text. */
dls_status dls_profile_print(FILE *out, int hottest);

/* Host. The passages of the source that did anything, with counts beside each line. */
void dls_profile_annotate(FILE *out);

/* Host. Everything as JSON; and one line FILE:LINE <tab> counters for each line that
 * was counted, with a heading. The file is replaced when it is complete. */
dls_status dls_profile_write_json(const char *path);
dls_status dls_profile_write_tsv(const char *path);

/* Host. What a probed program does at its start: follows DLS_PROFILE (1: print to stderr
 * at the end; annotate: with the source; quiet: nothing), DLS_PROFILE_JSON and
 * DLS_PROFILE_TSV (files to write). */
void dls_profile_start(void);


#ifdef __cplusplus
}
#endif
#endif
