/* tests/kernels/attention_problem.h: from chapters/10-flash-attention-tensor-cores-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* An attention over 16-bit arrays, held against the definition in double, element by
 * element, within the bound of the chapter. Everything around the arrays is NaN: gaps
 * between rows, rows past a sequence's end, the rest of a cache. */
#ifndef DLS_TESTS_ATTENTION_PROBLEM_H
#define DLS_TESTS_ATTENTION_PROBLEM_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/attention_tensor.h"

#define OK(expr) cr_assert_eq((expr), DLS_OK, "%s: %s", #expr, dls_status_message())
#define CUDA(expr) cr_assert_eq((expr), cudaSuccess, "%s", #expr)

/* describe an attention problem */
enum { MOST = 8 };  // sequences

typedef dls_status attention_run(cudaStream_t stream, dls_attention_format format,
                                 const dls_attention_shape *s, void *out, float *lse,
                                 const void *q, const void *k, const void *v);

typedef struct problem {
    attention_run *run;
    dls_attention_shape s;
    dls_attention_format format;
    int starts_q[MOST + 1], starts_k[MOST + 1], lengths_k[MOST];
    int packed, cached;       // starts_q and starts_k count; lengths_k counts
    double size;              // elements are drawn from (-size, size)
    size_t n_q, n_k, n_v, n_o;
    uint16_t *q, *k, *v, *o;  // on the host
    float *lse;
} problem;

uint16_t attention_to_bits(dls_attention_format format, double x);
double attention_from_bits(dls_attention_format format, uint16_t bits);

void make_attention(problem *p);    // allocates and draws the arrays
void run_attention(problem *p);     // fills o and lse
void free_attention(problem *p);
void expect_attention(problem p);   // all of these, and holds the result to the bound
void expect_attention_gradients(problem p);  // of dls_attention_tensor_backward
#endif
