/* tests/parallel/mesh_grid.h: from chapters/07-proof-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Proving a list of cases, or a sample of it. */
#ifndef DLS_TESTS_PARALLEL_MESH_GRID_H
#define DLS_TESTS_PARALLEL_MESH_GRID_H

#include "mesh_layout.h"

/* 1: DLS_GRID asks for all cases. */
int mesh_grid_full(void);

/* Keeps one of `every`, spread over all. */
void mesh_take_sample(mesh_cases *cases, int every);

/* Proves all cases of so many ranks; returns how many these are. */
int mesh_prove_world(const mesh_cases *cases, int world, mesh_form form);

/* Proves one of `every` cases that `make` lists for `from` to `to` ranks, or all of them,
 * and then tells how many they were, as a grid called `name`. */
void mesh_prove_range(dls_status (*make)(mesh_cases *out, int most), const char *name,
                      mesh_form form, int from, int to, int every);

#endif
