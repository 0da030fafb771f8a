/* tests/vgpu/bench_probe.cu: from chapters/A-virtual-gpu-profile.md. Edit the chapter, or edit here and run "make untangle". */
/* What probes cost: a tiled matrix product, plain and probed, with nobody listening, with
 * the profiler, with checker and profiler. One core; the least of many runs.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench_tiles.cuh"

/* time the least of many products */
/* ns per multiply-add. */
static double measure()
{
    enum { N = 96, T = 16 };
    float *x[3];
    for (float *&p : x) {
        cudaMalloc(&p, N * N * sizeof(float));
        cudaMemset(p, 0, N * N * sizeof(float));
    }
    double best = least(N * N * N, [&] {
        tiled<T><<<dim3(N / T, N / T), dim3(T, T)>>>(x[0], x[1], x[2], N);
    });
    for (float *p : x)
        cudaFree(p);
    return best;
}
/* run the probed form */
/* The probed form of this program, with the given environment; what it measures. */
static double measure_probed(const char *self, const char *environment)
{
    char command[4096];
    double ns = 0;
    snprintf(command, sizeof command, "%s DLS_THREADS=1 %s.probed only", environment,
             self);
    FILE *p = popen(command, "r");
    if (!p || fscanf(p, "%lf", &ns) != 1)
        ns = 0;
    if (p)
        pclose(p);
    return ns;
}

int main(int argc, char **argv)
{
    static const char *const cases[][2] = {
        {"probed, nobody listens", ""}, {"profiler", "DLS_PROFILE=quiet"},
        {"checker", "DLS_CHECK=1"},
        {"checker and profiler", "DLS_CHECK=1 DLS_PROFILE=quiet"}};
    dls_simt_configure(1, 1);
    double plain = measure();
    if (argc > 1) {
        printf("%g\n", plain);
        return 0;
    }
    printf("%-34s %8.2f ns\n", "tiled SGEMM 16x16, multiply-add", plain);
    for (auto c : cases) {
        double ns = measure_probed(argv[0], c[1]);
        printf("%-34s %8.2f ns   ratio to plain %5.2f\n", c[0], ns, ns / plain);
    }
    return 0;
}
