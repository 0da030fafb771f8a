/* tests/layers/test_structure.c: from chapters/09-transformer-model-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Split backward, plan, hook, building, initial values. */
#include "fixture.h"

/* test the split backward */
Test(layers, split_backward_gives_the_same_bits)
{
    double grads[2][4096], dx[2][N * 8], y[N * 8];
    for (int split = 0; split < 2; split++) {
        fixture f;
        begin(&f);
        dls_layer *two[2];
        two[0] = small_block(&f.build, "a");
        two[1] = small_block(&f.build, "b");
        prepare(&f, dls_sequence(&f.build, two, 2), split);
        forward(&f, y);
        const dls_layer_kind *k = f.layer->kind;
        if (split) {
            OK(k->backward_input(f.layer, &f.pass, f.dx, f.dy, f.x, f.y));
            OK(k->backward_weight(f.layer, &f.pass, f.dy, f.x));
        } else {
            backward(&f);
        }
        OK(dls_ctx_sync(&f.ctx));
        get(grads[split], f.params.grads, f.params.elements * sizeof(double));
        get(dx[split], f.dx, sizeof dx[split]);
        end(&f);
    }
    cr_assert_arr_eq(grads[0], grads[1], sizeof grads[0] / 2);
    cr_assert_arr_eq(dx[0], dx[1], sizeof dx[0]);
}

Test(layers, late_weights_need_a_deferred_plan)
{
    double y[N * 8];
    fixture f;
    begin(&f);
    prepare(&f, small_block(&f.build, "a"), 0);
    forward(&f, y);
    cr_assert_eq(f.layer->kind->backward_weight(f.layer, &f.pass, f.dy, f.x),
                 DLS_ERR_STATE);
    end(&f);
}

/* test the block composed */
static dls_layer *composed_half(dls_build *b, dls_layer *norm, dls_layer *f)
{
    return dls_residual(b, dls_sequence(b, (dls_layer *[]){norm, f}, 2));
}

static dls_layer *composed_block(dls_build *b)
{
    dls_layer *part[3], *norm, *halves[2];
    norm = dls_layernorm(b, "ln1", 8);
    part[0] = dls_linear(b, "qkv", 8, 24, 1, 1);
    part[1] = dls_attention(b, "core", 2, 2, 4, 0);
    part[2] = dls_linear(b, "proj", 8, 8, 1, 1);
    halves[0] = composed_half(b, norm, dls_sequence(b, part, 3));
    norm = dls_layernorm(b, "ln2", 8);
    part[0] = dls_linear(b, "fc", 8, 32, 1, 1);
    part[1] = dls_gelu(b, 32);
    part[2] = dls_linear(b, "mlp", 32, 8, 1, 1);
    halves[1] = composed_half(b, norm, dls_sequence(b, part, 3));
    return dls_sequence(b, halves, 2);
}

Test(layers, a_block_is_residuals_of_sequences)
{
    double y[2][N * 8], dx[2][N * 8], grads[2][4096];
    size_t n = 0;
    for (int composed = 0; composed < 2; composed++) {
        fixture f;
        begin(&f);
        prepare(&f, composed ? composed_block(&f.build) : small_block(&f.build, "b"), 0);
        forward(&f, y[composed]);
        backward(&f);
        n = f.params.elements;
        get(dx[composed], f.dx, sizeof dx[0]);
        get(grads[composed], f.params.grads, n * sizeof(double));
        end(&f);
    }
    for (int i = 0; i < N * 8; i++) {
        cr_assert(fabs(y[0][i] - y[1][i]) < 1e-13 * (1 + fabs(y[0][i])));
        cr_assert(fabs(dx[0][i] - dx[1][i]) < 1e-13 * (1 + fabs(dx[0][i])));
    }
    for (size_t i = 0; i < n; i++)
        cr_assert(fabs(grads[0][i] - grads[1][i]) < 1e-13 * (1 + fabs(grads[0][i])));
}

/* test the plan */
static dls_plan plan_of_a_block(int deferred)
{
    dls_params params = {0};
    dls_build b = {.params = &params};
    dls_transformer_config c = dls_transformer_gpt2(2, 32, 1, 4, 64);
    dls_layer *block = dls_block(&b, "a", &c, 1, 1);
    dls_plan plan = {.max_B = 4, .max_T = 32, .dtype = DLS_F64, .deferred = deferred};
    OK(b.status);
    dls_layer_plan(block, &plan);
    dls_build_free(&b);
    dls_params_free(&params);
    return plan;
}

Test(layers, plan_is_the_sum_of_the_table)
{
    size_t rows = 8 * 4 * 32, NC = rows * 64, delta = 4 * rows;
    size_t kept = 4 * rows + 4 * rows;  // the norms' statistics, the log-sum-exp
    dls_plan plan = plan_of_a_block(0);
    cr_assert_eq(plan.stash + plan.early, 15 * NC + kept);
    cr_assert_eq(plan.early, 8 * NC + 4 * rows); // q, k, v; stream; before GELU; sums
    cr_assert_eq(plan.gradients, 6 * NC);
    cr_assert_eq(plan.temporary, delta);
    plan = plan_of_a_block(1);
    cr_assert_eq(plan.stash + plan.early, 15 * NC + kept);
    cr_assert_eq(plan.gradients, 8 * NC); // of qkv, the stream, before GELU
    cr_assert_eq(plan.scratch, 3 * NC);   // a branch, a norm's and attention's output
}

/* test the hook */
static dls_status note_index(void *self, int index)
{
    int *calls = self;
    calls[index]++;
    calls[10] = index;          // the last one
    return DLS_OK;
}

Test(layers, hook_waits_for_the_last_addition)
{
    int calls[11] = {0};
    double y[N];
    fixture f;
    begin(&f);
    dls_layer *list[3];
    list[0] = dls_embedding(&f.build, 5, T, 4, 1);
    list[1] = dls_linear(&f.build, "l", 4, 4, 1, 1);
    list[2] = dls_tied_head(&f.build, list[0]);
    prepare(&f, dls_sequence(&f.build, list, 3), 0);
    dls_grad_hook hook = {calls, note_index};
    f.pass.hook = &hook;
    for (int i = 0; i < f.params.n; i++)
        f.pending[i] = f.params.items[i].uses;
    forward(&f, y);
    backward(&f);
    for (int i = 0; i < f.params.n; i++)
        cr_assert_eq(calls[i], 1, "%s: %d calls", f.params.items[i].name, calls[i]);
    cr_assert_str_eq(f.params.items[calls[10]].name, "wte.weight");
    end(&f);
}

/* test building mistakes */
Test(layers, mistakes_in_building_are_told)
{
    dls_params params = {0};
    dls_build b = {.params = &params};
    dls_layer *two[2];
    two[0] = dls_linear(&b, "a", 3, 4, 1, 1);
    two[1] = dls_linear(&b, "b", 5, 6, 1, 1);
    cr_assert_null(dls_sequence(&b, two, 2));
    cr_assert_str_eq(dls_status_message(),
                     "linear gives 4 columns, linear behind it takes 5");
    cr_assert_null(dls_gelu(&b, 4), "the first failure sticks");
    b.status = DLS_OK;
    cr_assert_null(dls_residual(&b, two[0]));
    b.status = DLS_OK;
    dls_linear(&b, "a", 3, 4, 1, 1);
    cr_assert_str_eq(dls_status_message(), "parameter a.weight is registered twice");
    b.status = DLS_OK;
    char name[200] = {[0 ... 198] = 'x'};
    dls_linear(&b, name, 3, 4, 1, 1);
    cr_assert_eq(b.status, DLS_ERR_INPUT);
    dls_build_free(&b);
    dls_params_free(&params);
}

/* test initial values */
static void initial_values(dls_dtype dtype, int alone, void *out)
{
    dls_ctx ctx = {0};
    dls_params params = {0};
    dls_build b = {.params = &params};
    OK(dls_ctx_create(&ctx, 0, dtype));
    if (!alone)
        dls_linear(&b, "before", 3, 5, 1, 1);
    dls_linear(&b, "it", 6, 4, 1, 0.5);
    OK(b.status);
    OK(dls_params_allocate(&params, &ctx));
    OK(dls_params_initialise(&params, 7));
    get(out, dls_params_find(&params, "it.weight")->value, 24 * dls_dtype_size(dtype));
    dls_build_free(&b);
    dls_params_free(&params);
    dls_ctx_destroy(&ctx);
}

Test(layers, initial_values_depend_on_the_name_alone)
{
    double wide[2][24];
    float narrow[24];
    initial_values(DLS_F64, 0, wide[0]);
    initial_values(DLS_F64, 1, wide[1]);
    initial_values(DLS_F32, 0, narrow);
    cr_assert_arr_eq(wide[0], wide[1], sizeof wide[0]);
    for (int i = 0; i < 24; i++)
        cr_assert_eq(narrow[i], (float)wide[0][i]);
    cr_assert_neq(wide[0][0], wide[0][1]);
}
/* (6, 4) whole against a part of it: the number of runs, all values compared. */
static int compare_part(dls_param story)
{
    dls_params whole = {.dtype = DLS_F64}, part = {.dtype = DLS_F64};
    double all[24], mine[24];
    int index, runs = 0;
    story.name[0] = 'w';
    story.ndim = 2, story.shape[0] = 6, story.shape[1] = 4;
    story.init = DLS_INIT_NORMAL, story.init_scale = 1;
    OK(dls_params_add(&part, &story, &index));
    story.pieces = 0;
    OK(dls_params_add(&whole, &story, &index));
    dls_params_fill(&whole, 7, all);
    dls_params_fill(&part, 7, mine);
    cr_assert_eq(dls_param_whole(part.items), 24);
    for (size_t i = 0, run; i < part.items[0].count; i += run, runs++)
        for (size_t k = dls_param_global(part.items, i, &run, NULL), j = 0; j < run; j++)
            cr_assert_eq(mine[i + j], all[k + j]);
    dls_params_free(&whole);
    dls_params_free(&part);
    return runs;
}

Test(layers, a_part_starts_with_the_values_of_the_whole)
{
    dls_param rows = {.cut = 0, .pieces = 3, .piece = {{1, 1}, {3, 1}, {4, 2}}};
    dls_param columns = {.cut = 1, .pieces = 2, .piece = {{0, 1}, {2, 2}}};
    cr_assert_eq(compare_part(rows), 3);
    cr_assert_eq(compare_part(columns), 12);
    cr_assert_eq(dls_param_global(&(dls_param){.ndim = 2, .shape = {6, 4}, .cut = 1,
        .pieces = 1, .piece = {{2, 2}}, .count = 12}, 5, NULL, NULL), 11);
    cr_assert_eq(compare_part((dls_param){0}), 1);
}
