/* tests/parallel/test_expert_mutants.c: from chapters/08-expert-proof-mutants.md. Edit the chapter, or edit here and run "make untangle". */
/* The proof finds what is wrong with experts, which a look at losses does not. */
#include "mesh_layout.h"

/* list the faults of experts */
typedef struct fault {
    mesh_mutant mutant;
    const char *name;
    int tp, dp, ep, rows;
    double capacity;
    const char *found[2];   // exact, real
    double most;            // the losses of 20 steps differ by less, on the mean
} fault;

static const fault faults[] = {
    {MUTANT_EXPERTS_OVER_DATA, "experts over data", 1, 2, 2, 4, 0,
     {"gradient", "gradient"}, 2e-3},
    {MUTANT_EXPERTS_TIMES_EP, "experts times ep", 1, 2, 2, 4, 0,
     {"gradient", "gradient"}, 1e-5},
    {MUTANT_ROUTER_APART, "router apart", 2, 1, 2, 4, 0, {"gradient", "gradient"}, 2e-4},
    {MUTANT_SHARED_TIMES_TP, "shared times tp", 2, 1, 2, 4, 0,
     {"gradient", "gradient"}, 1e-6},
    {MUTANT_COMBINE, "combine", 1, 2, 2, 4, 0, {"loss of", "loss of"}, 2e-3},
    {MUTANT_WEIGHTS_TWICE, "weights twice", 1, 2, 2, 4, 0, {"loss of", "loss of"}, 2e-3},
    {MUTANT_WEIGHTS_FORWARD, "weights forward", 1, 2, 2, 4, 0,
     {"gradient", "gradient"}, 1e-4},
    {MUTANT_SEQUENCE_LOSS, "sequence loss", 1, 2, 2, 4, 0,
     {"gradient", "gradient"}, 5e-4},
    {MUTANT_LOADS_APART, "loads apart", 1, 2, 2, 4, 0, {"load", "load"}, 5e-4},
    {MUTANT_NORM_OWN, "norm of own", 1, 2, 2, 4, 0, {"norm", "norm"}, 1e-12},
    {MUTANT_DROPS_BY_RANK, "drops by rank", 2, 1, 2, 4, 0.5,
     {"loss of", "loss of"}, 2e-4},
    {MUTANT_NO_EMPTY_PASS, "no empty pass", 1, 2, 2, 1, 0, {"rank", "rank"}, 0}};

/* run a fault of experts */
static mesh_case case_of(const fault *f)
{
    mesh_case c = {.mesh = {.size = {f->tp, 1, 1, f->dp}, .ep = f->ep, .etp = 1,
                            .order = {DLS_AXIS_TP, DLS_AXIS_CP, DLS_AXIS_PP,
                                      DLS_AXIS_DP}},
                   .llama = 1, .untied = 1, .heads = 4, .kv_heads = 4, .layers = 2,
                   .T = 4, .overlap = 1, .microbatches = 2, .rows = f->rows, .micro = 1};
    c.moe = (dls_moe){.experts = 4, .chosen = 2, .hidden = 5, .shared = 1,
                      .normalised = 1, .capacity = f->capacity, .aux_sequence = 0.125,
                      .bias_rate = 0.125};
    return c;
}

/* *drift: of the mean loss over all steps, against one device; NULL: nobody asks. */
static dls_status run(const fault *f, mesh_mutant mutant, mesh_form form, double *drift)
{
    mesh_proof p = {.c = case_of(f), .form = form, .mutant = mutant};
    mesh_proofs proofs = {&p, 1, NULL};
    cr_assert_eq(mesh_proofs_open(&proofs), DLS_OK, "%s", dls_status_message());
    dls_status s = test_run_ranks(dls_mesh_world(&p.c.mesh), mesh_prove, &proofs);
    double is = 0, should = 0;
    for (size_t i = 0; drift && i < p.truth.tokens * mesh_proof_steps(&p); i++) {
        is += p.truth.shown[i];
        should += p.truth.losses[i];
    }
    if (drift)
        *drift = (is - should) / should;
    mesh_proofs_close(&proofs);
    return s;
}

/* test the faults of experts */
static void expect_found(const fault *f, mesh_form form)
{
    dls_status s = run(f, f->mutant, form, NULL);
    cr_expect(s != DLS_OK && strstr(dls_status_message(), f->found[form]), "%s, %s: %s",
              f->name, mesh_form_names[form],
              s == DLS_OK ? "not found" : dls_status_message());
    cr_expect_eq(run(f, MUTANT_NONE, form, NULL), DLS_OK, "%s: %s", f->name,
                 dls_status_message());
}

static void expect_all(mesh_form form)
{
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        expect_found(&faults[i], form);
}

Test(expert_mutants, in_whole_numbers) { expect_all(MESH_EXACT); }
Test(expert_mutants, in_double_precision) { expect_all(MESH_REAL); }

/* test what losses tell */
Test(expert_mutants, in_the_mean_of_twenty_losses)
{
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        const fault *f = &faults[i];
        double drift;
        if (f->mutant == MUTANT_NO_EMPTY_PASS)
            continue;           // it waits for ever, or says so
        cr_assert_eq(run(f, f->mutant, MESH_DRIFT, &drift), DLS_OK, "%s: %s", f->name,
                     dls_status_message());
        cr_expect_lt(fabs(drift), f->most, "%s: %g", f->name, drift);
    }
}
