/* tests/parallel/test_mesh_layouts.c: from chapters/07-proof-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Every layout against one device: a sample, or all of them. */
#include "mesh_layout.h"

/* prove a list of cases */
enum { AT_ONCE = 3 };   // a rank may be in 32 communicators, a case needs up to nine

static int is_full(void)
{
    const char *grid = getenv("DLS_GRID");
    cr_assert(!grid || strcmp(grid, "full") == 0, "DLS_GRID=%s: expected full", grid);
    return grid != NULL;
}

/* The next few cases of so many ranks, from *at on, in one world. Returns how many. */
static int prove_some(const mesh_cases *cases, int world, mesh_form form, int *at)
{
    mesh_proof list[AT_ONCE];
    mesh_proofs proofs = {list, 0, world > 8 ? test_cluster(2, 8) : NULL};
    for (; *at < cases->n && proofs.n < AT_ONCE; ++*at)
        if (dls_mesh_world(&cases->list[*at].mesh) == world)
            list[proofs.n++] = (mesh_proof){.c = cases->list[*at], .form = form,
                                            .clip = *at % 3 ? 8 : 0};
    cr_assert_eq(mesh_proofs_open(&proofs), DLS_OK, "%s", dls_status_message());
    if (proofs.n)
        expect_ranks(world, mesh_prove, &proofs);
    mesh_proofs_close(&proofs);
    return proofs.n;
}

static int prove_world(const mesh_cases *cases, int world, mesh_form form)
{
    int n = 0;
    for (int at = 0; at < cases->n;)
        n += prove_some(cases, world, form, &at);
    return n;
}

/* test the layouts */
/* Keeps one of `every`, of at most so many ranks. */
static void take_sample(mesh_cases *cases, int most, int every)
{
    int n = 0;
    for (int i = 0; i < cases->n; i++)
        if (i % every == every / 2 && dls_mesh_world(&cases->list[i].mesh) <= most)
            cases->list[n++] = cases->list[i];
    cases->n = n;
}

static void prove_all(mesh_form form, int most, int every)
{
    mesh_cases cases;
    int proven = 0;
    cr_assert_eq(mesh_cases_make(&cases, 16), DLS_OK, "%s", dls_status_message());
    if (!is_full())
        take_sample(&cases, most, every);
    for (int world = 1; world <= MESH_MOST; world++)
        proven += prove_world(&cases, world, form);
    if (is_full())
        printf("grid: layouts, %s: %d proven, %d refused\n", mesh_form_names[form],
               proven, cases.refused);
    fflush(stdout);
    mesh_cases_free(&cases);
}

Test(mesh_layouts, exact)
{
    prove_all(MESH_EXACT, 8, 5);
}

Test(mesh_layouts, real)
{
    prove_all(MESH_REAL, 8, 5);
}
