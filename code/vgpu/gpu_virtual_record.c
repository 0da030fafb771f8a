/* code/vgpu/gpu_virtual_record.c: from chapters/07-planner-record.md. Edit the chapter, or edit here and run "make untangle". */
/* A list of notes, one per operation; the operation itself is freed at once. */
#include "vgpu/record.h"

#include <stdlib.h>
#include <string.h>

#include "vgpu/vgpu_internal.h"

/* keep the notes */
static dls_gpu_note *notes;
static int count, room, lost;
static unsigned first;      // the number of the recording's first note, among all ever
static double began;        // s of the host's clock
int dls_vgpu_recording;

static int make_room(void)
{
    int wanted = room ? 2 * room : 256;
    dls_gpu_note *more = count < room ? notes
        : realloc(notes, (size_t)wanted * sizeof *more);
    if (!more)
        return 0;
    room = count < room ? room : wanted;
    notes = more;
    return 1;
}

/* note it and drop it */
static int awaited_note(const dls_vgpu_mark *m)
{
    return m && m->observed > first && m->observed - first <= (unsigned)count
        ? (int)(m->observed - first) - 1 : -1;
}

cudaError_t dls_vgpu_record_add(struct CUstream_st *s, dls_vgpu_operation *o)
{
    if (make_room()) {
        notes[count] = (dls_gpu_note){
            .name = o->op.name, .type = (dls_gpu_note_type)o->type, .kind = o->op.kind,
            .work = o->op.work, .stream = s->index, .awaited = awaited_note(o->awaited),
            .enqueued = dls_vgpu.host_time - began, .duration = dls_vgpu_duration(o),
            .flops = o->op.flops, .bytes = o->op.bytes};
        o->mark->observed = first + (unsigned)++count;
    } else {
        lost = 1;
    }
    o->mark->done = 1;      // for whoever waits for it after the recording
    dls_vgpu_operation_free(o);
    return dls_vgpu.sticky;
}

/* begin and end a recording */
dls_status dls_gpu_record(void)
{
    dls_vgpu_leave(dls_vgpu_enter());
    first += (unsigned)count;
    count = lost = 0;
    began = dls_vgpu.host_time;
    dls_vgpu_recording = 1;
    return dls_vgpu.sticky == cudaSuccess ? DLS_OK
        : dls_gpu_fail(dls_vgpu.sticky, "dls_gpu_record", __FILE__, __LINE__);
}

dls_status dls_gpu_recorded(const dls_gpu_note **out, int *n, double *host)
{
    dls_vgpu_recording = 0;
    *out = notes;
    *n = count;
    *host = dls_vgpu.host_time - began;
    return lost ? DLS_FAIL(DLS_ERR_MEMORY, "no memory for the notes of %d operations",
                           count) : DLS_OK;
}

cudaError_t dls_gpu_enqueue_for(cudaStream_t stream, const dls_gpu_op *op, void *arg,
                                double seconds)
{
    return dls_vgpu_launch(stream, op, arg, seconds);
}
