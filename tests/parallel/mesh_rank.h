/* tests/parallel/mesh_rank.h: from chapters/07-proof-layouts.md. Edit the chapter, or edit here and run "make untangle". */
/* What a rank has in a case: its place, its groups, its tokens; two ways to step. */
#ifndef DLS_TESTS_PARALLEL_MESH_RANK_H
#define DLS_TESTS_PARALLEL_MESH_RANK_H

#include "data/sampler.h"
#include "kernels/dropout.h"
#include "mesh_layout.h"
#include "parallel/data/ddp.h"
#include "parallel/data/zero.h"
#include "parallel/pipeline/interpreter.h"
#include "train/balance.h"
#include "train/optimizer.h"
#include "train/place.h"

/* define a rank of a case */
typedef struct mesh_rank {
    const mesh_proof *p;
    dls_comm *world;
    dls_train_config settings;
    dls_train_place place;
    dls_train_groups groups;
    dls_ctx ctx;
    dls_params whole;               // names and places in the whole model
    int row, rows, most;            // first, how many; of the replica with most
    int *where;                     // (T): this rank's tokens of a sequence
    int *ids, *positions;           // tokens, targets; (micro, T): device
    char *losses;                   // (rows, T) device, accumulator type
    int step;                       // of now
    dls_transformer *model;         // of one stage
    dls_optimizer *optimizer;
    dls_ddp *ddp;
    dls_zero *zero;
    dls_schedule schedule;          // of several
    dls_pipeline *pipeline;
} mesh_rank;

/* declare a rank of a case */
/* One stage: a model with DDP or ZeRO. */
dls_status mesh_single_open(mesh_rank *r);
dls_status mesh_single_step(mesh_rank *r);
dls_status mesh_single_visit(mesh_rank *r);
void mesh_single_close(mesh_rank *r);

/* What zero has of the gradients and values of a set, slice by slice, of either. */
dls_status mesh_show_slices(mesh_rank *r, dls_zero *zero, const dls_params *set);

/* Several: a pipeline. */
dls_status mesh_stages_open(mesh_rank *r);
dls_status mesh_stages_step(mesh_rank *r);
dls_status mesh_stages_visit(mesh_rank *r);
void mesh_stages_close(mesh_rank *r);

/* Makes models of a proof, with its fault in them. */
dls_status mesh_rank_make(dls_transformer **out, dls_ctx *ctx,
                          const dls_transformer_config *config, int max_B, int max_T);
extern const mesh_rank *mesh_rank_now;

/* The values that a part of the model begins with; free them. */
void *mesh_rank_fill(const mesh_rank *r, const dls_params *part);
double mesh_rank_scale(const mesh_rank *r);

#endif
