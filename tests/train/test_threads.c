/* tests/train/test_threads.c: from chapters/09-transformer-cpu.md. Edit the chapter, or edit here and run "make untangle". */
/* Training gives the same bits on any number of threads. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "model/transformer.h"
#include "train/optimizer.h"

#ifdef DLS_BACKEND_virtual
#include "vgpu/vgpu_internal.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s: %s", #expr, dls_status_message())

enum { B = 3, T = 48, N = B * T, V = 1009 };

/* train two steps on some threads */
static void train(dls_transformer *model, dls_optimizer *o, const int *tokens)
{
    for (int step = 1; step <= 2; step++) {
        OK(dls_params_zero_grads(&model->params, model->ctx));
        OK(dls_transformer_forward(model, tokens, tokens + N, B, T));
        OK(dls_transformer_backward(model, 1.0 / N, NULL));
        OK(dls_optimizer_step(o, 1e-3, step));
    }
}

/* The losses of the second step, and the parameters after it. */
static char *trained(dls_dtype type, int threads, size_t *bytes)
{
    const dls_transformer_config c = dls_transformer_gpt2(V, T, 1, 3, 192);
    const dls_adamw_options adamw = {.beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8,
                                     .weight_decay = 0.1, .clip = 1};
    dls_ctx ctx;
    dls_transformer *model;
    dls_optimizer *o;
    int *tokens;
    OK(dls_ctx_create(&ctx, 0, type));
    dls_vgpu.threads = threads;
    OK(dls_transformer_create(&model, &ctx, &c, B, T));
    OK(dls_optimizer_create(&o, &ctx, &model->params, &adamw));
    /* start and train on some threads */
    size_t n = model->params.elements, size = dls_dtype_size(type);
    float *values = malloc(n * sizeof *values);
    dls_params_fill(&model->params, 7, values);
    OK(dls_optimizer_put(o, values));
    OK(cudaMallocManaged((void **)&tokens, 2 * N * sizeof *tokens, cudaMemAttachGlobal));
    for (int i = 0; i < 2 * N; i++)
        tokens[i] = i * 37 % V;
    train(model, o, tokens);
    OK(dls_ctx_sync(&ctx));
    *bytes = N * sizeof(float) + n * size;
    char *out = malloc(*bytes);
    OK(cudaMemcpy(out, dls_transformer_losses(model), N * sizeof(float),
                  cudaMemcpyDeviceToHost));
    OK(cudaMemcpy(out + N * sizeof(float), model->params.values, n * size,
                  cudaMemcpyDeviceToHost));
    free(values);
    dls_optimizer_free(o);
    dls_transformer_free(model);
    dls_ctx_destroy(&ctx);
    return out;
}

/* compare trainings on more threads */
static void compare_threads(dls_dtype type)
{
    size_t bytes, same;
    char *one = trained(type, 1, &bytes);
    for (int threads = 2; threads <= 3; threads++) {
        char *more = trained(type, threads, &same);
        cr_expect(same == bytes && memcmp(one, more, bytes) == 0, "%s on %d threads",
                  dls_dtype_name(type), threads);
        free(more);
    }
    free(one);
}

Test(train, threads_change_no_bit_in_f32) { compare_threads(DLS_F32); }
Test(train, threads_change_no_bit_in_bf16) { compare_threads(DLS_BF16); }

/* compare sums on more threads */
/* The bits of a sum of squares and of a plain sum on some threads. */
static void sums_on(int threads, double out[2])
{
    enum { COUNT = 100003 };
    dls_ctx ctx;
    double *device;
    OK(dls_ctx_create(&ctx, 0, DLS_F64));
    dls_vgpu.threads = threads;
    OK(cudaMallocManaged((void **)&device, (COUNT + 2) * sizeof *device,
                         cudaMemAttachGlobal));
    for (int i = 0; i < COUNT; i++)
        device[2 + i] = ldexp(1 + i % 7 * 0.1, i * 31 % 40 - 20);
    device[0] = 0;
    OK(dls_square_sum(&ctx, device, device + 2, COUNT));
    OK(dls_sum(&ctx, device + 1, device + 2, COUNT));
    OK(dls_ctx_sync(&ctx));
    memcpy(out, device, 2 * sizeof *out);
    cudaFree(device);
    dls_ctx_destroy(&ctx);
}

Test(train, threads_change_no_bit_of_a_sum)
{
    double one[2], more[2];
    sums_on(1, one);
    for (int threads = 2; threads <= 3; threads++) {
        sums_on(threads, more);
        cr_expect(memcmp(one, more, sizeof one) == 0, "%d threads: %a %a, expected %a %a",
                  threads, more[0], more[1], one[0], one[1]);
    }
    cr_expect(one[0] > 1e15 && one[1] > 1e9, "%g %g", one[0], one[1]);
}
#endif
