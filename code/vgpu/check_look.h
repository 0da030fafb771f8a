/* code/vgpu/check_look.h: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* What a look at an access needs, on the long way and on the short one. */
#ifndef DLS_VGPU_CHECK_LOOK_H
#define DLS_VGPU_CHECK_LOOK_H

#include "vgpu/check_internal.h"

/* say what a look is */
/* What is the same for all lanes of a request, and the lane. Two ranges of times are
 * known to be ordered before: [1, floor), in shared memory [first, first); and
 * [first, bar). */
typedef struct look {
    dls_check_access access;
    dls_record mine;
    uint32_t low, floor;   // the first range
    uint32_t first, bar;   // the second; bar: also the last meeting of the warp
} look;

static inline int is_safe(const look *l, dls_record r)
{
    uint32_t time = dls_time_of(r);
    return time - l->low < l->floor - l->low || time - l->first < l->bar - l->first;
}

static inline int is_atomic(dls_record r) { return (r & DLS_RECORD_ATOMIC) != 0; }

/* Does the reader's record matter no more? In shared memory those of earlier blocks. */
static inline int is_old(const look *l, dls_record r)
{
    uint32_t time = dls_time_of(r);
    return time < l->floor || time - l->first < l->bar - l->first;
}

/* remember the words of a site */
enum { DLS_WORDS = 128, DLS_WORDS_SPAN = 256 };  // 32 lanes of 16 bytes; 1 KiB

/* What the checker remembers of a site. Words count from the lowest address on. */
typedef struct dls_check_site {
    unsigned place;
    const dls_check_array *array;     // that the last address lay in
    unsigned known, size;             // of the last shape; the rest is for this size
    uint64_t low;                     // from the first lane's address, modulo 2^64
    unsigned span, count, runs;       // count: of distinct words; runs 0: no list
    unsigned common;                  // words of more than one lane
    uint64_t who[DLS_WORDS][2];       // its first two lanes, as in a record
    struct dls_check_run { uint8_t word, words; } run[DLS_WORDS];
} dls_check_site;

/* Looks at the reads and writes of whole words that are simple, and notes them; returns
 * the lanes that are not, untouched. */
uint32_t dls_check_look_quickly(const dls_probe_request *q, const look *l,
                                dls_check_site *s);

#endif
