/* tests/tensor/bench_loop_order.c: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* One product, three orders of its loops: same operations, different walks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N = 768 };
static float A[N][N], B[N][N], C[N][N];

/* walk in three orders */
static void row_times_column(void)
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            for (int l = 0; l < N; l++)
                C[i][j] += A[i][l] * B[l][j];
}

static void along_the_rows(void)
{
    for (int i = 0; i < N; i++)
        for (int l = 0; l < N; l++)
            for (int j = 0; j < N; j++)
                C[i][j] += A[i][l] * B[l][j];
}

static void down_the_columns(void)
{
    for (int j = 0; j < N; j++)
        for (int l = 0; l < N; l++)
            for (int i = 0; i < N; i++)
                C[i][j] += A[i][l] * B[l][j];
}

/* time a walk */
static double run(void (*multiply)(void))
{
    struct timespec start, end;
    memset(C, 0, sizeof C);
    clock_gettime(CLOCK_MONOTONIC, &start);
    multiply();
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - start.tv_sec) +
                     (double)(end.tv_nsec - start.tv_nsec) * 1e-9;
    return 2.0 * N * N * N / seconds * 1e-9;
}

int main(void)
{
    for (int i = 0; i < N * N; i++) {
        A[i / N][i % N] = (float)(i % 7) - 3;
        B[i / N][i % N] = (float)(i % 5) - 2;
    }
    printf("i j l, row times column:  %6.2f GFLOP/s\n", run(row_times_column));
    printf("i l j, along the rows:    %6.2f GFLOP/s\n", run(along_the_rows));
    printf("j l i, down the columns:  %6.2f GFLOP/s\n", run(down_the_columns));
    return 0;
}
