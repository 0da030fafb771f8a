/* tests/model/bench_batch.c: from chapters/09-transformer-generation.md. Edit the chapter, or edit here and run "make untangle". */
/* The virtual time of a decode step over the number of sequences, beside two formulas:
 * the bytes of weights and cache over the bandwidth, the operations over the peak. */
#include <stdio.h>
#include <stdlib.h>

#include "model/transformer.h"
#include "vgpu/gpu.h"

enum { MOST = 1024, FILLED = 32 };

/* stop on a status */
#define OK(expression)                                          \
    do {                                                        \
        if ((expression) != DLS_OK) {                           \
            fprintf(stderr, "%s\n", dls_status_message());      \
            exit(1);                                            \
        }                                                       \
    } while (0)

/* make a decoding model */
typedef struct decoding {
    dls_ctx ctx;
    dls_transformer *model;
    dls_cache cache;
    int *ints;                  /* device: tokens, positions, lengths */
} decoding;

static void make(decoding *d)
{
    dls_transformer_config c = dls_transformer_llama(8192, 64, 2, 16, 4, 2048, 5632);
    size_t row = 2 * (size_t)c.kv_heads * c.head_size;
    int *host = calloc(3 * MOST, sizeof *host);
    c.frozen = 1;
    OK(dls_ctx_create(&d->ctx, 0, DLS_BF16));
    OK(dls_transformer_create(&d->model, &d->ctx, &c, MOST, 1));
    d->cache = (dls_cache){.sequences = MOST, .length = c.context, .longest = FILLED};
    OK(dls_device_alloc(&d->cache.rows, row * c.context * MOST * c.layers, DLS_BF16,
                        DLS_MEM_OTHER));
    OK(dls_device_alloc((void **)&d->ints, 3 * MOST, DLS_F32, DLS_MEM_OTHER));
    for (int i = 0; i < MOST; i++) {
        host[MOST + i] = FILLED - 1;
        host[2 * MOST + i] = FILLED;
    }
    cudaMemset(d->model->params.values, 0, d->model->params.elements * 2);
    cudaMemset(d->cache.rows, 0, row * c.context * MOST * c.layers * 2);
    cudaMemcpy(d->ints, host, 3 * MOST * sizeof *host, cudaMemcpyHostToDevice);
    d->cache.filled = d->ints + 2 * MOST;
    free(host);
}

/* time a decode step */
static double step(decoding *d, int B)
{
    cudaEvent_t start, stop;
    float ms;
    cudaEventCreate(&start);
    cudaEventCreate(&stop);
    cudaEventRecord(start, d->ctx.stream);
    OK(dls_transformer_continue(d->model, d->ints, d->ints + MOST, &d->cache, B, 1));
    cudaEventRecord(stop, d->ctx.stream);
    OK(dls_ctx_sync(&d->ctx));
    cudaEventElapsedTime(&ms, start, stop);
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    return ms * 1e3;
}

/* print the batches */
int main(void)
{
    decoding d;
    make(&d);
    const dls_device_spec *gpu = &dls_gpu_cluster()->device;
    const dls_transformer_config *c = &d.model->config;
    double table = (double)c->vocabulary * c->channels;   // only B rows are read
    double weights = (double)d.model->params.elements - table;
    double cached = 2.0 * c->layers * c->kv_heads * c->head_size * FILLED;
    for (int B = 1; B <= MOST; B *= 2) {
        double bytes = 2 * (weights + B * cached), flops = 2 * B * weights;
        printf("%d %.3f %.3f %.3f\n", B, step(&d, B), bytes / gpu->memory_bandwidth * 1e6,
               flops / gpu->bf16 * 1e6);
    }
    return 0;
}
