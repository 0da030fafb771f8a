/* tests/parallel/mesh_grid.c: from chapters/07-proof-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* World after world, a few cases at a time. */
#include "mesh_grid.h"

/* prove a list of cases */
enum { AT_ONCE = 3 };   // a rank may be in 32 communicators, a case needs up to nine,
                        // and one with experts up to 15

int mesh_grid_full(void)
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
    int most = cases->list[0].moe.experts > 0 ? AT_ONCE - 1 : AT_ONCE;
    for (; *at < cases->n && proofs.n < most; ++*at)
        if (dls_mesh_world(&cases->list[*at].mesh) == world)
            list[proofs.n++] = (mesh_proof){.c = cases->list[*at], .form = form,
                                            .clip = *at % 3 ? 8 : 0};
    cr_assert_eq(mesh_proofs_open(&proofs), DLS_OK, "%s", dls_status_message());
    if (proofs.n)
        expect_ranks(world, mesh_prove, &proofs);
    mesh_proofs_close(&proofs);
    return proofs.n;
}

int mesh_prove_world(const mesh_cases *cases, int world, mesh_form form)
{
    int n = 0;
    for (int at = 0; at < cases->n;)
        n += prove_some(cases, world, form, &at);
    return n;
}

/* take a sample of cases */
void mesh_take_sample(mesh_cases *cases, int every)
{
    int n = 0;
    for (int i = every / 2; i < cases->n; i += every)
        cases->list[n++] = cases->list[i];
    cases->n = n;
}

/* prove a range of worlds */
/* Refusals are told once. */
static void tell(const mesh_cases *cases, const char *name, mesh_form form, int from,
                 int to, int proven)
{
    int once = form == MESH_EXACT && from == 1;
    printf("grid: %s-%s-%d-%d: %d proven, %d refused\n", name, mesh_form_names[form],
           from, to, proven, once ? cases->refused : 0);
    for (int i = 0; once && cases->because[i]; i++)
        printf("grid: %d draws refused for %s\n", cases->because[i], cases->field[i]);
    if (once)
        printf("grid: %d pairs of choices occur\n", cases->pairs);
    fflush(stdout);
}

void mesh_prove_range(dls_status (*make)(mesh_cases *out, int most), const char *name,
                      mesh_form form, int from, int to, int every)
{
    mesh_cases cases;
    int proven = 0;
    cr_assert_eq(make(&cases, MESH_MOST), DLS_OK, "%s", dls_status_message());
    if (!mesh_grid_full())
        mesh_take_sample(&cases, every);
    for (int world = from; world <= to; world++)
        proven += mesh_prove_world(&cases, world, form);
    cr_assert_gt(proven, 0);
    if (mesh_grid_full())
        tell(&cases, name, form, from, to, proven);
    mesh_cases_free(&cases);
}
