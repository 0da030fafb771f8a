/* tests/tensor/bench_sums.c: from chapters/02-numerics.md. Edit the chapter, or edit here and run "make untangle". */
/* Errors of random inner products in float, one after another and in pairs, in units of
 * u sum |a| |b|. Columns: K, positive terms, the same in pairs, terms of both signs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static float x[1 << 14];

static float pairs(const float *x, int n)
{
    return n == 1 ? x[0] : pairs(x, n / 2) + pairs(x + n / 2, n / 2);
}

/* find the worst of many sums */
static void worst_of_many(int K, double least, double *chain, double *tree)
{
    for (int trial = 0; trial < 1000; trial++) {
        double exact = 0, size = 0;
        float sum = 0;
        for (int l = 0; l < K; l++) {
            float a = (float)(least + (1 - least) * drand48());
            float b = (float)(least + (1 - least) * drand48());
            x[l] = a * b;
            sum += x[l];
            exact += (double)a * b;
            size += fabs((double)a * b) * 0x1p-24;
        }
        *chain = fmax(*chain, fabs(sum - exact) / size);
        *tree = fmax(*tree, fabs(pairs(x, K) - exact) / size);
    }
}

/* print the worst sums */
int main(void)
{
    for (int K = 2; K <= 1 << 14; K *= 2) {
        double positive = 0, in_pairs = 0, signs = 0, unused = 0;
        worst_of_many(K, 0, &positive, &in_pairs);
        worst_of_many(K, -1, &signs, &unused);
        printf("%d %.3f %.3f %.3f\n", K, positive, in_pairs, signs);
    }
    return 0;
}
