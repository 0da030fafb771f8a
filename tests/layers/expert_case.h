/* tests/layers/expert_case.h: from chapters/08-mixture-of-experts-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* An expert layer on one device, and the same computed naively: every token through every
 * expert. All in double. */
#ifndef TEST_LAYERS_EXPERT_CASE_H
#define TEST_LAYERS_EXPERT_CASE_H
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "layers/expert_layer.h"
#include "model/expert_block.h"

/* describe an expert case */
/* How the tokens are drawn towards experts. */
typedef enum expert_pull { PULL_NONE, PULL_TO_ONE, PULL_FROM_ONE } expert_pull;

typedef struct expert_case {
    int B, T, C;
    dls_mlp mlp;
    dls_moe moe;
    expert_pull pull;
} expert_case;

/* hold an expert layer */
typedef struct expert_rig {
    expert_case c;
    dls_ctx ctx;
    dls_params params;
    dls_build build;
    dls_layer *layer;
    dls_plan plan;
    dls_pass pass;
    int *pending;
    void *activations;
    double *x, *y, *dx, *dy;    /* device */
    double *input, *slope, *values;     /* x, dy and the parameters on the host */
} expert_rig;

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

/* What a pass leaves: on the host. */
typedef struct expert_result { double *y, *dx, *grads; } expert_result;

/* declare the naive experts */
void expert_rig_open(expert_rig *f, const expert_case *c, int deferred);
void expert_rig_close(expert_rig *f);

/* Runs F and B (halves 0), or F, I and W (1), and takes the results to the host. */
expert_result expert_rig_run(expert_rig *f, int halves);
void expert_result_free(expert_result *r);

/* The same by the naive way, from the rig's inputs and parameters. */
expert_result expert_naive(const expert_rig *f);
#endif
