/* code/vgpu/profile_internal.h: from chapters/A-virtual-gpu-profile.md. Edit the chapter, or edit here and run "make untangle". */
/* Inside the profiler: counters of sites, kernels, and the second-level cache. */
#ifndef DLS_VGPU_PROFILE_INTERNAL_H
#define DLS_VGPU_PROFILE_INTERNAL_H

#include "vgpu/probe.h"
#include "vgpu/profile.h"

/* define the count of a site */
enum { PROFILE_SECTORS = 64 };  // 32 lanes, each of which may straddle two

typedef struct dls_profile_site {
    unsigned long long launch;     // that the counters belong to, + 1
    dls_profile_counters c;
    unsigned wavefronts, ideal_wavefronts;  // of a request of the last shape
    unsigned sectors, ideal_sectors;
    uint64_t sector[PROFILE_SECTORS];       // of the last request: address / 32
    int known, emulators;                   // of a basic block: these are filled in
    unsigned flops;                         // of each lane that enters it
} dls_profile_site;
/* define what is kept for a kernel */
typedef struct dls_profile_entry {
    dls_profiled_kernel kernel;
    unsigned room;
    dls_profile_counters *site;  // (room), by the site's id
} dls_profile_entry;
/* declare the internals of the profiler */
/* Number of the profiler among the consumers: the slot of its sites. */
extern int dls_profile_number;

void dls_profile_count(const dls_probe_request *r);
void dls_profile_repeated(dls_probe_phrase *phrase, unsigned long long times);
void dls_profile_add(dls_profile_counters *to, const dls_profile_counters *from);
void dls_profile_add_times(dls_profile_counters *to, const dls_profile_counters *from,
                           uint64_t times);

/* The sites that the present launch has touched, and their number. */
unsigned dls_profile_touched(dls_probe_site ***sites);
void dls_profile_new_launch(unsigned long long number);

/* A second-level cache of so many bytes, empty. */
void dls_profile_cache_begin(double bytes);
/* Touches the sectors of one line of 128 bytes (4 bits); adds DRAM bytes to c. */
void dls_profile_cache_touch(uint64_t line, unsigned sectors, int write,
                             dls_profile_counters *c);

/* Calls found(pc, flops) for each floating-point instruction of the basic block that the
 * site begins. */
void dls_profile_flops(uintptr_t block,
                       void (*found)(void *arg, uintptr_t pc, unsigned flops), void *arg);

unsigned dls_profile_kernels(dls_profile_entry **out);

/* What the probes counted at a line, of one kernel or of all (kernel NULL). */
typedef struct dls_profile_row {
    const char *file, *function;
    int line;
    dls_profile_counters c;
} dls_profile_row;

/* All lines with counters, by file and line. The caller frees *rows. */
unsigned dls_profile_rows(const dls_profile_entry *kernel, dls_profile_row **rows);

#endif
