/* tests/layers/fixture.h: from chapters/09-transformer-model-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* One layer with everything it needs, in double; numbers go in and out as host arrays. */
#ifndef TEST_LAYERS_FIXTURE_H
#define TEST_LAYERS_FIXTURE_H
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/block.h"

/* hold a layer under test */
enum { B = 2, T = 3, N = B * T };

typedef struct fixture {
    dls_ctx ctx;
    dls_params params;
    dls_build build;
    dls_layer *layer;
    dls_plan plan;
    dls_pass pass;
    int *ids, *pending;         /* tokens, then targets: device */
    void *activations;
    double *x, *y, *dx, *dy;    /* device */
    double *rotation;           /* (T, 4) device */
} fixture;

/* say what failed */
#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

static inline void *device(size_t count)
{
    void *p = NULL;
    OK(dls_device_alloc(&p, count, DLS_F64, DLS_MEM_OTHER));
    return p;
}

static inline void put(void *to, const void *from, size_t bytes)
{
    cr_assert_eq(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), cudaSuccess);
}

static inline void get(void *to, const void *from, size_t bytes)
{
    cr_assert_eq(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
}

/* prepare the layer under test */
static inline void randomise(void *to, size_t n, int stream, double scale, double shift)
{
    double *host = malloc(n * sizeof *host);
    for (size_t i = 0; i < n; i++)
        host[i] = shift + scale * dls_rng_normal(99, stream, i);
    put(to, host, n * sizeof *host);
    free(host);
}

static inline void begin(fixture *f)
{
    *f = (fixture){0};
    OK(dls_ctx_create(&f->ctx, 0, DLS_F64));
    f->build.params = &f->params;
}

static inline dls_layer *small_block(dls_build *b, const char *name)
{
    dls_transformer_config c = dls_transformer_gpt2(5, T, 1, 2, 8);
    return dls_block(b, name, &c, 0.5, 0.3);
}

static inline dls_layer *small_llama(dls_build *b, const char *name, double dropout)
{
    dls_transformer_config c = dls_transformer_llama(5, T, 1, 4, 2, 16, 7);
    c.attention_dropout = c.residual_dropout = dropout;
    return dls_block(b, name, &c, 0.5, 0.3);
}

static inline void prepare_ids(fixture *f)
{
    static const int ids[2 * N] = {1, 4, 1, 0, 2, 4,  4, 1, 0, 2, 4, 3};
    f->ids = device(2 * N);
    put(f->ids, ids, sizeof ids);
    f->pending = calloc(f->params.n + 1, sizeof(int));
}

static inline void prepare_rotation(fixture *f)
{
    const dls_rope rope = {.theta = 10, .dim = 4};
    f->rotation = device(T * 4);
    OK(dls_rope_table(&f->ctx, f->rotation, &rope, T));
    f->pass.rotation = f->rotation;
    f->pass.rotation_length = T;
}

static inline void prepare(fixture *f, dls_layer *layer, int deferred)
{
    OK(f->build.status);
    f->layer = layer;
    f->plan = (dls_plan){.max_B = B, .max_T = T, .dtype = DLS_F64,
                         .deferred = deferred};
    dls_layer_plan(layer, &f->plan);
    OK(dls_params_allocate(&f->params, &f->ctx));
    randomise(f->params.values, f->params.elements, 1, 0.5, 0.3);
    f->activations = device(dls_plan_bytes(&f->plan) / sizeof(double) + 1);
    prepare_ids(f);
    f->pass = (dls_pass){.ctx = &f->ctx, .params = &f->params, .B = B, .T = T,
                         .tokens = f->ids, .targets = f->ids + N, .loss_scale = 0.7,
                         .pending = f->pending};
    dls_pass_regions(&f->pass, &f->plan, f->activations);
    prepare_rotation(f);
    f->x = device(N * layer->in);
    f->y = device(N * layer->out);
    f->dx = device(N * layer->in);
    f->dy = device(N * layer->out);
    randomise(f->x, N * layer->in, 2, 1, 0);
    randomise(f->dy, N * layer->out, 3, 1, 0);
}

/* run the layer under test */
static inline void forward(fixture *f, double *y)
{
    OK(f->layer->kind->forward(f->layer, &f->pass, f->y, f->x));
    OK(dls_ctx_sync(&f->ctx));
    get(y, f->y, N * f->layer->out * sizeof *y);
}

static inline void backward(fixture *f)
{
    OK(dls_params_zero_grads(&f->params, &f->ctx));
    OK(dls_layer_backward(f->layer, &f->pass, f->dx, f->dy, f->x, f->y));
    OK(dls_ctx_sync(&f->ctx));
}

static inline void end(fixture *f)
{
    void *all[] = {f->activations, f->ids, f->x, f->y, f->dx, f->dy, f->rotation};
    for (int i = 0; i < 7; i++)
        dls_device_free(all[i]);
    free(f->pending);
    dls_build_free(&f->build);
    dls_params_free(&f->params);
    dls_ctx_destroy(&f->ctx);
}
#endif
