/* tests/layers/test_gradients.c: from chapters/09-transformer-model-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Every layer's backward pass against finite differences of its forward pass. */
#include "fixture.h"

/* measure one coordinate */
/* The derivative of sum(dy * y) along element i of a device array. */
static double measured(fixture *f, double *array, size_t i)
{
    const double h = 1e-5;
    double y[N * 64], dy[N * 64], at, side[2];
    int n = N * f->layer->out;
    get(dy, f->dy, n * sizeof *dy);
    get(&at, array + i, sizeof at);
    for (int k = 0; k < 2; k++) {
        double moved = at + (k ? -h : h);
        put(array + i, &moved, sizeof moved);
        forward(f, y);
        side[k] = 0;
        for (int j = 0; j < n; j++)
            side[k] += dy[j] * y[j];
    }
    put(array + i, &at, sizeof at);
    return (side[0] - side[1]) / (2 * h);
}

/* compare with differences */
static void assert_gradient(fixture *f, double *array, const double *gradient, size_t n)
{
    double got[4096];
    get(got, gradient, n * sizeof *got);
    for (size_t i = 0; i < n; i++) {
        double want = measured(f, array, i);
        cr_assert(fabs(got[i] - want) < 2e-8 * (1 + fabs(want)),
                  "%s, element %zu: %.12g, measured %.12g", f->layer->kind->name, i,
                  got[i], want);
    }
}

static void check_gradients(fixture *f, int has_input)
{
    double y[N * 64];
    forward(f, y);
    backward(f);
    if (has_input)
        assert_gradient(f, f->x, f->dx, N * f->layer->in);
    assert_gradient(f, f->params.values, f->params.grads, f->params.elements);
    end(f);
}

/* test layers by differences */
#define GRADIENT(name, layer)       \
    Test(layers, name##_gradient)   \
    {                               \
        fixture f;                  \
        begin(&f);                  \
        prepare(&f, layer, 0);      \
        check_gradients(&f, 1);     \
    }
GRADIENT(linear, dls_linear(&f.build, "l", 5, 7, 1, 1))
GRADIENT(layernorm, dls_layernorm(&f.build, "l", 9))
GRADIENT(gelu, dls_gelu(&f.build, 6))
GRADIENT(attention, dls_attention(&f.build, "a", 2, 2, 4, 0))

Test(layers, embedding_gradient)
{
    fixture f;
    begin(&f);
    prepare(&f, dls_embedding(&f.build, 5, 4, 6, 1), 0);
    check_gradients(&f, 0);
}

Test(layers, tied_head_gradient)
{
    fixture f;
    begin(&f);
    dls_layer *both[2];
    both[0] = dls_embedding(&f.build, 5, T, 4, 1);
    both[1] = dls_tied_head(&f.build, both[0]);
    prepare(&f, dls_sequence(&f.build, both, 2), 0);
    randomise(f.dy, N, 3, 0, 0.7);
    check_gradients(&f, 0);
}

GRADIENT(block, small_block(&f.build, "block"))

GRADIENT(rmsnorm, dls_rmsnorm(&f.build, "l", 9, 1e-6))
GRADIENT(swiglu, dls_swiglu(&f.build, 7))
GRADIENT(gelu_without_the_fit, dls_gelu_erf(&f.build, 7))
GRADIENT(rotary, dls_rotary(&f.build, 2, 1, 6, 4))

Test(layers, untied_head_gradient)
{
    fixture f;
    begin(&f);
    prepare(&f, dls_head(&f.build, "head", 4, 5, 1), 0);
    randomise(f.dy, N, 3, 0, 0.7);
    check_gradients(&f, 1);
}

static void check_llama(double dropout)
{
    fixture f;
    begin(&f);
    prepare(&f, small_llama(&f.build, "block", dropout), 0);
    f.pass.drops = dropout > 0;
    f.pass.seed = 5;
    f.pass.first_sequence = 9;
    check_gradients(&f, 1);
}

Test(layers, llama_block_gradient)
{
    check_llama(0);
}

Test(layers, gradient_under_dropout)
{
    check_llama(0.25);
}
