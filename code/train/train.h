/* code/train/train.h: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Training: a configuration, and the run it describes.
 */
#ifndef DLS_TRAIN_TRAIN_H
#define DLS_TRAIN_TRAIN_H
#include "base/config.h"
#include "comm/comm.h"
#include "model/transformer.h"
#include "parallel/data/ddp.h"
#include "parallel/data/zero.h"
#include "parallel/mesh.h"
#include "train/optimizer.h"
#ifdef __cplusplus
extern "C" {
#endif
/* define the training configuration */
enum { DLS_PIPELINE_UNITS = 256 };

/* The section `pipeline`: see chapters/05-pipeline-runtime-trainer.md. */
typedef struct dls_train_pipeline {
    const char *schedule;       /* NULL: no pipeline; its ranks: the mesh's pp */
    int microbatches, chunks;   /* 0: what the batch needs; the schedule's own */
    int post_validation;        /* 1: steps on trust, undone if it was misplaced */
    const char *pair_order;     /* turns of paired passes: parallel/pipeline/pairs.h */
    int by_cost, given;         /* partition; or units[given], of each stage */
    int64_t units[DLS_PIPELINE_UNITS];
} dls_train_pipeline;

/* One run. The strings belong to the dls_config it was loaded from. */
typedef struct dls_train_config {
    dls_transformer_config model;
    const char *corpus;
    double validation_fraction;
    int64_t steps;
    int global_batch;           /* sequences per step, over all ranks */
    int micro_batch;            /* sequences per pass, on one rank */
    dls_lr_schedule schedule;
    dls_adamw_options adamw;
    uint64_t seed;
    dls_dtype dtype;
    /* name the intervals of a run */
    int64_t log_every, evaluate_every, checkpoint_every;    /* steps; 0: never */
    int evaluate_windows;       /* sequences of an evaluation */
    int64_t trace_from, trace_to;   /* steps drawn as a timeline; 0: none */
    dls_ddp_options ddp;        /* sizes of buckets, hook, hard cases */
    enum { DLS_ROWS_AUTO, DLS_ROWS_NEVER, DLS_ROWS_ALWAYS } rows; /* of the embedding */
    int overlap;                /* 0: all-reduce after the backward pass */
    int sharded, hybrid;        /* 1: zero instead of ddp; in groups of a node */
    dls_zero_options zero;
    dls_mesh mesh;              /* dp 0: what the world leaves; see dls_mesh_fit */
    dls_sharding sharding;      /* without the numbers of a rank */
    dls_train_pipeline pipeline;
    const char *cluster;        /* NULL: the default */
    const char *output;         /* directory */
    int resume;                 /* 1: continue from the newest good checkpoint */
} dls_train_config;

/* declare the training calls */
/* Reads every setting and refuses unknown ones. The strings live as long as cfg. */
dls_status dls_train_config_load(dls_config *cfg, dls_train_config *c);

/* "key=value\n" for each setting that shapes the run; NULL: no memory. */
char *dls_train_settings(const dls_train_config *c, uint64_t corpus_hash);

/* How many of a step's sequences are a rank's. */
int dls_train_rows_of(const dls_train_config *c, int rank, int world);

/* The device bytes of a rank by purpose. */
dls_status dls_train_predict_memory(const dls_train_config *c, int rank, int world,
                                    size_t bytes[DLS_MEM_PURPOSES]);

/* Trains from the first step, or from the newest good checkpoint, to the last; writes
   the files of the output directory and prints progress. Every rank calls it. */
dls_status dls_train_run(const dls_train_config *config, dls_comm *comm);
#ifdef __cplusplus
}
#endif
#endif
