/* tests/parallel/test_mesh_layouts.c: from chapters/07-proof-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Every layout against one device: a sample, or all of them. */
#include "mesh_grid.h"

/* test the layouts */

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
    if (!mesh_grid_full())
        mesh_take_sample(&cases, every);
    for (int world = from; world <= to; world++)
        proven += mesh_prove_world(&cases, world, form);
    cr_assert_gt(proven, 0);
    if (mesh_grid_full())
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
