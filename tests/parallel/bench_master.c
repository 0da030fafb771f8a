/* tests/parallel/bench_master.c: from chapters/04-data-parallelism-master.md. Edit the chapter, or edit here and run "make untangle". */
/* One step of GPT-2 by a master and its replicas, for 1 to 8 devices: times and law.
 * bench_master SVG: draws the step of four devices. Run with DLS_KERNELS=timed. */
#include <stdio.h>
#include <stdlib.h>

#include "parallel/data/master.h"
#include "train/optimizer.h"
#include "vgpu/trace.h"

/* step once with devices */
typedef struct bench {
    dls_ctx ctx[8];
    dls_transformer *replicas[8];
    dls_optimizer *optimizer;
    dls_master *master;
    int *ids, n;
} bench;

static dls_status open_bench(bench *b, int n)
{
    dls_transformer_config c = dls_transformer_gpt2(50257, 1024, 12, 12, 768);
    const dls_adamw_options adamw = {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8};
    *b = (bench){.n = n};
    for (int i = 0; i < n; i++) {
        DLS_TRY(dls_ctx_create(&b->ctx[i], i, DLS_BF16));
        DLS_CUDA(dls_gpu_name_stream(b->ctx[i].stream, "compute"));
        DLS_TRY(dls_transformer_create(&b->replicas[i], &b->ctx[i], &c, 1, 1024));
    }
    DLS_CUDA(cudaSetDevice(0));
    DLS_TRY(dls_optimizer_create(&b->optimizer, &b->ctx[0], &b->replicas[0]->params,
                                 &adamw));
    DLS_TRY(dls_device_alloc((void **)&b->ids, 2 * 8 * 1024, DLS_F32, DLS_MEM_OTHER));
    return dls_master_create(&b->master, b->replicas, n, n, 1024);
}

static void close_bench(bench *b)
{
    dls_master_destroy(b->master);
    dls_optimizer_free(b->optimizer);
    dls_device_free(b->ids);
    for (int i = 0; i < b->n; i++) {
        dls_transformer_free(b->replicas[i]);
        dls_ctx_destroy(&b->ctx[i]);
    }
}

/* print the law */
static dls_status one_step(bench *b, dls_master_times *t, double *whole)
{
    double start = dls_gpu_host_time();
    DLS_TRY(dls_master_step(b->master, b->ids, b->ids + b->n * 1024, b->n, 1));
    DLS_TRY(dls_optimizer_step(b->optimizer, 1e-4, 1));
    DLS_TRY(dls_ctx_sync(&b->ctx[0]));
    *whole = dls_gpu_host_time() - start;
    return dls_master_timing(b->master, t);
}

static dls_status run(int n, const char *svg)
{
    bench b;
    dls_master_times t;
    double whole, alpha, beta, from;
    DLS_TRY(open_bench(&b, n));
    DLS_TRY(one_step(&b, &t, &whole));
    from = dls_gpu_host_time();
    dls_trace_enable(svg != NULL);
    DLS_TRY(one_step(&b, &t, &whole));
    dls_trace_enable(0);
    DLS_TRY(dls_cluster_link(dls_gpu_cluster(), 0, 1, &alpha, &beta));
    double values = 2.0 * (double)b.replicas[0]->params.elements;
    double out = (n - 1) * (3 * alpha + beta * (values + 2 * 4096));
    double in = (n - 1) * (2 * alpha + beta * (2 * values + 4096));
    printf("%7d %8.3f %8.3f %8.3f %8.3f %8.3f %10.2f\n", n, 1e3 * out, 1e3 * t.out,
           1e3 * in, 1e3 * t.in, 1e3 * whole, n / whole / 1e3);
    if (svg) {
        const char *const file = "build/master-trace.json";
        DLS_TRY(dls_trace_save(file));
        DLS_TRY(dls_trace_merge(&file, 1, NULL, svg, from, dls_gpu_host_time()));
    }
    close_bench(&b);
    return DLS_OK;
}

int main(int argc, char **argv)
{
    printf("devices  out law      out   in law       in     step  seq per ms\n");
    for (int n = 1; n <= 8; n += 1 + (n > 1))
        if (run(n, NULL) != DLS_OK)
            return fprintf(stderr, "%s\n", dls_status_message()), 1;
    return argc > 1 && run(4, argv[1]) != DLS_OK;
}
