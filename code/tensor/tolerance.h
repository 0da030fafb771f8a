/* code/tensor/tolerance.h: from chapters/02-numerics.md. Edit the chapter, or edit here and run "make untangle". */
/* How far a computed inner product may be from the exact one: derived from the formats
 * and the length of the sum (Higham, Accuracy and Stability of Numerical Algorithms,
 * chapter 3), never chosen.
 *
 *   |computed - exact| <= gamma_n sum |a||b| + K eta/2,   gamma_n = n u / (1 - n u)
 */
#ifndef DLS_TENSOR_TOLERANCE_H
#define DLS_TENSOR_TOLERANCE_H

#ifdef __cplusplus
extern "C" {
#endif

/* describe a precision */
typedef struct dls_precision {
    const char *name;
    int digits;      // significant bits p, the hidden one included; u = 2^-p
    int least;       // the smallest normal number is 2^least
    double largest;  // finite
} dls_precision;

extern const dls_precision dls_f64, dls_f32, dls_tf32, dls_f16, dls_bf16, dls_e4m3,
    dls_e5m2;

/* describe an inner product */
typedef struct dls_dot {
    double terms;                      // K
    double depth;                      // additions a term may pass; 0: K - 1, any order
    const dls_precision *input;        // of the factors, which are taken to be exact
    const dls_precision *accumulator;  // of every product and partial sum
    const dls_precision *output;       // NULL: the accumulator's
} dls_dot;

/* declare the bounds */
/* The unit roundoff 2^-p, and half the distance of the smallest numbers, eta/2. */
double dls_precision_unit(const dls_precision *p);
double dls_precision_tiny(const dls_precision *p);

/* x rounded to the format: to nearest, ties to even, infinity past the largest. */
double dls_precision_round(const dls_precision *p, double x);

double dls_gamma(double n, double unit);  // n u / (1 - n u); INFINITY when n u >= 1

/* The largest |computed - exact| of sum a b, when size = sum |a||b|. */
double dls_dot_bound(const dls_dot *dot, double size);

/* The same for alpha sum a b + beta c, whatever the order of the steps. */
double dls_gemm_bound(const dls_dot *dot, double size, double alpha, double beta,
                      double c);

#ifdef __cplusplus
}
#endif
#endif
