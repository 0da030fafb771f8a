/* code/vgpu/vgpu_internal.h: from chapters/A-virtual-gpu-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to code/vgpu, virtual backend: operations, streams, the process's state.
 *
 *   stream --> op --> op --> op (tail)         each op --> its mark
 *      +------------> last mark <-- event      a wait op --> the mark it awaits
 *
 * One lock (recursive) guards everything here; every public function holds it. */
#ifndef DLS_VGPU_INTERNAL_H
#define DLS_VGPU_INTERNAL_H

#define DLS_VGPU_NO_SITES // the calls are defined here, not called: see vgpu_sites.h

#include "vgpu/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare marks and operations */
typedef struct dls_vgpu_mark {
    int refs;
    int done;
    double time; // virtual seconds; valid once done
    double known; // the same, when it follows from the program alone, else NAN
    int on_device, in_stream; // numbers of where it was passed; valid once done
    int capture, entry; // recorded while capturing a graph; 0: it was not
    struct CUstream_st *stream; // whose operation completes it; valid until done
    unsigned observed;  // the observer's number for the operation
} dls_vgpu_mark;

typedef enum dls_vgpu_type {
    DLS_VGPU_WORK, DLS_VGPU_RECORD, DLS_VGPU_WAIT
} dls_vgpu_type;

typedef struct dls_vgpu_operation {
    struct dls_vgpu_operation *next;
    dls_vgpu_type type;
    dls_gpu_op op;
    void *arg;
    double enqueued;        // the host's clock (s)
    double duration;        // s, or < 0: from the cost model
    double gap;             // s after its predecessor in a graph
    double not_before;      // s, when what it shares is free
    int range;              // innermost trace range at the enqueue
    dls_vgpu_mark *awaited; // WAIT only
    dls_vgpu_mark *mark;
} dls_vgpu_operation;

/* declare streams and the state */
enum { DLS_VGPU_DEVICES = 64, DLS_VGPU_STREAM_NAME = 32, DLS_VGPU_FAILURE = 2000 };

struct CUstream_st {
    struct CUstream_st *next; // all streams of the process, in order of creation
    int device, index;        // index 0: the device's default stream
    unsigned int flags;
    char name[DLS_VGPU_STREAM_NAME];
    dls_vgpu_operation *head, *tail;
    dls_vgpu_mark *last;        // of the operation enqueued last; NULL when none ever
    dls_vgpu_mark *legacy_seen; // the default stream's, awaited here
    dls_vgpu_mark *legacy_joined; // ours, awaited by the default stream
    double finish;              // of the operation executed last (s)
    int capture, lane;          // the graph being captured, 0: none; its lane there
    int priority;               // 0, or below: more urgent
};

struct CUevent_st {
    unsigned int flags;
    dls_vgpu_mark *mark; // NULL: never recorded
};

typedef struct dls_vgpu_state {
    dls_gpu_options options; // completed from the environment
    dls_cluster cluster;
    int threads;
    double host_time;        // s
    double watchdog;         // s of real time without progress; 0: no limit
    struct CUstream_st *streams;
    struct CUstream_st *legacy[DLS_VGPU_DEVICES];
    int stream_count[DLS_VGPU_DEVICES];
    uint64_t random;
    int pending;             // operations enqueued and not yet run
    uint64_t enqueued;       // so far
    int executing;           // inside an operation's functions
    int (*idle)(void *arg);
    void *idle_arg;
    cudaError_t sticky;      // what broke the device
    dls_status sticky_status;
    char failure[DLS_VGPU_FAILURE]; // the same in words
} dls_vgpu_state;

extern dls_vgpu_state dls_vgpu;

/* declare the internal functions */
/* enter: cudaSuccess, or the error to return (through leave). Always paired. */
cudaError_t dls_vgpu_enter(void);
cudaError_t dls_vgpu_leave(cudaError_t error);
int dls_vgpu_device(void); // this thread's current device

/* NULL and cudaStreamLegacy become the current device's default stream; NULL on a handle
 * that is not a live stream. */
struct CUstream_st *dls_vgpu_stream(cudaStream_t stream);

dls_vgpu_mark *dls_vgpu_hold(dls_vgpu_mark *mark); // NULL stays NULL
void dls_vgpu_drop(dls_vgpu_mark *mark);

/* A zeroed operation with its mark, NULL without memory. */
dls_vgpu_operation *dls_vgpu_operation_new(dls_vgpu_type type);
void dls_vgpu_operation_free(dls_vgpu_operation *operation);

/* Appends; the operation now belongs to the stream. */
cudaError_t dls_vgpu_submit(struct CUstream_st *stream, dls_vgpu_operation *operation);

/* Enqueue a wait for a mark; a record, whose mark goes to the slot. */
cudaError_t dls_vgpu_submit_wait(struct CUstream_st *s, dls_vgpu_mark *mark);
cudaError_t dls_vgpu_submit_record(struct CUstream_st *s, dls_vgpu_mark **slot);

/* The pending annotation of this thread, folded into op and forgotten. */
void dls_vgpu_take_cost(dls_gpu_op *op);

/* dls_gpu_enqueue with a duration (s, < 0: from the cost model), for operations that the
 * device may plan with. Takes the lock itself. */
cudaError_t dls_vgpu_launch(cudaStream_t stream, const dls_gpu_op *op, void *arg,
                            double duration);

/* Counts the calling thread among those that use the device. */
void dls_vgpu_register(void);
/* Sleeps in the idle callback on behalf of a thread that waits for the mark, or polls
 * it; returns the callback's answer. The lock is held, and may be let go meanwhile. */
int dls_vgpu_idle(const dls_vgpu_mark *mark, int polls);
/* The noted call and its place become the operation's, if there is a note. */
void dls_vgpu_sited(dls_gpu_op *op);
/* Adds "the host waits in cudaStreamSynchronize (F:L)". */
void dls_vgpu_host_describe(char *text, size_t size);

/* The laws of the clock: when an operation starts behind `finish`, the time of what it
 * awaits, and its input's; and how long it takes. */
double dls_vgpu_start(const dls_vgpu_operation *operation, double finish, double awaited,
                      double earliest);
double dls_vgpu_duration(const dls_vgpu_operation *operation);
/* Before an operation enters its queue: its place on what it shares with others. */
void dls_vgpu_plan(struct CUstream_st *stream, dls_vgpu_operation *operation);

/* Runs one operation: 1 done, 0 none can run, -1 the device broke. */
int dls_vgpu_step(void);
/* Runs until the mark is done, sleeping in the idle callback; then moves the host's clock
 * to it when `follow` is set. A NULL mark is done. */
cudaError_t dls_vgpu_finish(dls_vgpu_mark *mark, int follow);
/* All streams of a device, or of all devices when device < 0. */
cudaError_t dls_vgpu_finish_device(int device, int follow);
/* Runs, and waits for messages, until it is known when the mark is done, or that it can
 * not be done before the host goes on. 1: the same in every run. */
int dls_vgpu_settle(dls_vgpu_mark *mark);
/* cudaSuccess when the mark has passed on the host's clock, else cudaErrorNotReady. */
cudaError_t dls_vgpu_poll(dls_vgpu_mark *mark);
/* Makes the error sticky, with one line of explanation, and empties all queues. */
cudaError_t dls_vgpu_break(cudaError_t error, dls_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void dls_vgpu_memory_reset(int device);
int dls_vgpu_is_peer(int device, int peer); // does either look into the other's memory?

/* Rows of `width` bytes, `height` of them in a slice, `depth` slices; steps in bytes. */
typedef struct dls_vgpu_box {
    void *to;
    const void *from; // NULL: set, not copied
    size_t width, height, depth;
    size_t to_pitch, to_slice, from_pitch, from_slice;
} dls_vgpu_box;

/* cudaMemcpy and cudaMemset of a box; `wait`: as the synchronous forms. */
cudaError_t dls_vgpu_copy(dls_vgpu_box box, cudaMemcpyKind kind, cudaStream_t stream,
                          int wait);
cudaError_t dls_vgpu_set(dls_vgpu_box box, int value, cudaStream_t stream);

/* declare the seam to the emulator */
/* A kernel launch under emulation. grid, block: x, y, z; shared: dynamic bytes.
 * run(closure) is called when the operation executes, destroy(closure) once in any case.
 * cudaErrorInvalidConfiguration for a launch that the hardware would refuse. */
cudaError_t dls_vgpu_enqueue_kernel(const char *name, const unsigned int grid[3],
                                    const unsigned int block[3], size_t shared,
                                    cudaStream_t stream, void (*run)(void *closure),
                                    void *closure, void (*destroy)(void *closure));
/* Bytes of dynamic shared memory that a kernel may have: 48 KiB, or what it opted for. */
size_t dls_simt_shared_limit(const void *kernel);

/* declare the hooks of capture */
/* Capturing a graph (gpu_virtual_graph.c). The operation is always taken. */
cudaError_t dls_vgpu_capture_add(struct CUstream_st *s, dls_vgpu_operation *operation);
cudaError_t dls_vgpu_capture_refuse(struct CUstream_st *s); // an error if s captures
cudaError_t dls_vgpu_capture_unsafe(int device);
cudaError_t dls_vgpu_capture_implicit(int device);
/* Before s waits for the mark: s may thereby become part of a capture. */
cudaError_t dls_vgpu_capture_join(struct CUstream_st *s, const dls_vgpu_mark *mark);
cudaError_t dls_vgpu_captured(const dls_vgpu_mark *mark); // an error if it is
cudaError_t dls_vgpu_order(struct CUstream_st *s); // behind the default stream

/* Noting instead of executing (gpu_virtual_record.c). The operation is always taken. */
extern int dls_vgpu_recording;
cudaError_t dls_vgpu_record_add(struct CUstream_st *s, dls_vgpu_operation *operation);

/* Stream-ordered memory (gpu_virtual_pool.c). */
size_t dls_vgpu_pool_cached(int device); // bytes that it holds and nobody uses
void dls_vgpu_pool_forget(const void *start); // cudaFree has freed this block
cudaError_t dls_vgpu_allocate(void **out, size_t bytes, int device, const void *caller);
void dls_vgpu_system_free(void *start, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
