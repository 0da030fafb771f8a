/* tests/parallel/test_expert_layouts.c: from chapters/08-expert-proof-run.md. Edit the chapter, or edit here and run "make untangle". */
/* Every layout of experts against one device: a sample, or all of them. */
#include "mesh_grid.h"

/* prove the layouts of experts */
static void prove_worlds(mesh_form form, int from, int to, int every)
{
    mesh_prove_range(mesh_expert_cases_make, "experts", form, from, to, every);
}

/* test the layouts of experts */
#define PROVE(name, form, every_8, every_12, every_16)                                  \
    Test(expert_layouts, name##_to_8_ranks) { prove_worlds(form, 1, 8, every_8); }      \
    Test(expert_layouts, name##_to_12_ranks) { prove_worlds(form, 9, 12, every_12); }   \
    Test(expert_layouts, name##_to_16_ranks) { prove_worlds(form, 13, 16, every_16); }

PROVE(in_whole_numbers, MESH_EXACT, 17, 101, 101)
PROVE(in_double_precision, MESH_REAL, 17, 101, 101)
