/* tests/model/test_generate.c: from chapters/09-transformer-generation-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Generation with a cache against the full forward pass, alone and in company. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../base/expect.h"
#include "base/rng.h"
#include "model/generate.h"
#include "vgpu/gpu.h"

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

/* make small models */
static dls_transformer_config small_gpt2(void)
{
    dls_transformer_config c = dls_transformer_gpt2(31, 17, 2, 2, 12);
    c.frozen = 1;
    return c;
}

static dls_transformer_config small_llama(void)
{
    dls_transformer_config c = dls_transformer_llama(31, 17, 2, 4, 2, 16, 20);
    c.rope = (dls_rope){.theta = 100, .scaling = DLS_ROPE_LLAMA3, .factor = 4,
                        .original = 8, .low_freq_factor = 1, .high_freq_factor = 4};
    c.frozen = 1;
    return c;
}

typedef struct small { dls_ctx ctx; dls_transformer *model; int *device; } small;

static void open_small(small *s, dls_transformer_config c, dls_dtype dtype, int B, int T)
{
    *s = (small){.model = NULL};
    OK(dls_ctx_create(&s->ctx, 0, dtype));
    OK(dls_transformer_create(&s->model, &s->ctx, &c, B, T));
    for (int i = 0; i < s->model->params.n; i++)    // larger than a start: livelier
        s->model->params.items[i].init_scale *= 10;
    OK(dls_params_initialise(&s->model->params, 5));
    OK(dls_device_alloc((void **)&s->device, 256, DLS_F32, DLS_MEM_OTHER));
}

static void close_small(small *s)
{
    dls_device_free(s->device);
    dls_transformer_free(s->model);
    dls_ctx_destroy(&s->ctx);
}

/* compare cached scores */
enum { TEXT = 13, V = 31 };

static void put_text(small *s)
{
    int ints[3 * TEXT];
    for (int i = 0; i < TEXT; i++) {
        ints[i] = (int)(dls_rng_u32(8, 0, i) % V);
        ints[TEXT + i] = i;
        ints[2 * TEXT + i] = i + 1;
    }
    cudaMemcpy(s->device, ints, sizeof ints, cudaMemcpyHostToDevice);
}

/* The scores (V) behind the text, taken through in pieces of `step`. */
static void cached_scores(small *s, dls_cache *c, int step, double *out)
{
    for (int i = 0, n; i < TEXT; i += n) {
        n = TEXT - i < step ? TEXT - i : step;
        c->longest = i + n;
        c->filled = s->device + 2 * TEXT + i + n - 1;
        c->quiet = i + n < TEXT;
        OK(dls_transformer_continue(s->model, s->device + i, s->device + TEXT + i, c, 1,
                                    n));
    }
    OK(dls_ctx_sync(&s->ctx));
    cudaMemcpy(out, dls_transformer_scores(s->model), V * sizeof *out,
               cudaMemcpyDeviceToHost);
}

static void check_cached(dls_transformer_config config, int stride)
{
    small s;
    size_t row = 2 * (size_t)config.kv_heads * config.head_size;
    size_t n = 3 * config.layers * row * config.context;
    double full[V], cached[V], *nans = malloc(n * sizeof *nans);
    dls_cache c = {.sequences = 3, .length = config.context, .first = 1};
    open_small(&s, config, DLS_F64, 1, TEXT);
    OK(dls_device_alloc(&c.rows, n, DLS_F64, DLS_MEM_OTHER));
    put_text(&s);
    OK(dls_transformer_logits(s.model, s.device, TEXT, full));
    for (int step = 1; step <= TEXT; step += stride) {
        for (size_t i = 0; i < n; i++)
            nans[i] = NAN;
        cudaMemcpy(c.rows, nans, n * sizeof *nans, cudaMemcpyHostToDevice);
        cached_scores(&s, &c, step, cached);
        for (int v = 0; v < V; v++)
            cr_assert(fabs(cached[v] - full[v]) <= 500 * 0x1p-53 * 3, "%d: %.17g %.17g",
                      step, cached[v], full[v]);
    }
    free(nans);
    dls_device_free(c.rows);
    close_small(&s);
}

Test(generate, a_cache_changes_nothing_gpt2) { check_cached(small_gpt2(), 1); }
Test(generate, a_cache_changes_nothing_llama) { check_cached(small_llama(), 1); }

Test(generate, a_cache_changes_nothing_simt)
{
    OK(dls_gpu_init(&(dls_gpu_options){.kernels = DLS_KERNELS_SIMT}));
    check_cached(small_llama(), 6);
}

/* generate slowly */
typedef struct texts { int n[4], tokens[4][64]; } texts;

static dls_status hear(void *self, int sequence, int token)
{
    texts *t = self;
    t->tokens[sequence][t->n[sequence]++] = token;
    return DLS_OK;
}

/* Continues `text` (n) by `count` tokens; the window begins anew as the slide says. */
static void slowly(small *s, const dls_generate_options *o, uint32_t id, int *text, int n,
                   int count)
{
    int context = s->model->config.context, start = n > context ? n - context : 0;
    char seen[V] = {0};
    for (int i = 0; i < n; i++)
        seen[text[i]] = 1;
    for (int i = 0; i < count; i++, n++) {
        double logits[V];
        dls_candidate room[V];
        if (n - start > context)
            start = n - (context > 1 ? context / 2 : 1);
        cudaMemcpy(s->device, text + start, (n - start) * sizeof *text,
                   cudaMemcpyHostToDevice);
        OK(dls_transformer_logits(s->model, s->device, n - start, logits));
        OK(dls_draw_token(&o->draw, dls_draw_uniform(o->seed, id, i), logits, V,
                            seen, room, &text[n]));
        seen[text[n]] = 1;
    }
}

/* test against the slow way */
static void check_generation(dls_transformer_config config, dls_dtype dtype)
{
    static const int lengths[4] = {1, 5, 17, 30};
    small fast, slow;
    dls_generator *g;
    texts got = {.n = {0}};
    int text[4][96];
    dls_prompt prompts[4];
    const dls_generate_options o = {.draw = {0.9, 20, 0.95, 1.1}, .seed = 77,
                                    .tokens = 50, .slides = 1, .emit = hear,
                                    .self = &got};
    open_small(&fast, config, dtype, 4, config.context < 4 ? config.context : 4);
    open_small(&slow, config, dtype, 1, config.context);
    for (int b = 0; b < 4; b++) {
        for (int i = 0; i < lengths[b]; i++)
            text[b][i] = (int)(dls_rng_u32(9, b, i) % V);
        prompts[b] = (dls_prompt){text[b], lengths[b], 100 + b};
    }
    OK(dls_generator_create(&g, fast.model, 4));
    OK(dls_generator_run(g, prompts, 4, &o));
    for (int b = 0; b < 4; b++) {
        slowly(&slow, &o, 100 + b, text[b], lengths[b], 50);
        cr_assert_eq(got.n[b], 50);
        cr_assert_arr_eq(got.tokens[b], text[b] + lengths[b], 50 * sizeof(int), "%d", b);
    }
    dls_generator_free(g);
    close_small(&fast);
    close_small(&slow);
}

/* test all types against the slow way */
Test(generate, agrees_with_the_slow_way_gpt2)
{
    check_generation(small_gpt2(), DLS_F64);
}

Test(generate, agrees_with_the_slow_way_llama)
{
    check_generation(small_llama(), DLS_F64);
}

Test(generate, agrees_with_the_slow_way_f32)
{
    check_generation(small_llama(), DLS_F32);
}

Test(generate, agrees_with_the_slow_way_bf16)
{
    check_generation(small_gpt2(), DLS_BF16);
}

Test(generate, a_context_of_one_token)
{
    dls_transformer_config c = small_gpt2();
    c.context = 1;
    check_generation(c, DLS_F64);
}

/* test the company */
Test(generate, company_does_not_matter)
{
    small s;
    dls_generator *g;
    texts alone = {.n = {0}}, among = {.n = {0}};
    const int mine[3] = {4, 8, 15}, other[6] = {16, 23, 4, 2, 1, 0};
    dls_generate_options o = {.draw = {1, 0, 1, 1}, .seed = 3, .tokens = 12,
                              .emit = hear, .self = &alone};
    open_small(&s, small_llama(), DLS_F64, 3, 5);
    OK(dls_generator_create(&g, s.model, 3));
    OK(dls_generator_run(g, &(dls_prompt){mine, 3, 7}, 1, &o));
    o.self = &among;
    const dls_prompt all[3] = {{other, 6, 1}, {mine, 3, 7}, {mine, 3, 8}};
    OK(dls_generator_run(g, all, 3, &o));
    cr_assert_arr_eq(among.tokens[1], alone.tokens[0], 12 * sizeof(int));
    cr_assert(memcmp(among.tokens[2], alone.tokens[0], 12 * sizeof(int)) != 0,
              "another name, other numbers");
    dls_generator_free(g);
    close_small(&s);
}

/* test stops and refusals */
Test(generate, a_stop_token_ends_one_sequence)
{
    small s;
    dls_generator *g;
    texts free_run = {.n = {0}}, stopped = {.n = {0}};
    const int a[2] = {1, 2}, b[4] = {3, 4, 5, 6};
    const dls_prompt prompts[2] = {{a, 2, 0}, {b, 4, 1}};
    dls_generate_options o = {.draw = {1, 0, 1, 1}, .seed = 4, .tokens = 14,
                              .emit = hear, .self = &free_run};
    open_small(&s, small_gpt2(), DLS_F64, 2, 3);
    OK(dls_generator_create(&g, s.model, 2));
    OK(dls_generator_run(g, prompts, 2, &o));
    int first = 0, stops[2] = {V, free_run.tokens[0][4]};
    while (free_run.tokens[0][first] != stops[1])
        first++;
    o.stops = stops;
    o.nstops = 2;
    o.self = &stopped;
    OK(dls_generator_run(g, prompts, 2, &o));
    cr_assert_eq(stopped.n[0], first + 1, "the stop token is the last");
    cr_assert_arr_eq(stopped.tokens[0], free_run.tokens[0], (first + 1) * sizeof(int));
    cr_assert_arr_eq(stopped.tokens[1], free_run.tokens[1], stopped.n[1] * sizeof(int));
    dls_generator_free(g);
    close_small(&s);
}

static int occurs(const texts *t, int token)
{
    int times = 0;
    for (int b = 0; b < 2; b++)
        for (int i = 0; i < t->n[b]; i++)
            times += t->tokens[b][i] == token;
    return times;
}

Test(generate, a_sequence_may_end_when_its_context_is_full)
{
    small s;
    dls_generator *g;
    texts t = {.n = {0}}, stopped = {.n = {0}};
    const int a[5] = {1, 2, 3, 4, 5}, b[1] = {6};
    const dls_prompt prompts[2] = {{a, 5, 0}, {b, 1, 1}};
    dls_generate_options o = {.draw = {5, 0, 1, 1}, .tokens = 15, .slides = 1,
                              .emit = hear, .self = &t};
    open_small(&s, small_gpt2(), DLS_F64, 2, 3);
    OK(dls_generator_create(&g, s.model, 2));
    do {
        t = (texts){.n = {0}};
        o.seed++;
        OK(dls_generator_run(g, prompts, 2, &o));
    } while (occurs(&t, t.tokens[0][12]) > 1);
    o.stops = &t.tokens[0][12];
    o.nstops = 1;
    o.self = &stopped;
    OK(dls_generator_run(g, prompts, 2, &o));
    cr_assert(stopped.n[0] == 13 && stopped.n[1] == 15);
    cr_assert_arr_eq(stopped.tokens[1], t.tokens[1], 15 * sizeof(int));
    dls_generator_free(g);
    close_small(&s);
}

Test(generate, what_can_not_be_continued_is_refused)
{
    small s;
    dls_generator *g;
    texts t = {.n = {0}};
    const int good[4] = {1, 2, 3, 4}, bad[2] = {1, V};
    dls_generate_options o = {.draw = {1, 0, 1, 1}, .tokens = 15, .emit = hear,
                              .self = &t};
    open_small(&s, small_gpt2(), DLS_F64, 2, 3);
    EXPECT_ERROR(dls_generator_create(&g, s.model, 3), DLS_ERR_INPUT,
                 "3 sequences at once: the model was made for 2");
    OK(dls_generator_create(&g, s.model, 2));
    EXPECT_ERROR(dls_generator_run(g, &(dls_prompt){good, 4, 0}, 1, &o), DLS_ERR_INPUT,
                 "prompt 0: 4 tokens and 15 to draw do not fit the context of 17");
    EXPECT_ERROR(dls_generator_run(g, &(dls_prompt){good, 0, 0}, 1, &o), DLS_ERR_INPUT,
                 "prompt 0: expected at least one token");
    EXPECT_ERROR(dls_generator_run(g, &(dls_prompt){bad, 2, 0}, 1, &o), DLS_ERR_INPUT,
                 "prompt 0: token 31 at 1 is not in the model's vocabulary of 31");
    o.draw.top_p = 0;
    cr_assert_eq(dls_generator_run(g, &(dls_prompt){good, 1, 0}, 1, &o), DLS_ERR_INPUT);
    o.draw.top_p = 1;
    o.tokens = 0;
    OK(dls_generator_run(g, &(dls_prompt){good, 4, 0}, 1, &o));
    cr_assert_eq(t.n[0], 0);
    dls_generator_free(g);
    close_small(&s);
}

/* test the frozen model */
Test(generate, a_frozen_model_takes_little)
{
    small s;
    dls_gpu_memory now;
    dls_transformer_memory frozen, deeper;
    dls_transformer_config c = small_llama();
    OK(dls_transformer_predict_memory(&c, 1, 16, DLS_F32, &frozen));
    open_small(&s, c, DLS_F32, 1, 16);
    OK(dls_gpu_memory_stats(0, &now));
    cr_assert_eq(now.current[DLS_MEM_GRADIENTS], 0);
    cr_assert_eq(now.current[DLS_MEM_ACTIVATIONS], frozen.activations);
    cr_assert_eq(dls_transformer_backward(s.model, 1, NULL), DLS_ERR_STATE);
    close_small(&s);
    cr_assert_eq(frozen.gradients, 0);
    c.layers++;
    OK(dls_transformer_predict_memory(&c, 1, 16, DLS_F32, &deeper));
    cr_assert_eq(deeper.activations - frozen.activations, 16 * c.channels * 4);
}
