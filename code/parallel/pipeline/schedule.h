/* code/parallel/pipeline/schedule.h: from chapters/05-pipeline-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Pipeline schedules as data: for each rank a list of actions, in the order of its work.
 *
 *   rank 0:  0F0 0F1       0B0 0B1      stage 0: forward of micro-batches 0 and 1,
 *   rank 1:      1F0 1F1   1B0 1B1      then their backward passes
 *
 * A *stage* is a part of the model, 0 ... ranks * chunks - 1 from input to loss; a rank
 * has `chunks` of them (its placement says which). F forward, I gradient of the input,
 * W gradient of the weights, B the whole backward, I and W in one.
 *
 * These files use no file, thread or floating point: they also run inside a web page.
 */
#ifndef DLS_PARALLEL_PIPELINE_SCHEDULE_H
#define DLS_PARALLEL_PIPELINE_SCHEDULE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define orders */
/* define an action */
typedef enum dls_action_kind {
    DLS_DO_F, DLS_DO_I, DLS_DO_W, DLS_DO_B,                       // what a stage computes
    DLS_DO_SEND_F, DLS_DO_RECV_F, DLS_DO_SEND_B, DLS_DO_RECV_B,   // put in by lowering
    DLS_DO_UNSHARD, DLS_DO_RESHARD, DLS_DO_REDUCE, DLS_DO_STEP,   // of a stage as a whole
    DLS_DO_KINDS
} dls_action_kind;

/* lay out an action */
typedef struct dls_action {
    uint8_t kind;        // a dls_action_kind
    uint8_t paired;      // 1: runs together with the next one of its list
    int16_t stage;       // 0 ... stages - 1
    int32_t microbatch;  // 0 ...; -1 for a stage as a whole
} dls_action;

/* write and read an action */
enum { DLS_ACTION_TEXT = 32 };

/* 1 for F, I, W and B. */
int dls_action_computes(const dls_action *a);

/* "2F0", "3RECV_B1", "0UNSHARD"; the length. Of a pair, this half only. */
int dls_action_text(const dls_action *a, char out[DLS_ACTION_TEXT]);

/* The inverse; reads text[0 .. n). 0 when it is no action. Knows nothing of pairs. */
int dls_action_parse(const char *text, size_t n, dls_action *out);

/* define a list of actions */
typedef struct dls_actions {
    dls_action *list;
    size_t n, room;
} dls_actions;

/* Appends one. `stage` and `microbatch` must fit their fields. */
dls_status dls_actions_add(dls_actions *a, dls_action_kind kind, int stage,
                           int microbatch);

/* Marks the last one as running together with the one that is added next. */
void dls_actions_pair(dls_actions *a);

void dls_actions_free(dls_actions *a);

/* define schedules */
/* define the costs */
/* In ticks, whole numbers: whoever reads 1/3 makes three ticks of a unit. */
typedef struct dls_pipeline_costs {
    int64_t F, I, W;            // of one stage and micro-batch
    int64_t hop;                // from one rank to another, while both may compute
    int64_t wire;               // of it, until the next message may go the same way
    int64_t overlapped;         // a pair of F and B, together; 0: F + I + W
    const int64_t *of_pair;     // [stages][stages]: of F of one and B of the other; NULL
    const int64_t *of_stage;    // [stages][3]: F, I, W of each; NULL: all the same
    const int64_t *of_B;        // [stages]: B of each; NULL: I + W
    int sends_occupy;           // 1: the hop also takes the sender's time
} dls_pipeline_costs;

/* define the memory */
/* What a stage's forward keeps until its backward, in whole units of any size. */
typedef struct dls_pipeline_memory {
    int64_t hold;  // from F on
    int64_t keep;  // of it, from I until W: 0 ... hold
} dls_pipeline_memory;

/* define what a schedule is made from */
typedef enum dls_placement {
    DLS_PLACE_LOOP,  // stage s on rank s % ranks
    DLS_PLACE_V,     // there and back: chunk 0 from rank 0 down, chunk 1 from the last up
    DLS_PLACE_BOTH   // Chimera: s on rank s for even micro-batches, on its mirror for odd
} dls_placement;

/* define the options */
typedef struct dls_schedule_options {
    const char *name;
    int ranks, microbatches;
    int chunks;                  // per rank; 0: the schedule's own number
    int group;                   // interleaved, 2BW: micro-batches of a group; 0: ranks
    dls_pipeline_costs cost;     // for schedules that look at them
    dls_pipeline_memory memory;
    int64_t limit;               // of a rank's memory; 0: the schedule's own
} dls_schedule_options;

/* `name` on so many ranks with F = I = W = 1, no hop, memory 1 that is kept until W. */
dls_schedule_options dls_schedule_defaults(const char *name, int ranks,
                                           int microbatches);

/* define a schedule */
typedef struct dls_schedule {
    dls_schedule_options options;  // chunks and group filled in; name is a constant
    dls_placement placement;
    int stages;                    // ranks * chunks; ranks for DLS_PLACE_BOTH
    int step_every;                // micro-batches per optimizer step; 0: all of them
    int backward;                  // 0: made for inference, without any backward
    dls_actions *order;            // [ranks]
} dls_schedule;

/* declare making a schedule */
/* Looks the name up, checks the options, generates. Not checked for validity: see
 * check.h. Errors: DLS_ERR_INPUT for what can not be, with the reason. */
dls_status dls_schedule_make(const dls_schedule_options *o, dls_schedule *out);
void dls_schedule_free(dls_schedule *s);

/* An empty one with lists for o->ranks; chunks must be given. */
dls_status dls_schedule_empty(const dls_schedule_options *o, dls_placement placement,
                              dls_schedule *out);

/* 1 if somewhere a forward and a backward pass run together. */
int dls_schedule_pairs(const dls_schedule *s);

/* Where a stage computes a micro-batch. */
int dls_schedule_rank(const dls_schedule *s, int stage, int microbatch);

/* declare the placement */
/* The same before there is a schedule, and its inverse: the stage of a rank's chunk. */
int dls_placement_rank(dls_placement placement, int ranks, int stage, int microbatch);
int dls_placement_stage(dls_placement placement, int ranks, int rank, int chunk,
                        int microbatch);

/* define the table of schedules */
/* One rank's list: a pure function of options and rank. Errors: DLS_ERR_INPUT with the
 * reason why these options can not be. `o` has chunks and group filled in. */
typedef dls_status dls_schedule_generator(const dls_schedule_options *o, int rank,
                                          dls_actions *out);

/* All ranks' lists at once, for schedules that need the whole picture; out[ranks]. */
typedef dls_status dls_schedule_planner(const dls_schedule_options *o, dls_actions *out);

/* define an entry */
typedef struct dls_schedule_entry {
    const char *name;
    const char *summary;               // half a line for a list
    dls_schedule_generator *generate;  // either this
    dls_schedule_planner *plan;        // or this
    dls_placement placement;
    int chunks;                        // the only number it has; 0: any from 1 on
    int step_every;                    // as in a schedule; -1: o->group
} dls_schedule_entry;

/* declare the table of schedules */
/* The i-th of the table, or NULL behind the last; and the one of a name, or NULL. */
const dls_schedule_entry *dls_schedule_at(int i);
const dls_schedule_entry *dls_schedule_find(const char *name);

#ifdef __cplusplus
}
#endif
#endif
