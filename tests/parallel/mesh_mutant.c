/* tests/parallel/mesh_mutant.c: from chapters/07-proof-mutants.md. Edit the chapter, or edit here and run "make untangle". */
/* Spoiling a model. */
#include "mesh_mutant.h"

#include <string.h>

#include "kernels/kernels.h"

/* spoil the parameters */
static void spoil_parameter(mesh_mutant m, dls_param *p)
{
    if (m == MUTANT_SLICED_NORMS)
        p->partial = 0;
    for (int i = 0; i < p->pieces && m == MUTANT_KV_APART; i++)
        p->piece[i].sharers = 1;
    if (m == MUTANT_NORM_TWICE && p->pieces == 0) {
        p->pieces = 1;
        p->piece[0] = (dls_piece){0, p->shape[0], 0, 1};
    }
}

/* add a bias too often */
static const dls_layer_kind *right;
static dls_layer_kind biased;

static dls_status too_often(const dls_layer *l, dls_pass *p, void *y, const void *x)
{
    DLS_TRY(right->forward(l, p, y, x));
    for (int i = 1; y && i < p->axes->sharding.tensor; i++)
        DLS_TRY(dls_bias_add(p->ctx, y, dls_pass_value(p, l->bias), dls_pass_rows(l, p),
                             l->out));
    return DLS_OK;
}

static void spoil_row_product(dls_layer *l)
{
    right = l->kind;
    biased = *right;
    biased.forward = too_often;
    l->kind = &biased;
}

/* spoil a model */
static void spoil_layer(mesh_mutant m, dls_layer *l)
{
    if (m == MUTANT_BIAS && strcmp(l->kind->name, "row linear") == 0 && l->bias >= 0
        && l->kind != &biased)
        spoil_row_product(l);
    if (m == MUTANT_VOCABULARY && l->cut && l->vocabulary)
        l->first++;
}

dls_status mesh_mutant_spoil(mesh_mutant m, dls_transformer *t)
{
    for (int i = 0; m && i < t->params.n; i++)
        spoil_parameter(m, &t->params.items[i]);
    for (dls_layer *l = t->build.all; m && l; l = l->next)
        spoil_layer(m, l);
    mesh_mutant_spoil_experts(m, t);
    return DLS_OK;
}
