/* tests/kernels/attention_case.h: from chapters/10-flash-attention-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* A case of attention with its expected results, for every way of computing it. The
 * arrays are strided; the elements between rows and behind packed sequences are NaN, and
 * have to stay so. */
#ifndef DLS_TESTS_KERNELS_ATTENTION_CASE_H
#define DLS_TESTS_KERNELS_ATTENTION_CASE_H

#include "kernels/attention_ways.h"
#include "support.h"

/* define a case of attention */
enum { Q, K, V, OUT, ARRAYS };  // arrays with a row per token; their gradients alike

typedef struct acase {
    dls_attention_shape s;      // complete; starts and lengths on the host
    size_t size[ARRAYS];        // elements of each array, gaps included
    double *x[ARRAYS];          // q, k, v given; out expected
    double *dx[ARRAYS];         // dout given; dq, dk, dv expected
    double *x_e[ARRAYS], *dx_e[ARRAYS];  // bounds of what is expected
    double *lse, *lse_e;        // (B, H, Tq)
    // what the device got, and gave
    dls_attention_shape on_device;
    void *dev[ARRAYS], *ddev[ARRAYS], *dev_lse, *temporary;
} acase;

/* declare the case of attention */
/* Random arrays for the shape, values in [-range, range]. */
acase *acase_make(kcase *k, dls_attention_shape s, double range);

/* Expected results and bounds, from x and dx[OUT] as they are now. */
void acase_refer(const kcase *k, acase *a);

/* Brings the inputs to the device; runs dls_attention_forward and _backward there. */
void acase_put(kcase *k, acase *a);
void acase_run(kcase *k, acase *a, const char *way);

/* Compares what came out; `what` begins the message. */
void acase_expect(kcase *k, acase *a, const char *what);

/* All of it, for naive and flash. */
void acase_check(kcase *k, dls_attention_shape s, double range, const char *what);

/* The number of an element: array, sequence, token, head, channel. */
size_t acase_at(const acase *a, int array, int b, int i, int h, int d);

#endif
