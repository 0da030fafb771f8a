/* code/vgpu/gpu_virtual_plan.c: from chapters/A-virtual-gpu-sharing.md. Edit the chapter, or edit here and run "make untangle". */
/* Planning: which operations share a device, and when each gets its place.
 *
 *   roof      ████▒▒▒▒      kernels, copies within the device: by share
 *   upload      ██  ██      one copy at a time
 *   download       ███
 *   peer
 *
 * A plan is made when operations are enqueued, from known times only. It never depends on
 * the order of execution. */
#include "vgpu/vgpu_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* keep what is planned */
typedef enum resource { ROOF, UPLOAD, DOWNLOAD, PEER, RESOURCES, NONE } resource;

typedef struct stretch { double start, finish, share; } stretch;

typedef struct plan {
    stretch *taken; // sorted by finish
    int count, capacity;
} plan;

static plan plans[DLS_VGPU_DEVICES][RESOURCES];

static int make_room(plan *p)
{
    int past = 0;
    if (p->count < p->capacity)
        return 1;
    while (past < p->count && p->taken[past].finish <= dls_vgpu.host_time)
        past++;
    p->count -= past;
    memmove(p->taken, p->taken + past, (size_t)p->count * sizeof *p->taken);
    if (2 * p->count < p->capacity)
        return 1;
    int wanted = p->capacity ? 2 * p->capacity : 32;
    stretch *grown = realloc(p->taken, (size_t)wanted * sizeof *grown);
    if (grown == NULL)
        return p->count < p->capacity;
    p->taken = grown;
    p->capacity = wanted;
    return 1;
}

static void take(plan *p, stretch s)
{
    int i = p->count;
    if (!make_room(p))
        return; // without memory the operation is planned as if alone
    for (i = p->count++; i > 0 && p->taken[i - 1].finish > s.finish; i--)
        p->taken[i] = p->taken[i - 1];
    p->taken[i] = s;
}

/* find room */
/* The sum of the shares at time t. */
static double load_at(const plan *p, double t)
{
    double sum = 0;
    for (int i = p->count - 1; i >= 0 && p->taken[i].finish > t; i--)
        if (p->taken[i].start <= t)
            sum += p->taken[i].share;
    return sum;
}

static int fits(const plan *p, stretch s)
{
    const double full = 1 + 1e-9; // shares such as 0.1 need not add up to 1 exactly
    if (load_at(p, s.start) + s.share > full)
        return 0;
    for (int i = p->count - 1; i >= 0 && p->taken[i].finish > s.start; i--)
        if (p->taken[i].start > s.start && p->taken[i].start < s.finish &&
            load_at(p, p->taken[i].start) + s.share > full)
            return 0;
    return 1;
}

/* The earliest start from `ready` on; takes the place. */
static double place(plan *p, double ready, double length, double share)
{
    stretch s = {ready, ready + length, share};
    int i = p->count;
    while (i > 0 && p->taken[i - 1].finish > ready)
        i--;
    for (; !fits(p, s); i++) { // p->taken[i] is the next to end
        s.start = fmax(ready, p->taken[i].finish);
        s.finish = s.start + length;
    }
    take(p, s);
    return s.start;
}

/* choose the resource */
static resource resource_of(const dls_gpu_op *op)
{
    int engines = dls_vgpu.cluster.device.copy_engines;
    if (op->kind == DLS_GPU_COMPUTE)
        return ROOF;
    if (op->kind != DLS_GPU_COPY)
        return NONE;
    switch (op->work) {
    case DLS_WORK_COPY: return ROOF;
    case DLS_WORK_UPLOAD: return UPLOAD;
    case DLS_WORK_DOWNLOAD: return engines < 2 ? UPLOAD : DOWNLOAD;
    case DLS_WORK_PEER: return engines < 2 ? UPLOAD : engines < 3 ? DOWNLOAD : PEER;
    default: return NONE; // from host to host
    }
}

/* The share of the resource that is taken for `length` seconds. */
static double share_of(const dls_vgpu_operation *o, resource r, double length)
{
    const dls_gpu_op *op = &o->op;
    double bytes = (o->duration >= 0 ? 2 : 1) * op->bytes; // a copy reads and writes
    if (r != ROOF)
        return 1;
    return fmin(1, dls_cluster_roofline(&dls_vgpu.cluster.device, op->work, op->flops,
                                        bytes) / length);
}

/* plan an operation */
void dls_vgpu_plan(struct CUstream_st *s, dls_vgpu_operation *o)
{
    double before = s->last ? s->last->known : 0;
    double awaited = o->awaited ? o->awaited->known : 0;
    int work = o->type == DLS_VGPU_WORK;
    o->not_before = 0;
    o->mark->known = NAN;
    if (isnan(before) || isnan(awaited) || (work && !o->op.planned))
        return;
    double start = dls_vgpu_start(o, before, awaited, 0), length = dls_vgpu_duration(o);
    resource r = work && length > 0 ? resource_of(&o->op) : NONE;
    if (r != NONE)
        start = o->not_before = place(&plans[s->device][r], start, length,
                                      share_of(o, r, length));
    o->mark->known = start + length;
}
