/* tests/parallel/test_exact_layers.c: from chapters/07-proof-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The exact model is exact: within its bounds, the same in f32 and in f64, and alive. */
#include "exact_layers.h"
#include "mesh_layout.h"

/* test the bounds of the exact model */
typedef dls_status list_maker(mesh_cases *out, int most);

static void expect_within_the_bounds(list_maker *make, int n)
{
    mesh_cases cases;
    cr_assert_eq(make(&cases, MESH_MOST), DLS_OK, "%s", dls_status_message());
    for (int i = 0; i < cases.n; i++) {
        const mesh_case *c = &cases.list[i];
        dls_transformer_config m = mesh_case_config(c, 1);
        cr_assert_leq(c->rows * c->T, EXACT_MOST_TOKENS, "case %d", i);
        cr_assert_leq(c->T, EXACT_MOST_T, "case %d", i);
        cr_assert_leq(c->layers, EXACT_MOST_BLOCKS, "case %d", i);
        cr_assert_leq(m.hidden, EXACT_MOST_HIDDEN, "case %d", i);
        cr_assert_leq(m.heads * m.head_size, EXACT_MOST_HEADS, "case %d", i);
        cr_assert_leq(m.moe.experts * m.moe.hidden, EXACT_MOST_EXPERTS, "case %d", i);
        cr_assert_leq(m.moe.hidden * m.moe.shared, EXACT_MOST_HIDDEN, "case %d", i);
        cr_assert_leq(m.moe.chosen, 3, "case %d", i);
    }
    cr_assert_eq(cases.n, n);
    mesh_cases_free(&cases);
}

Test(exact_layers, all_cases_are_within_the_bounds)
{
    expect_within_the_bounds(mesh_cases_make, 408);
    expect_within_the_bounds(mesh_expert_cases_make, 1213);
}

/* test that whole numbers are exact */
typedef struct findings { double most; size_t n, zeros, odd; } findings;

static void look(findings *f, const double *narrow, const double *wide, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cr_assert_eq(narrow[i], wide[i], "number %zu: %.17g and %.17g", i, narrow[i],
                     wide[i]);
        cr_assert_eq(2 * narrow[i], floor(2 * narrow[i])); // losses are halves
        f->most = fmax(f->most, fabs(narrow[i]));
        f->zeros += narrow[i] == 0;
        f->n++;
    }
}

/* One step of a case on one device, in both types. */
static void look_at_case(findings *f, const mesh_case *c)
{
    mesh_proof both[] = {{.c = *c, .form = MESH_EXACT}, {.c = *c, .form = MESH_WIDE}};
    mesh_proofs proofs = {both, 2, NULL};
    const mesh_truth *narrow = &both[0].truth, *wide = &both[1].truth;
    cr_assert_eq(mesh_proofs_open(&proofs), DLS_OK, "%s", dls_status_message());
    for (int i = 0; i < 2; i++)
        cr_assert_eq(mesh_truth_compute(&both[i]), DLS_OK, "%s", dls_status_message());
    look(f, narrow->grads, wide->grads, narrow->elements);
    look(f, narrow->losses, wide->losses, narrow->tokens);
    cr_assert_eq(*narrow->norm, *wide->norm);
    cr_assert_lt(*narrow->norm * *narrow->norm, 0x1p53);
    mesh_proofs_close(&proofs);
}

static void expect_exact(list_maker *make, int every, double zeros)
{
    mesh_cases cases;
    findings f = {0};
    cr_assert_eq(make(&cases, MESH_MOST), DLS_OK, "%s", dls_status_message());
    for (int i = 0; i < cases.n; i += every)
        look_at_case(&f, &cases.list[i]);
    cr_expect_lt(f.zeros, zeros * f.n, "%zu of %zu numbers are zero", f.zeros, f.n);
    cr_expect_lt(f.most, 1 << 20, "the largest number is %g", f.most);
    mesh_cases_free(&cases);
}

Test(exact_layers, whole_numbers_are_exact_and_alive)
{
    expect_exact(mesh_cases_make, 8, 0.5);
    expect_exact(mesh_expert_cases_make, 19, 0.6);
}
