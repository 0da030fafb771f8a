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
/* Keeps one of `every`, spread over all. */
static void take_sample(mesh_cases *cases, int every)
{
    int n = 0;
    for (int i = every / 2; i < cases->n; i += every)
        cases->list[n++] = cases->list[i];
    cases->n = n;
}

/* Refusals are told once. */
static void tell(const mesh_cases *cases, mesh_form form, int from, int to, int proven)
{
    int once = form == MESH_EXACT && from == 1;
    printf("grid: layouts-%s-%d-%d: %d proven, %d refused\n", mesh_form_names[form],
           from, to, proven, once ? cases->refused : 0);
    for (int i = 0; once && cases->because[i]; i++)
        printf("grid: %d draws refused for %s\n", cases->because[i], cases->field[i]);
    if (once)
        printf("grid: %d pairs of choices occur\n", cases->pairs);
    fflush(stdout);
}

/* All worlds of `from` to `to` ranks. */
static void prove_worlds(mesh_form form, int from, int to, int every)
{
    mesh_cases cases;
    int proven = 0;
    cr_assert_eq(mesh_cases_make(&cases, MESH_MOST), DLS_OK, "%s", dls_status_message());
    if (!is_full())
        take_sample(&cases, every);
    for (int world = from; world <= to; world++)
        proven += prove_world(&cases, world, form);
    cr_assert_gt(proven, 0);
    if (is_full())
        tell(&cases, form, from, to, proven);
    mesh_cases_free(&cases);
}

/* A sample has one of `every` cases. */
#define PROVE(name, form, every_8, every_12, every_16)                                 \
    Test(mesh_layouts, name##_to_8_ranks) { prove_worlds(form, 1, 8, every_8); }       \
    Test(mesh_layouts, name##_to_12_ranks) { prove_worlds(form, 9, 12, every_12); }    \
    Test(mesh_layouts, name##_to_16_ranks) { prove_worlds(form, 13, 16, every_16); }

PROVE(in_whole_numbers, MESH_EXACT, 5, 41, 41)
PROVE(in_double_precision, MESH_REAL, 5, 41, 41)
PROVE(twenty_steps_in_float, MESH_SINGLE, 13, 101, 101)
