/* tests/parallel/test_mesh_layouts.c: from chapters/07-proof-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Every layout against one device: a sample, or all of them. */
#include "mesh_layout.h"

/* prove a list of cases */
static int is_full(void)
{
    const char *grid = getenv("DLS_GRID");
    cr_assert(!grid || strcmp(grid, "full") == 0, "DLS_GRID=%s: expected full", grid);
    return grid != NULL;
}

/* All cases with so many ranks, in one world. Returns how many. */
static int prove_world(const mesh_cases *cases, int world, mesh_form form, int every)
{
    mesh_proofs proofs = {calloc((size_t)cases->n, sizeof(mesh_proof)), 0,
                          world > 8 ? test_cluster(2, 8) : NULL};
    for (int i = 0; i < cases->n; i++)
        if (dls_mesh_world(&cases->list[i].mesh) == world && i % every == 0
            && cases->list[i].mesh.size[0] <= (getenv("XT") ? atoi(getenv("XT")) : 1)
            && cases->list[i].mesh.size[1] <= (getenv("XC") ? atoi(getenv("XC")) : 1))
            proofs.list[proofs.n++] = (mesh_proof){
                .c = cases->list[i], .form = form, .clip = i % 3 ? 8 : 0};
    cr_assert_eq(mesh_proofs_open(&proofs), DLS_OK, "%s", dls_status_message());
    int n = proofs.n;
    if (n)
        expect_ranks(world, mesh_prove, &proofs);
    mesh_proofs_close(&proofs);
    free(proofs.list);
    return n;
}

/* test the layouts */
static void prove_all(mesh_form form, int most, int every)
{
    mesh_cases cases;
    int proven = 0;
    cr_assert_eq(mesh_cases_make(&cases, 16), DLS_OK, "%s", dls_status_message());
    for (int world = 1; world <= (is_full() ? 16 : most); world++)
        proven += prove_world(&cases, world, form, is_full() ? 1 : every);
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
