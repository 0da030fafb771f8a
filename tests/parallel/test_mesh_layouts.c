/* tests/parallel/test_mesh_layouts.c: from chapters/07-proof-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Every layout against one device: a sample, or all of them. */
#include "mesh_grid.h"

/* test the layouts */
static void prove_worlds(mesh_form form, int from, int to, int every)
{
    mesh_prove_range(mesh_cases_make, "layouts", form, from, to, every);
}

/* A sample has one of `every` cases. */
#define PROVE(name, form, every_8, every_12, every_16)                                 \
    Test(mesh_layouts, name##_to_8_ranks) { prove_worlds(form, 1, 8, every_8); }       \
    Test(mesh_layouts, name##_to_12_ranks) { prove_worlds(form, 9, 12, every_12); }    \
    Test(mesh_layouts, name##_to_16_ranks) { prove_worlds(form, 13, 16, every_16); }

PROVE(in_whole_numbers, MESH_EXACT, 5, 41, 41)
PROVE(in_double_precision, MESH_REAL, 5, 41, 41)
PROVE(twenty_steps_in_float, MESH_SINGLE, 13, 101, 101)
