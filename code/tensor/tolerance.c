/* code/tensor/tolerance.c: from chapters/02-numerics.md. Edit the chapter, or edit here and run "make untangle". */
/* Bounds on the rounding error of inner products and products of matrices. */
#include "tensor/tolerance.h"

#include <math.h>

/* tabulate the precisions */
const dls_precision dls_f64 = {"f64", 53, -1022, 0x1.fffffffffffffp+1023};
const dls_precision dls_f32 = {"f32", 24, -126, 0x1.fffffep+127};
const dls_precision dls_tf32 = {"tf32", 11, -126, 0x1.ffcp+127};
const dls_precision dls_f16 = {"f16", 11, -14, 65504};
const dls_precision dls_bf16 = {"bf16", 8, -126, 0x1.fep+127};
const dls_precision dls_e4m3 = {"e4m3", 4, -6, 448};
const dls_precision dls_e5m2 = {"e5m2", 3, -14, 57344};

/* round to a precision */
double dls_precision_unit(const dls_precision *p)
{
    return ldexp(1, -p->digits);
}

double dls_precision_tiny(const dls_precision *p)
{
    return ldexp(1, p->least - p->digits);
}

double dls_precision_round(const dls_precision *p, double x)
{
    int exponent;
    if (p->digits == 53 || x == 0 || !isfinite(x))
        return x;
    frexp(x, &exponent);  // |x| in [2^(exponent-1), 2^exponent)
    if (exponent - 1 < p->least)
        exponent = p->least + 1;
    double spacing = ldexp(1, exponent - p->digits);
    double rounded = nearbyint(x / spacing) * spacing;
    return fabs(rounded) > p->largest ? copysign(INFINITY, x) : rounded;
}

/* bound an inner product */
double dls_gamma(double n, double unit)
{
    return n * unit < 1 ? n * unit / (1 - n * unit) : INFINITY;
}

static double roundings(const dls_dot *dot)
{
    int products = 2 * dot->input->digits > dot->accumulator->digits;
    return products + (dot->depth > 0 ? dot->depth : fmax(dot->terms - 1, 0));
}

static double bound(const dls_dot *dot, double n, double size, double lost)
{
    double gamma = dls_gamma(n, dls_precision_unit(dot->accumulator));
    double error = size == 0 ? lost : size * gamma + lost * (1 + gamma);
    const dls_precision *output = dot->output;
    if (!output || output->digits >= dot->accumulator->digits)
        return error;
    return error + (size + error) * dls_precision_unit(output) +
           dls_precision_tiny(output);
}

double dls_dot_bound(const dls_dot *dot, double size)
{
    double lost = dot->terms * dls_precision_tiny(dot->accumulator);
    return bound(dot, roundings(dot), size, lost);
}

double dls_gemm_bound(const dls_dot *dot, double size, double alpha, double beta,
                      double c)
{
    double tiny = dls_precision_tiny(dot->accumulator);
    double lost = (fabs(alpha) * dot->terms + 2) * tiny;  // alpha sum, beta c: two more
    double parts = fabs(alpha) * size + (beta == 0 ? 0 : fabs(beta * c));
    return bound(dot, roundings(dot) + 2, parts, lost);
}
