/* code/vgpu/gpu_virtual_graph.c: from chapters/A-virtual-gpu-graphs.md. Edit the chapter, or edit here and run "make untangle". */
/* CUDA graphs by stream capture, and stream priorities, of the virtual backend.
 *
 *   lane 0 (origin)  [work]--[record]--[work]--------[wait]--[work]
 *   lane 1                       \--[wait]--[work]--[record]/
 *
 * A graph is the list of entries in the order of the calls; a launch submits a copy of
 * each, lane 0 to the launching stream and the others to hidden ones. Communication,
 * which carries state from its enqueue to its run, is refused. Not built: graphs by
 * nodes, child graphs, allocations inside a graph. */
#include "vgpu/graph.h"

#include <pthread.h>
#include <stdlib.h>

/* keep the entries of a graph */

void dls_vgpu_graph_drop(struct CUgraph_st *g)
{
    if (g == NULL || --g->refs > 0)
        return;
    dls_vgpu_graph_drop(g->original);
    for (int i = 0; i < g->count; i++)
        if (g->entries[i].op.destroy)
            g->entries[i].op.destroy(g->entries[i].arg);
    free(g->entries);
    free(g);
}

static int graph_grow(struct CUgraph_st *g)
{
    if (g->count < g->capacity)
        return 0;
    int capacity = g->capacity ? 2 * g->capacity : 64;
    entry *grown = realloc(g->entries, (size_t)capacity * sizeof *grown);
    if (grown == NULL)
        return -1;
    g->entries = grown;
    g->capacity = capacity;
    return 0;
}

/* record a graph */
/* keep the active captures */
typedef struct capture {
    struct capture *next;
    int id, invalid;
    enum cudaStreamCaptureMode mode;
    struct CUstream_st *origin;
    pthread_t thread;
    struct CUgraph_st *graph;
} capture;

static capture *captures;

static capture *find_capture(int id)
{
    capture *c = captures;
    while (c && c->id != id)
        c = c->next;
    return c;
}

/* Spoils the capture: nothing but its end will be accepted. Returns the error. */
static cudaError_t invalidate(capture *c, cudaError_t error)
{
    if (c)
        c->invalid = 1;
    return error;
}

/* write an operation down */
static void append(struct CUgraph_st *g, int lane, dls_vgpu_operation *o)
{
    struct lane *l = &g->lane[lane];
    entry *e = &g->entries[g->count];
    *e = (entry){.type = o->type, .lane = lane, .previous = l->last, .target = -1,
                 .op = o->op, .arg = o->arg, .duration = o->duration};
    if (o->type == DLS_VGPU_WAIT) {
        e->target = o->awaited->entry;
        l->worked |= g->entries[e->target].after_work;
    }
    e->after_work = l->worked;
    l->worked |= o->type == DLS_VGPU_WORK;
    l->last = g->count;
    o->op.destroy = NULL; // the argument is the graph's now
    o->mark->entry = g->count++;
}

cudaError_t dls_vgpu_capture_add(struct CUstream_st *s, dls_vgpu_operation *o)
{
    capture *c = find_capture(s->capture);
    cudaError_t error = cudaSuccess;
    if (c == NULL || c->invalid)
        error = cudaErrorStreamCaptureInvalidated;
    else if (o->op.ready) // waits for something outside, and only once
        error = invalidate(c, cudaErrorStreamCaptureUnsupported);
    else if (graph_grow(c->graph) != 0)
        error = invalidate(c, cudaErrorMemoryAllocation);
    if (error == cudaSuccess) {
        append(c->graph, s->lane, o);
        o->mark->capture = c->id;
    }
    dls_vgpu_operation_free(o);
    return error;
}

/* answer what a capture forbids */
cudaError_t dls_vgpu_capture_refuse(struct CUstream_st *s)
{
    return s->capture ? invalidate(find_capture(s->capture),
                                   cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

cudaError_t dls_vgpu_captured(const dls_vgpu_mark *mark)
{
    if (mark == NULL || mark->capture == 0)
        return cudaSuccess;
    return invalidate(find_capture(mark->capture), cudaErrorCapturedEvent);
}

/* device < 0: an unsafe call; else a synchronisation with that device. */
cudaError_t dls_vgpu_capture_unsafe(int device)
{
    cudaError_t error = cudaSuccess;
    for (capture *c = captures; c; c = c->next)
        if (device >= 0 ? c->origin->device == device
            : c->mode == cudaStreamCaptureModeGlobal ||
              (c->mode == cudaStreamCaptureModeThreadLocal &&
               pthread_equal(c->thread, pthread_self())))
            error = invalidate(c, cudaErrorStreamCaptureUnsupported);
    return error;
}

cudaError_t dls_vgpu_capture_implicit(int device)
{
    cudaError_t error = cudaSuccess;
    for (struct CUstream_st *s = dls_vgpu.streams; s; s = s->next)
        if (s->capture && s->device == device && !(s->flags & cudaStreamNonBlocking))
            error = invalidate(find_capture(s->capture), cudaErrorStreamCaptureImplicit);
    return error;
}

/* join a stream to a capture */
cudaError_t dls_vgpu_capture_join(struct CUstream_st *s, const dls_vgpu_mark *mark)
{
    capture *mine = find_capture(s->capture), *its = find_capture(mark->capture);
    if (mark->capture == 0)
        return s->capture ? invalidate(mine, cudaErrorStreamCaptureIsolation)
                          : cudaSuccess;
    if (its == NULL || its->invalid)
        return invalidate(mine, its ? cudaErrorStreamCaptureInvalidated
                                    : cudaErrorCapturedEvent);
    if (s->capture && mine != its) {
        invalidate(mine, cudaErrorStreamCaptureMerge);
        return invalidate(its, cudaErrorStreamCaptureMerge);
    }
    if (s->capture == 0) {
        if (s->index == 0 || its->graph->lanes == LANES)
            return invalidate(its, cudaErrorStreamCaptureUnsupported);
        s->capture = its->id;
        s->lane = its->graph->lanes++;
        its->graph->lane[s->lane] = (struct lane){.last = -1};
    }
    return cudaSuccess;
}

/* begin and end a capture */
static cudaError_t begin(struct CUstream_st *s, enum cudaStreamCaptureMode mode)
{
    static int last_id;
    capture *c = calloc(1, sizeof *c);
    struct CUgraph_st *g = calloc(1, sizeof *g);
    if (c == NULL || g == NULL) {
        free(c);
        free(g);
        return cudaErrorMemoryAllocation;
    }
    *g = (struct CUgraph_st){.refs = 1, .lanes = 1, .lane[0].last = -1};
    *c = (capture){captures, ++last_id, 0, mode, s, pthread_self(), g};
    captures = c;
    s->capture = c->id;
    s->lane = 0;
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    cudaError_t error = dls_vgpu_enter();
    struct CUstream_st *s = error ? NULL : dls_vgpu_stream(stream);
    if (error == cudaSuccess && s == NULL)
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess && (unsigned)mode > cudaStreamCaptureModeRelaxed)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && s->index == 0)
        error = cudaErrorStreamCaptureUnsupported;
    if (error == cudaSuccess && s->capture)
        error = cudaErrorIllegalState;
    if (error == cudaSuccess)
        error = begin(s, mode);
    return dls_vgpu_leave(error);
}

static cudaError_t check_joined(const struct CUgraph_st *g)
{
    char *reached = calloc((size_t)g->count + 1, 1);
    cudaError_t error = reached ? cudaSuccess : cudaErrorMemoryAllocation;
    if (reached && g->lane[0].last >= 0)
        reached[g->lane[0].last] = 1;
    for (int i = g->count - 1; i >= 0 && !error; i--) {
        const entry *e = &g->entries[i];
        if (reached[i] && e->previous >= 0)
            reached[e->previous] = 1;
        if (reached[i] && e->target >= 0)
            reached[e->target] = 1;
        if (!reached[i] && e->type == DLS_VGPU_WORK)
            error = cudaErrorStreamCaptureUnjoined;
    }
    free(reached);
    return error;
}

static cudaError_t finish_capture(capture *c, cudaGraph_t *graph)
{
    cudaError_t error = c->invalid ? cudaErrorStreamCaptureInvalidated
                                   : check_joined(c->graph);
    capture **link = &captures;
    for (struct CUstream_st *s = dls_vgpu.streams; s; s = s->next)
        if (s->capture == c->id)
            s->capture = 0;
    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    *graph = error ? NULL : c->graph;
    if (error)
        dls_vgpu_graph_drop(c->graph);
    free(c);
    return error;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    cudaError_t error = dls_vgpu_enter();
    struct CUstream_st *s = error ? NULL : dls_vgpu_stream(stream);
    capture *c = s ? find_capture(s->capture) : NULL;
    if (error == cudaSuccess && s == NULL)
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess && graph == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && c == NULL)
        error = cudaErrorIllegalState;
    if (error == cudaSuccess && c->origin != s)
        error = invalidate(c, cudaErrorStreamCaptureUnmatched);
    if (error == cudaSuccess && c->mode != cudaStreamCaptureModeRelaxed &&
        !pthread_equal(c->thread, pthread_self()))
        error = cudaErrorStreamCaptureWrongThread;
    if (error == cudaSuccess)
        error = finish_capture(c, graph);
    return dls_vgpu_leave(error);
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream,
                                  enum cudaStreamCaptureStatus *status)
{
    cudaError_t error = dls_vgpu_enter();
    struct CUstream_st *s = error ? NULL : dls_vgpu_stream(stream);
    if (error == cudaSuccess && s == NULL)
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess && status == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && s->index == 0)
        error = dls_vgpu_capture_implicit(s->device);
    if (error == cudaSuccess) {
        capture *c = find_capture(s->capture);
        *status = c == NULL ? cudaStreamCaptureStatusNone
                  : c->invalid ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
    }
    return dls_vgpu_leave(error);
}

/* instantiate a graph */
static void exec_free(struct CUgraphExec_st *x)
{
    for (int i = 1; i < LANES; i++)
        if (x->branch[i])
            cudaStreamDestroy(x->branch[i]);
    dls_vgpu_drop(x->last);
    dls_vgpu_graph_drop(x->graph);
    free(x);
}

static cudaError_t instantiate(cudaGraphExec_t *exec, struct CUgraph_st *g)
{
    struct CUgraphExec_st *x = calloc(1, sizeof *x);
    cudaError_t error = x ? cudaSuccess : cudaErrorMemoryAllocation;
    for (int i = 1; i < g->lanes && !error; i++)
        error = cudaStreamCreateWithFlags(&x->branch[i], cudaStreamNonBlocking);
    for (int i = 1; i < g->lanes && !error; i++)
        error = dls_gpu_name_stream(x->branch[i], "branch of a graph");
    if (x && !error) {
        x->graph = g;
        g->refs++;
        *exec = x;
    } else if (x) {
        exec_free(x);
    }
    return error;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (exec == NULL || graph == NULL || flags != 0))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = instantiate(exec, graph);
    return dls_vgpu_leave(error);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && graph == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        dls_vgpu_graph_drop(graph);
    return dls_vgpu_leave(error);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && exec == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess) {
        error = dls_vgpu_finish(exec->last, 0);
        exec_free(exec);
    }
    return dls_vgpu_leave(error);
}

/* replay a graph */
static cudaError_t replay(struct CUgraphExec_st *x, int i, struct CUstream_st *s,
                          dls_vgpu_mark **marks)
{
    const entry *e = &x->graph->entries[i];
    dls_vgpu_operation *o = dls_vgpu_operation_new(e->type);
    if (o == NULL)
        return cudaErrorMemoryAllocation;
    o->op = e->op;
    o->op.destroy = NULL;
    o->arg = e->arg;
    o->duration = e->duration;
    o->gap = e->after_work && e->type == DLS_VGPU_WORK
                 ? dls_vgpu.cluster.device.graph_gap : 0;
    if (e->type == DLS_VGPU_WAIT)
        o->awaited = dls_vgpu_hold(marks[e->target]);
    marks[i] = dls_vgpu_hold(o->mark);
    return dls_vgpu_submit(e->lane ? x->branch[e->lane] : s, o);
}

static cudaError_t await_last_launch(struct CUgraphExec_st *x, struct CUstream_st *s)
{
    if (x->last == NULL || x->last == s->last)
        return cudaSuccess;
    dls_vgpu_operation *o = dls_vgpu_operation_new(DLS_VGPU_WAIT);
    if (o == NULL)
        return cudaErrorMemoryAllocation;
    o->op.name = "wait";
    o->awaited = dls_vgpu_hold(x->last);
    return dls_vgpu_submit(s, o);
}

static cudaError_t launch_graph(struct CUgraphExec_st *x, struct CUstream_st *s)
{
    int count = x->graph->count;
    dls_vgpu_mark **marks = calloc((size_t)count + 1, sizeof *marks);
    cudaError_t error = marks ? dls_vgpu_order(s) : cudaErrorMemoryAllocation;
    if (error == cudaSuccess)
        error = await_last_launch(x, s);
    for (int i = 0; i < count && error == cudaSuccess; i++)
        error = replay(x, i, s, marks);
    for (int i = 0; i < count && marks; i++)
        dls_vgpu_drop(marks[i]);
    free(marks);
    dls_vgpu_drop(x->last);
    x->last = dls_vgpu_hold(s->last);
    dls_vgpu.host_time += dls_vgpu.cluster.device.launch;
    return error;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    cudaError_t error = dls_vgpu_enter();
    struct CUstream_st *s = error ? NULL : dls_vgpu_stream(stream);
    if (error == cudaSuccess && exec == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && s == NULL)
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess)
        error = dls_vgpu_capture_refuse(s);
    if (error == cudaSuccess)
        error = launch_graph(exec, s);
    return dls_vgpu_leave(error);
}

/* give streams priorities */
enum { GREATEST_PRIORITY = -5 };

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && least)
        *least = 0;
    if (error == cudaSuccess && greatest)
        *greatest = GREATEST_PRIORITY;
    return dls_vgpu_leave(error);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned int flags,
                                         int priority)
{
    cudaError_t error = cudaStreamCreateWithFlags(stream, flags);
    if (error == cudaSuccess)
        (*stream)->priority = priority > 0 ? 0
            : priority < GREATEST_PRIORITY ? GREATEST_PRIORITY : priority;
    return error;
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority)
{
    cudaError_t error = dls_vgpu_enter();
    struct CUstream_st *s = error ? NULL : dls_vgpu_stream(stream);
    if (error == cudaSuccess && s == NULL)
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess && priority == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        *priority = s->priority;
    return dls_vgpu_leave(error);
}
