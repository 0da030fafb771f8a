/* tests/parallel/mesh_mutant.c: from chapters/07-proof-mutants.md. Edit the chapter, or edit here and run "make untangle". */
/* Spoiling a model. */
#include "mesh_mutant.h"

#include <string.h>

/* spoil the parameters */
static void spoil_parameter(mesh_mutant m, dls_param *p)
{
    if (m == MUTANT_SLICED_NORMS)
        p->partial = 0;
    for (int i = 0; i < p->pieces; i++) {
        if (m == MUTANT_KV_APART)
            p->piece[i].sharers = 1;
        if (m == MUTANT_VOCABULARY && strstr(p->name, "wte"))
            p->piece[i].begin++;
    }
    if (m == MUTANT_NORM_TWICE && p->pieces == 0) {
        p->pieces = 1;
        p->piece[0] = (dls_piece){0, p->shape[0], 0, 1};
    }
}

/* spoil a model */
dls_status mesh_mutant_spoil(mesh_mutant m, dls_transformer *t)
{
    for (int i = 0; m && i < t->params.n; i++)
        spoil_parameter(m, &t->params.items[i]);
    return DLS_OK;
}
