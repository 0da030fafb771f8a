/* tests/parallel/pipeline_layout.h: from chapters/05-pipeline-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* A pipeline, alone or as replicas, as a layout for tests. */
#ifndef DLS_TESTS_PARALLEL_PIPELINE_LAYOUT_H
#define DLS_TESTS_PARALLEL_PIPELINE_LAYOUT_H

#include "layouts.h"
#include "parallel/pipeline/interpreter.h"

typedef struct pipeline_setup {
    const char *schedule;
    int ranks, chunks, microbatches;    /* chunks 0: the schedule's own */
    const int64_t *units;   /* [stages] by hand; NULL: by count */
    int validate;           /* 1: without a wait for the norm */
    layout_proof proof;     /* tells which model */
    dls_comm *pipe, *data;  /* of the world, where several setups share it; else NULL */
    int zero;               /* ZeRO's stage: cut over the replicas */
    int gathered;           /* stages of a rank that are whole at once; 0: not said */
    dls_model_maker *make;  /* NULL: that of the proof's form */
    const char *order;      /* of a pair's turns */
    void (*change)(dls_schedule *s);    /* before it is lowered; or NULL */
} pipeline_setup;

/* The setup is kept by pointer. */
layout pipeline_layout(const pipeline_setup *setup);

/* prove a pipeline */
/* Proves one combination on replicas * ranks processes. */
#define expect_pipeline(replicas, ...)                                          \
    expect_pipeline_with(0, replicas, __VA_ARGS__)

#define expect_pipeline_with(zero_, replicas, ...)                              \
    expect_pipeline_cut(zero_, 0, replicas, __VA_ARGS__)

#define expect_pipeline_cut(zero_, gathered_, replicas, ...)                    \
    do {                                                                        \
        pipeline_setup setup_ = {__VA_ARGS__, NULL, NULL, zero_, gathered_,     \
                                 NULL, NULL, NULL};                             \
        const layout layout_ = pipeline_layout(&setup_);                        \
        setup_.proof.layout = &layout_;                                         \
        setup_.proof.pipeline = setup_.ranks;                                   \
        expect_ranks((replicas) * setup_.ranks, layout_prove, &setup_.proof);   \
    } while (0)

/* The lowered schedule of a setup, checked. Free with dls_schedule_free. */
dls_status pipeline_schedule(const pipeline_setup *setup, dls_schedule *out);

/* The ranks of a pipeline, and those with the same place in others. */
dls_status pipeline_groups(dls_comm *comm, int p, dls_comm **pipe, dls_comm **data);

/* first[stages + 1] of the setup's partition. */
dls_status pipeline_partition(const pipeline_setup *setup, int layers, int stages,
                              int *first);

#endif
