/* code/vgpu/check_internal.h: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* Inside the checker: records of accesses, shadow memory, what is ordered before what.
 *
 *   address --> chunk (4096 bytes) --> per unit of 1, 2, 4, ... bytes:
 *                                        w     the last write
 *                                        r[2]  two reads since, of different threads
 *
 *   a record (64 bits):  | flags 2 | place 20 | thread 10 | time 32 |
 *
 * Time is a counter that moves at every event that orders threads: barriers, warp
 * operations, fences, blocks, operations. A time leads to the operation and the block of
 * that time; so a record needs neither.
 */
#ifndef DLS_VGPU_CHECK_INTERNAL_H
#define DLS_VGPU_CHECK_INTERNAL_H

#include "vgpu/check.h"
#include "vgpu/observer.h"
#include "vgpu/probe.h"

/* define a record */
typedef uint64_t dls_record;  // 0: no access

#define DLS_RECORD_ATOMIC (1ull << 62)   // atomic or volatile
#define DLS_RECORD_KEPT (1ull << 63)     // in r[1]: the write before the atomic one in w

static inline uint32_t dls_time_of(dls_record r) { return (uint32_t)r; }
static inline unsigned dls_thread_of(dls_record r) { return r >> 32 & 1023; }
static inline unsigned dls_place_of(dls_record r) { return r >> 42 & 0xfffff; }

static inline dls_record dls_record_of(uint32_t time, unsigned thread, unsigned place)
{
    return time | (uint64_t)thread << 32 | (uint64_t)place << 42;
}
/* define a chunk */
enum { DLS_CHUNK = 4096 };

typedef struct dls_chunk {
    dls_record *w;       // one per unit; NULL: `uniform` stands for all of them
    dls_record (*r)[2];  // NULL: no reads
    dls_record uniform;
    uint16_t valid;      // bytes that belong to a living allocation
    uint8_t shift;       // a unit has 1 << shift bytes
    uint8_t shaped;      // shift has been chosen
} dls_chunk;
/* define a block of memory */
enum { DLS_CHECK_FRAMES = 4 };

/* Who called: the innermost frames outside of the virtual GPU. */
typedef struct dls_check_trace {
    unsigned count;
    uintptr_t pc[DLS_CHECK_FRAMES];
} dls_check_trace;

typedef struct dls_check_block {
    char *start;
    size_t bytes;
    int device;       // -1: pinned host memory
    uint8_t freed, managed, opaque;  // opaque: unwatched code may have written here
    unsigned renews;  // the block that it replaced, 0: none
    dls_check_trace allocated, released;
} dls_check_block;
/* define an operation of the checker */
/* An operation of a stream. Number 0 is the host. */
typedef struct dls_check_op {
    unsigned actor, sequence;     // which stream; its how-manieth operation
    char name[48], stream[DLS_VGPU_STREAM_NAME];
    const char *file;             // of a launch
    int line;
    dls_check_trace caller;       // of anything else
    dls_gpu_kind kind;
    uint32_t begun;               // 0: not yet
    uint32_t *knows;              // (actors) the last sequence number of each that is
    unsigned actors;              // ordered before; [0]: the host's time
    int seen;                     // what it touches is known
} dls_check_op;
/* define the state of the checker */
typedef struct dls_check_state {
    uint32_t now;
    unsigned op;             // that runs; 0: the host does
    uint32_t host_access;    // the host's last access to memory of the device
    uint32_t floor;          // what happened before this time is ordered before the op
    uint32_t first, bar;     // the block began; its last barrier
    uint32_t launch_floor;   // the grid's last barrier, or 0
    uint32_t block;
    const dls_simt_grid *grid;
    uint64_t stack, stack_bytes;  // of the host's thread
    uint32_t full[32];       // per warp: the last meeting of all its lanes, or bar
    uint32_t last[32];       // the last meeting of any
    uint32_t met[32][32][32];  // [warp][a][b]: lane a knows what b did before ...
    uint8_t partial[32];     // ... if set
    unsigned unnoted;        // phrases that are not yet in the shadow
    unsigned long findings;  // new ones, and old ones again
    int slot;                // our number among the consumers of probes
} dls_check_state;

extern dls_check_state dls_checker;
/* declare the parts of the checker */
/* check_memory.c */
int dls_check_arena(void);                        // reserves it: 0, or -1
int dls_check_in_arena(uint64_t address);
dls_chunk *dls_check_chunk(uint64_t address);     // NULL: not memory of the device
dls_chunk *dls_check_shared_chunk(uint64_t address);
void dls_check_split(dls_chunk *c, unsigned shift);
void dls_check_shape(dls_chunk *c, unsigned shift); // gives it arrays of units
dls_check_block *dls_check_block_at(uint64_t address); // the nearest at or below
unsigned dls_check_block_count(void);
dls_check_block *dls_check_block_number(unsigned i); // 1 ...
void dls_check_record_trace(dls_check_trace *out);
/* These four for the observer. */
void *dls_check_allocate(size_t bytes, int device, const void *caller);
void *dls_check_renew(void *start);
void dls_check_managed(void *start);
void dls_check_release(void *start);

/* check_order.c */
typedef struct dls_check_owner {
    unsigned op;
    uint32_t block;          // DLS_NO_BLOCK: not in a kernel
} dls_check_owner;
#define DLS_NO_BLOCK 0xffffffffu

uint32_t dls_check_tick(void);                  // moves the time
void dls_check_own(unsigned op, uint32_t block); // what follows belongs to these
dls_check_owner dls_check_owner_of(uint32_t time);
dls_check_op *dls_check_op_number(unsigned i);
int dls_check_op_known(unsigned op, uint32_t time); // to what runs now
void dls_check_op_enqueued(const struct CUstream_st *s, dls_vgpu_operation *o);
void dls_check_op_begun(const struct CUstream_st *s, const dls_vgpu_operation *o);
void dls_check_op_ended(const struct CUstream_st *s, const dls_vgpu_operation *o);
void dls_check_host_waited(const dls_vgpu_mark *mark);

/* check_sync.c */
void dls_check_block_began(uint32_t block);
void dls_check_barrier_passed(void);
void dls_check_lanes_met(unsigned warp, uint32_t lanes);
void dls_check_fence(unsigned thread, int device_wide);
void dls_check_sync_access(uint64_t address, unsigned thread, int writes, int reads);
int dls_check_known(uint32_t block, unsigned thread, uint32_t time, unsigned to);
void dls_check_sync_reset(void);                // a launch begins

/* check_phrases.c */
int dls_check_again(dls_probe_phrase *phrase);
void dls_check_note_phrases(void);              // those that are not, as of now
void dls_check_epoch_ended(int at_barrier);     // nobody will ask for them
void dls_check_ordered_inside(void);            // ... the epoch: a meeting, a fence
void dls_check_shared_request(const dls_probe_request *q);

/* check_access.c */
int dls_check_ordered(dls_record r, unsigned thread);
void dls_check_request(const dls_probe_request *q);
typedef struct dls_check_array {
    uint64_t start;
    size_t bytes;
    const char *name, *file;
    int line;
    uint32_t since;          // the block that declared it
} dls_check_array;
const dls_check_array *dls_check_array_at(uint64_t address);
void dls_check_shared_array(const char *name, void *array, size_t bytes,
                            const char *file, int line);
void dls_check_touched(int write, const void *start, size_t bytes, size_t pitch,
                       size_t rows);
void dls_check_host(uintptr_t pc, const void *address, size_t size, int write);

/* check_find.c */
unsigned dls_check_place(uintptr_t pc);
int dls_check_is_ours(uintptr_t pc);            // a frame of the virtual GPU itself
enum { DLS_PLACE_NONE, DLS_PLACE_OPERATION, DLS_PLACE_FIRST };
void dls_check_place_of(unsigned place, const char **function, const char **file,
                        int *line);

typedef struct dls_check_access {
    uint64_t address;
    unsigned size, thread, place;
    int write;               // 2: atomic
    dls_probe_space space;
} dls_check_access;

void dls_check_found_race(const dls_check_access *a, dls_record other, int other_writes);
void dls_check_found_bad(dls_check_class kind, const dls_check_access *a);
unsigned dls_check_unsettled_count(void);       // of reports; needs little stack
int dls_check_is_wrong(uint64_t address);       // outside of the device's memory
/* Others: NULL when it was known. `what` and the class tell findings apart. */
dls_check_report *dls_check_found(dls_check_class kind, dls_check_severity severity,
                                  const void *what, const char *title, const char *hint);
void dls_check_set_caller(dls_check_party *p, const char *what, const dls_check_trace *t);
void dls_check_name_thread(char *out, size_t room, const char *did, uint32_t block,
                           unsigned thread);

#endif
