/* code/vgpu/gpu_virtual_executor.c: from chapters/A-virtual-gpu-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* Executing queued operations in a seeded order, and keeping the virtual clock.
 *
 * Every stream offers at most its first operation. Among those that can run, a seeded die
 * chooses; times follow from dependencies alone, so the choice never changes a time.
 * When none can run: some wait for a message (sleep in the idle callback, up to the
 * watchdog), or nothing ever will change (a deadlock: report it now).
 * Tried and dropped: a worker thread per stream. Bugs then depended on the kernel's
 * scheduler, and no seed brought them back. */
#include "vgpu/observer.h"

#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "vgpu/host_times.h"
#include "vgpu/space.h"
#include "vgpu/trace.h"

/* throw the die */
static unsigned throw_die(unsigned sides)
{
    uint64_t x = dls_vgpu.random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    dls_vgpu.random = x;
    return (unsigned)((x >> 33) % sides);
}

/* ask whether a stream can run */
/* 1: the first operation can run, *earliest its input's time; 0: not yet; <0: failed. */
static int can_run(const struct CUstream_st *s, double *earliest)
{
    const dls_vgpu_operation *operation = s->head;
    *earliest = 0;
    if (operation->type == DLS_VGPU_WAIT)
        return operation->awaited->done;
    if (operation->op.ready == NULL)
        return 1;
    dls_trace_place(s->device, s->index);
    dls_vgpu.executing++;
    int ready = operation->op.ready(operation->arg, earliest);
    dls_vgpu.executing--;
    return ready;
}

/* apply the laws of the clock */
double dls_vgpu_start(const dls_vgpu_operation *operation, double finish, double awaited,
                      double earliest)
{
    if (operation->type == DLS_VGPU_WAIT)
        return fmax(finish, awaited);
    double launched = operation->enqueued + dls_vgpu.cluster.device.launch_latency;
    return fmax(fmax(fmax(finish + operation->gap, launched), earliest),
                operation->not_before);
}

double dls_vgpu_duration(const dls_vgpu_operation *operation)
{
    const dls_gpu_op *op = &operation->op;
    if (operation->type != DLS_VGPU_WORK)
        return 0;
    if (operation->duration >= 0)
        return operation->duration;
    if (op->kind == DLS_GPU_HOST && op->flops == 0 && op->bytes == 0)
        return 0;
    return dls_cluster_duration(&dls_vgpu.cluster.device, op->work, op->flops,
                                op->bytes);
}

/* run the first operation */
static void record_span(const struct CUstream_st *s, const dls_vgpu_operation *operation,
                        double start, double finish)
{
    if (operation->type != DLS_VGPU_WORK)
        return;
    if (!dls_trace_enabled()) {
        dls_trace_forget(s->device, s->index);
        return;
    }
    dls_trace_span span = {
        .device = s->device, .stream = s->index, .kind = operation->op.kind,
        .name = operation->op.name, .start = start, .finish = finish,
        .flops = operation->op.flops, .bytes = operation->op.bytes,
        .range = operation->range,
    };
    dls_trace_add(&span, s->name);
}

static int fail_operation(const struct CUstream_st *s, const dls_gpu_op *op, int code)
{
    dls_status status = -code > DLS_OK && -code <= DLS_ERR_STATE ? (dls_status)-code
                                                                 : DLS_ERR_DEVICE;
    const char *why = dls_status_message();
    dls_vgpu_break(cudaErrorLaunchFailure, status, "operation '%s' of %s (%s:%d): %s",
                   op->name, s->name, op->file ? op->file : "?", op->line,
                   *why ? why : "failed without a message");
    return -1;
}

static void take_threads(void)
{
    if (omp_get_max_threads() != dls_vgpu.threads)
        omp_set_num_threads(dls_vgpu.threads);
}

static double real_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int is_only_timed(const dls_gpu_op *op)
{
    int inside = op->work != DLS_WORK_UPLOAD && op->work != DLS_WORK_DOWNLOAD;
    return dls_vgpu.options.kernels == DLS_KERNELS_TIMED && op->planned &&
           (op->kind == DLS_GPU_COMPUTE || (op->kind == DLS_GPU_COPY && inside));
}

/* Removes and runs the first operation of the stream: 1, or -1 when it failed. */
static int run_head(struct CUstream_st *s, double earliest)
{
    dls_vgpu_operation *operation = s->head;
    double awaited = operation->awaited ? operation->awaited->time : 0;
    double start = dls_vgpu_start(operation, s->finish, awaited, earliest);
    double finish = start + dls_vgpu_duration(operation);
    int code = 0;
    s->head = operation->next;
    dls_vgpu.pending--;
    if (dls_vgpu_observer)
        dls_vgpu_observer->begun(s, operation);
    if (operation->op.run && !is_only_timed(&operation->op)) {
        /* run the function of an operation */
        double began = dls_host_times_on ? real_time() : 0;
        dls_space_open();
        take_threads();
        dls_vgpu.executing++;
        code = operation->op.run(operation->arg, start, &finish);
        dls_vgpu.executing--;
        if (dls_host_times_on)
            dls_host_times_add(&operation->op, real_time() - began);
    }
    if (dls_vgpu_observer)
        dls_vgpu_observer->ended(s, operation);
    s->finish = fmax(start, finish);
    operation->mark->time = s->finish;
    operation->mark->on_device = s->device;
    operation->mark->in_stream = s->index;
    operation->mark->done = 1;
    if (operation->type == DLS_VGPU_WAIT)
        dls_trace_wait(operation->awaited->on_device, operation->awaited->in_stream,
                       awaited, s->device, s->index, s->finish);
    double planned = operation->mark->known;
    if (code >= 0 && planned != s->finish && !isnan(planned))
        code = -(int)DLS_FAIL(DLS_ERR_STATE, "planned for %.17g s, finished at %.17g",
                              planned, s->finish);
    if (code < 0)
        code = fail_operation(s, &operation->op, code);
    else
        record_span(s, operation, start, s->finish);
    dls_vgpu_operation_free(operation);
    return code < 0 ? -1 : 1;
}

/* choose and run */
int dls_vgpu_step(void)
{
    struct CUstream_st *chosen = NULL;
    double earliest = 0, candidate;
    unsigned count = 0;
    if (dls_vgpu.sticky != cudaSuccess)
        return -1;
    for (struct CUstream_st *s = dls_vgpu.streams; s; s = s->next) {
        int ready = s->head ? can_run(s, &candidate) : 0;
        if (ready < 0)
            return fail_operation(s, &s->head->op, ready);
        if (ready > 0 && chosen && s->priority != chosen->priority) {
            if (s->priority > chosen->priority)
                continue; // less urgent
            count = 0;
        }
        if (ready > 0 && throw_die(++count) == 0) {
            chosen = s;
            earliest = candidate;
        }
    }
    return chosen ? run_head(chosen, earliest) : 0;
}

/* report who waits for what */
static size_t add_waiting(char *text, size_t used, size_t size,
                          const struct CUstream_st *s)
{
    const dls_vgpu_operation *operation = s->head;
    char what[160] = "its input";
    if (used >= size)
        return used;
    if (operation->type == DLS_VGPU_WAIT)
        snprintf(what, sizeof what, "an event of another stream");
    else if (operation->op.describe)
        operation->op.describe(operation->arg, what, sizeof what);
    return used + (size_t)snprintf(text + used, size - used,
                                   "%s%s: '%s' (%s:%d) waits for %s", used ? "; " : "",
                                   s->name, operation->op.name,
                                   operation->op.file ? operation->op.file : "?",
                                   operation->op.line, what);
}

static cudaError_t report_stall(const char *reason, dls_status status)
{
    char text[DLS_VGPU_FAILURE - 64] = "";
    size_t used = 0;
    for (struct CUstream_st *s = dls_vgpu.streams; s; s = s->next)
        if (s->head)
            used = add_waiting(text, used, sizeof text, s);
    dls_vgpu_host_describe(text, sizeof text);
    return dls_vgpu_break(cudaErrorLaunchTimeout, status, "%s: %s", reason, text);
}

/* wait until a mark is done */

/* Nothing could run since `since` (real s): sleep, or report. */
static cudaError_t sleep_or_report(const dls_vgpu_mark *mark, double since)
{
    char reason[64];
    if (dls_vgpu.idle == NULL)
        return report_stall("deadlock", DLS_ERR_STATE);
    if (dls_vgpu.watchdog > 0 && real_time() - since > dls_vgpu.watchdog) {
        snprintf(reason, sizeof reason, "no progress for %g s", dls_vgpu.watchdog);
        return report_stall(reason, DLS_ERR_COMM);
    }
    dls_vgpu_idle(mark, 0);
    return cudaSuccess;
}

cudaError_t dls_vgpu_finish(dls_vgpu_mark *mark, int follow)
{
    double since = 0;
    dls_vgpu_hold(mark);
    while (mark && !mark->done && dls_vgpu.sticky == cudaSuccess) {
        if (dls_vgpu_step() != 0) {
            since = 0;
            continue;
        }
        since = since > 0 ? since : real_time();
        sleep_or_report(mark, since);
    }
    if (mark && follow)
        dls_vgpu.host_time = fmax(dls_vgpu.host_time, mark->time);
    if (mark && mark->done)
        mark->known = mark->time;
    if (mark && follow && mark->done && dls_vgpu_observer)
        dls_vgpu_observer->host_waited(mark);
    dls_vgpu_drop(mark);
    return dls_vgpu.sticky;
}

cudaError_t dls_vgpu_finish_device(int device, int follow)
{
    struct CUstream_st *s = dls_vgpu.streams;
    while (s && dls_vgpu.sticky == cudaSuccess) {
        int done = (device >= 0 && s->device != device) || !s->last || s->last->done;
        if (!done) // which may let the lock go, and another thread destroy this stream
            dls_vgpu_finish(s->last, 0);
        s = done ? s->next : dls_vgpu.streams;
    }
    for (s = dls_vgpu.streams; s; s = s->next)
        if (device < 0 || s->device == device)
            dls_vgpu_finish(s->last, follow);
    return dls_vgpu.sticky;
}

int dls_vgpu_settle(dls_vgpu_mark *mark)
{
    const double patience = 5; // real s
    double since = 0;
    int settled = 0;
    dls_vgpu_hold(mark);
    while (!settled && dls_vgpu.sticky == cudaSuccess) {
        settled = mark == NULL || mark->done;
        if (settled || dls_vgpu_step() != 0)
            continue;
        since = since > 0 ? since : real_time();
        if (dls_vgpu.idle == NULL || real_time() - since > patience)
            break;
        settled = dls_vgpu_idle(mark, 1);
    }
    dls_vgpu_drop(mark);
    return settled;
}

cudaError_t dls_vgpu_poll(dls_vgpu_mark *mark)
{
    const double cost = 1e-6; // s of the host's time per question
    dls_vgpu_hold(mark);
    int settled = dls_vgpu_settle(mark);
    int passed = mark == NULL || (mark->done && mark->time <= dls_vgpu.host_time);
    if (settled && !passed)
        dls_vgpu.host_time += cost;
    if (mark && passed)
        mark->known = mark->time;
    if (mark && passed && dls_vgpu_observer)
        dls_vgpu_observer->host_waited(mark);
    dls_vgpu_drop(mark);
    if (dls_vgpu.sticky != cudaSuccess)
        return dls_vgpu.sticky;
    return passed ? cudaSuccess : cudaErrorNotReady;
}
