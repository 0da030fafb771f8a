/* code/kernels/orthogonal_host.c: from chapters/04-data-parallelism-hooks-lossy.md. Edit the chapter, or edit here and run "make untangle". */
/* Orthonormal columns in plain C. */
#include <math.h>
#include <stddef.h>

#include "kernels/real.h"

#include "kernels/orthogonal_host.h"

/* orthogonalise on the host */
static double dot(const real *p, int rows, int columns, int a, int b)
{
    double sum = 0;
    for (int i = 0; i < rows; i++)
        sum += (double)widen(p[(size_t)i * columns + a]) *
               (double)widen(p[(size_t)i * columns + b]);
    return sum;
}

/* Column j := factor * column j - along * column k. */
static void change(real *p, int rows, int columns, int j, double factor, double along,
                   int k)
{
    for (int i = 0; i < rows; i++) {
        real *x = &p[(size_t)i * columns + j];
        *x = narrow((acc)(factor * (double)widen(*x) -
                          along * (double)widen(p[(size_t)i * columns + k])));
    }
}

void DLS_HOST_NAME(dls_orthogonalise)(real *p, int rows, int columns, double least)
{
    for (int j = 0; j < columns; j++) {
        double before = sqrt(dot(p, rows, columns, j, j));
        for (int k = 0; k < 2 * j; k++)
            change(p, rows, columns, j, 1, dot(p, rows, columns, k % j, j), k % j);
        double length = sqrt(dot(p, rows, columns, j, j));
        change(p, rows, columns, j, length > least * before ? 1 / length : 0, 0, j);
    }
}

void DLS_HOST_NAME(dls_refill_columns)(real *q, const real *fresh, int rows, int columns)
{
    for (int j = 0; j < columns; j++) {
        int empty = 1;
        for (int i = 0; i < rows; i++)
            empty &= widen(q[(size_t)i * columns + j]) == 0;
        for (int i = 0; empty && i < rows; i++)
            q[(size_t)i * columns + j] = fresh[(size_t)i * columns + j];
    }
}
