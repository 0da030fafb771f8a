/* tests/parallel/test_dualpipe_experts.c: from chapters/08-dualpipe-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* DualPipe and DualPipeV over ranks that share experts, against one device. */
#include "mesh_grid.h"

/* make a case of dualpipe */
typedef struct dual_case {
    const char *schedule;
    int pp, dp, ep, layers, microbatches, attempt;
} dual_case;

static mesh_case case_of(const dual_case *d)
{
    mesh_case c;
    const int size[DLS_AXES] = {[DLS_AXIS_TP] = 1, [DLS_AXIS_CP] = 1,
                                [DLS_AXIS_PP] = d->pp, [DLS_AXIS_DP] = d->dp};
    mesh_case_draw(&c, size, d->attempt % 2, d->attempt);
    c.schedule = d->schedule;
    c.chunks = strcmp(d->schedule, "dualpipev") ? 1 : 2;
    c.microbatches = d->microbatches;
    c.layers = d->layers;
    c.micro = 1;
    c.zero = d->attempt % 3 == 2 ? 1 : 0;
    c.rows = d->dp * d->microbatches - (d->dp > 1);
    mesh_case_draw_experts(&c, d->ep, 1, d->attempt);
    return c;
}

/* test dualpipe with experts */
static void expect_dual_experts(const dual_case *d, int n)
{
    for (int i = 0; i < n; i++)
        for (mesh_form form = MESH_EXACT; form <= MESH_REAL; form++) {
            mesh_proof p = {.c = case_of(&d[i]), .form = form, .clip = i % 2 ? 8 : 0};
            mesh_proofs proofs = {&p, 1, NULL};
            cr_assert_eq(mesh_case_check(&p.c), DLS_OK, "%s", dls_status_message());
            cr_assert_eq(mesh_proofs_open(&proofs), DLS_OK, "%s", dls_status_message());
            expect_ranks(d[i].pp * d[i].dp, mesh_prove, &proofs);
            mesh_proofs_close(&proofs);
        }
}

Test(pairs_with_experts, on_two_ranks_times_two_and_four)
{
    static const dual_case cases[] = {{"dualpipe", 2, 2, 2, 3, 6, 0},
                                      {"dualpipe", 2, 4, 4, 2, 4, 1},
                                      {"dualpipe", 2, 2, 1, 3, 4, 2},
                                      {"dualpipev", 2, 2, 2, 4, 5, 3}};
    expect_dual_experts(cases, 4);
}

Test(pairs_with_experts, on_four_ranks_times_two)
{
    static const dual_case cases[] = {{"dualpipe", 4, 2, 2, 5, 8, 4},
                                      {"dualpipev", 4, 2, 2, 6, 8, 5}};
    expect_dual_experts(cases, 2);
}

Test(pairs_with_experts, on_eight_ranks_with_twenty_micro_batches)
{
    static const dual_case cases[] = {{"dualpipe", 8, 1, 1, 9, 20, 6}};
    expect_dual_experts(cases, 1);
}
