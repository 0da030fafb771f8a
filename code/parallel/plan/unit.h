/* code/parallel/plan/unit.h: from chapters/07-planner-record.md. Edit the chapter, or edit here and run "make untangle". */
/* What a unit of a transformer costs on one rank of a layout: its passes, recorded. */
#ifndef DLS_PARALLEL_PLAN_UNIT_H
#define DLS_PARALLEL_PLAN_UNIT_H

#include "parallel/pipeline/stage.h"
#include "parallel/plan/part.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the planning device */
/* The device that everything is recorded on: nothing runs there, and all buffers are one
 * stretch of addresses. */
typedef struct dls_planner {
    dls_ctx ctx;
    char *memory;
    size_t bytes;
    double latency;             // s
    struct dls_planned *known;  // [n]: units that were recorded before,
    uint64_t *key;              // [n]  and a hash of what was asked
    int n, room;
    struct dls_talk *talks;     // [ntalks]: collectives that were asked for before
    int ntalks;
} dls_planner;

/* define a unit */
/* Of units that a rank has side by side: the passes of a micro-batch; per step, clearing
 * the gradients, what the tensor axis still owes them, their squares, the optimizer. */
typedef struct dls_planned_unit {
    dls_part F, B, I, W;
    dls_part clear, finish, square, apply;
    dls_stage_bytes bytes;
    size_t elements;            // of this rank's parameters
    size_t scratch;             // bytes that the axes' communicators take
} dls_planned_unit;

/* A micro-batch of B sequences, of which this rank has T tokens each. split: I and W are
 * planned apart, as schedules do that defer W. */
typedef struct dls_planned_pass {
    const dls_transformer_config *model;    // the whole, with its sharding
    dls_dtype dtype;
    int B, T, split;
} dls_planned_pass;

/* declare the units */
/* Takes the device, on the cluster that dls_gpu_init was told. */
dls_status dls_planner_open(dls_planner *r, dls_dtype dtype);
void dls_planner_close(dls_planner *r);

/* Units from ... to - 1 (0 embedding, 1 ... L blocks, L + 1 head). With split, B is the
 * sum of I and W. Recorded once for each question. DLS_ERR_MEMORY: they do not fit on the
 * device. */
dls_status dls_planner_unit(dls_planner *r, const dls_planned_pass *pass, int from,
                                int to, dls_planned_unit *out);

/* Whatever the caller enqueues between these two on r->ctx.stream. */
dls_status dls_planner_begin(dls_planner *r);
dls_status dls_planner_end(dls_planner *r, dls_part *out);

/* dls_imagined_seconds, asked once. `operation`: a literal. *most: at least the scratch
 * memory of the call afterwards; may be NULL. */
dls_status dls_planner_talk(dls_planner *r, const int *member, int n,
                            const char *operation, size_t count, int dtype,
                            double *seconds, size_t *most);

/* Points the values and gradients of a set, which has no memory, into the recorder's. */
dls_status dls_planner_place(dls_planner *r, dls_params *set);

#ifdef __cplusplus
}
#endif
#endif
