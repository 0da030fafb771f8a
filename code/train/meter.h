/* code/train/meter.h: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/* What the log wants to know, kept on the device until a line is due. */
#ifndef DLS_TRAIN_METER_H
#define DLS_TRAIN_METER_H
#include "comm/comm.h"
#include "tensor/tensor.h"

/* define the meter */
/* Losses, norms and times of the last few steps, on the device until asked for. */
typedef struct dls_meter {
    dls_ctx ctx;                /* of the losses' type, the accumulator's */
    int window, n;              /* room, steps so far */
    void *losses;               /* (window + 2) device: sums; evaluation; scratch */
    double *norms;              /* (window) device */
    cudaEvent_t *begin, *end;   /* [window] */
    void *host;                 /* (window + 1) sums, then (window) norms */
} dls_meter;

typedef struct dls_step_record {
    double loss_sum;            /* over all tokens of all ranks */
    double gradient_norm;       /* before clipping */
    double seconds;             /* virtual, of this rank */
} dls_step_record;

/* Room for `window` steps. After an error, destroy as well. */
dls_status dls_meter_create(dls_meter *m, dls_ctx *ctx, int window);
void dls_meter_destroy(dls_meter *m);
/* Scratch memory of its sums over the ranks, on the context's stream. */
dls_status dls_meter_scratch(dls_comm *comm, int window, dls_dtype dtype, size_t *bytes);
size_t dls_meter_predict_memory(int window, dls_dtype dtype);

/* A step: begin, add the losses (N, device) of each pass, end with its norm. */
dls_status dls_meter_begin(dls_meter *m);
dls_status dls_meter_add(dls_meter *m, const void *losses, size_t N);
dls_status dls_meter_end(dls_meter *m, const double *norm);

/* Another norm for the last step that ended, if it was not read yet. */
dls_status dls_meter_correct(dls_meter *m, const double *norm);

/* Waits; out[i] is the i-th step since the last reading. Collective. */
dls_status dls_meter_read(dls_meter *m, dls_comm *comm, dls_step_record *out);

/* An evaluation: begin, add each pass, read the sum over all ranks. Collective. */
dls_status dls_meter_begin_evaluation(dls_meter *m);
dls_status dls_meter_add_evaluation(dls_meter *m, const void *losses, size_t N);
dls_status dls_meter_read_evaluation(dls_meter *m, dls_comm *comm, double *sum);
#endif
