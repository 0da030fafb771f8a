/* tests/parallel/expert_rig.h: from chapters/08-expert-proof-layer.md. Edit the chapter, or edit here and run "make untangle". */
/* One expert layer over a few ranks, and on one device. */
#ifndef DLS_TESTS_PARALLEL_EXPERT_RIG_H
#define DLS_TESTS_PARALLEL_EXPERT_RIG_H

#include "../comm/world.h"
#include "layers/expert_layer.h"
#include "layers/router.h"
#include "parallel/mesh.h"

/* define a case of a layer */
enum { ER_C = 7, ER_RANKS = 16, ER_ROWS = 160, ER_PARAMS = 64 };

typedef struct expert_case {
    dls_mesh mesh;              // tp and dp; ep and etp
    int sequence;               // 1: ranks of tp have slices of the rows
    dls_moe moe;
    int gated;                  // SwiGLU for GELU
    dls_dispatch_way dispatch;
    int T, B[ER_RANKS];         // tokens of a sequence; sequences of each replica
    int exact;                  // whole numbers in f32; else f64
    int split;                  // backward in two halves
} expert_case;

/* define a side of a layer */
typedef struct expert_side {
    const expert_case *c;
    dls_ctx ctx;
    dls_build build;
    dls_params params;
    dls_axes axes;
    dls_comm *world, *tensor, *expert, *expert_tensor;
    dls_layer *layer;
    dls_plan plan;
    dls_pass pass;
    int pending[ER_PARAMS];
    int first, rows;            // of all: those that x and dy have here
    void *activations;
    dls_balance balance;        // of one layer
    void *x, *y, *dx, *dy;      // (rows, C)
} expert_side;

/* declare a side of a layer */
/* world NULL: one device. Every rank calls it. */
dls_status expert_open(expert_side *s, const expert_case *c, dls_comm *world);

/* y, dx, the gradients and the loads of one pass. Waits. */
dls_status expert_run(expert_side *s);
void expert_close(expert_side *s);

/* Numbers of the context's type, or of its accumulator, as doubles on the host. */
dls_status expert_fetch(const expert_side *s, double *to, const void *from, size_t n);

#endif
