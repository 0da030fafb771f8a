/* tests/parallel/test_mesh_mutants.c: from chapters/07-proof-mutants.md. Edit the chapter, or edit here and run "make untangle". */
/* The proof of layouts finds what is wrong, and nothing where nothing is. */
#include "mesh_layout.h"

/* list the faults */
typedef struct fault {
    mesh_mutant mutant;
    int tp, cp, pp, llama, split_rows, kv_heads, dp;
    const char *found[3];   // exact, real, 20 steps of losses; NULL: not at all
} fault;

static const fault faults[] = {
    {MUTANT_BIAS, 2, 1, 1, 0, 0, 4, 1, {"1: loss", "2: loss", "2: loss"}},
    {MUTANT_SLICED_NORMS, 2, 1, 1, 0, 1, 4, 1, {"gradient", "gradient", "loss of"}},
    {MUTANT_KV_APART, 2, 1, 1, 1, 0, 1, 1, {"gradient", "gradient", "loss of"}},
    {MUTANT_SCALE, 1, 2, 1, 0, 0, 4, 1, {"gradient", "gradient", NULL}},
    {MUTANT_NORM_TWICE, 2, 1, 1, 0, 0, 4, 1, {"norm", "norm", NULL}},
    {MUTANT_POSITIONS, 1, 2, 1, 0, 0, 4, 1, {"loss of", "loss of", "step 1: loss"}},
    {MUTANT_POSITIONS, 1, 2, 1, 1, 0, 4, 1, {"loss of", "loss of", "step 1: loss"}},
    {MUTANT_VOCABULARY, 2, 1, 1, 0, 0, 4, 1, {"loss of", "loss of", "step 1: loss"}},
    {MUTANT_DATA_WITHOUT_CP, 1, 2, 1, 0, 0, 4, 2, {"gradient", "gradient", "loss of"}},
    {MUTANT_TABLE_APART, 1, 1, 2, 0, 0, 4, 1, {"gradient", "gradient", "loss of"}}};

/* run a fault */
static mesh_case case_of(const fault *f)
{
    mesh_case c = {.mesh = {.ep = 1, .etp = 1}, .llama = f->llama, .heads = 4,
                   .kv_heads = f->llama ? f->kv_heads : 4, .layers = 2, .T = 8,
                   .split_rows = f->split_rows, .overlap = 1, .microbatches = 2,
                   .rows = 3, .micro = 2, .schedule = f->pp > 1 ? "1f1b" : NULL,
                   .chunks = f->pp > 1};
    const int size[DLS_AXES] = {f->tp, f->cp, f->pp, f->dp};
    const dls_axis order[] = {DLS_AXIS_TP, DLS_AXIS_CP, DLS_AXIS_PP, DLS_AXIS_DP};
    memcpy(c.mesh.size, size, sizeof size);
    memcpy(c.mesh.order, order, sizeof order);
    return c;
}

/* One proof in a world of its own; what it says. */
static dls_status run(const fault *f, mesh_mutant mutant, mesh_form form, double clip)
{
    mesh_proof p = {.c = case_of(f), .form = form, .clip = clip, .mutant = mutant};
    mesh_proofs proofs = {&p, 1, NULL};
    cr_assert_eq(mesh_proofs_open(&proofs), DLS_OK, "%s", dls_status_message());
    dls_status s = test_run_ranks(dls_mesh_world(&p.c.mesh), mesh_prove, &proofs);
    mesh_proofs_close(&proofs);
    return s;
}

/* test the faults */
static void expect_found(const fault *f, mesh_form form)
{
    const char *want = f->found[form];
    dls_status s = run(f, f->mutant, form, 0);
    if (!want)
        cr_assert_eq(s, DLS_OK, "fault %d, %s: %s", f->mutant, mesh_form_names[form],
                     dls_status_message());
    else
        cr_assert(s == DLS_ERR_STATE && strstr(dls_status_message(), want),
                  "fault %d, %s: %s", f->mutant, mesh_form_names[form],
                  s == DLS_OK ? "not found" : dls_status_message());
    cr_assert_eq(run(f, MUTANT_NONE, form, 0), DLS_OK, "%s", dls_status_message());
}

static void expect_all(mesh_form form)
{
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        expect_found(&faults[i], form);
}

Test(mesh_mutants, in_whole_numbers) { expect_all(MESH_EXACT); }
Test(mesh_mutants, in_double_precision) { expect_all(MESH_REAL); }
Test(mesh_mutants, in_twenty_losses) { expect_all(MESH_SINGLE); }
