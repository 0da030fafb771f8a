/* tests/parallel/tensor_rig.h: from chapters/06-tensor-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* A few layers on a rank of a tensor axis, in f32 with small whole numbers. */
#ifndef DLS_TESTS_PARALLEL_TENSOR_RIG_H
#define DLS_TESTS_PARALLEL_TENSOR_RIG_H

#include "../comm/world.h"

#include "layers/tensor_ends.h"

/* hold cut layers */
enum { RIG_ROWS = 8, RIG_COLUMNS = 16 };

typedef struct tensor_rig {
    dls_ctx ctx;
    dls_params params;
    dls_build build;
    dls_axes axes;
    dls_plan plan;
    dls_pass pass;
    dls_layer *layer;
    void *activations;
    int pending[16];
    float *x, *y, *dx, *dy;     // (rows, columns of the layer), readable by the host
} tensor_rig;

/* A builder for comm's ranks (NULL: one device); make the layers with rig->build. */
dls_status rig_begin(tensor_rig *rig, dls_comm *comm);

/* Plans `rows` rows, and gives each parameter `value(parameter, index in the whole)`. */
dls_status rig_prepare(tensor_rig *rig, dls_layer *layer, int rows,
                       float (*value)(const dls_param *p, size_t i));

/* y from x; then dx and the gradients from dy. Waits. */
dls_status rig_run(tensor_rig *rig);
void rig_end(tensor_rig *rig);

#endif
