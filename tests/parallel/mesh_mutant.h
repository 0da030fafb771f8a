/* tests/parallel/mesh_mutant.h: from chapters/07-proof-mutants.md. Edit the chapter, or edit here and run "make untangle". */
/* Faults that a proof must find. */
#ifndef DLS_TESTS_PARALLEL_MESH_MUTANT_H
#define DLS_TESTS_PARALLEL_MESH_MUTANT_H

#include "model/transformer.h"

/* name the faults */
typedef enum mesh_mutant {
    MUTANT_NONE,
    MUTANT_BIAS,            // added by every rank, before the sum
    MUTANT_SLICED_NORMS,    // their gradients are not summed over the slices of rows
    MUTANT_KV_APART,        // shared key heads are not summed
    MUTANT_SCALE,           // the loss is a mean over a rank's own tokens
    MUTANT_NORM_TWICE,      // every rank of the tensor axis counts what all have
    MUTANT_POSITIONS,       // a rank counts its tokens from 0
    MUTANT_VOCABULARY,      // a band begins one token later
    MUTANT_DATA_WITHOUT_CP, // gradients are summed over replicas alone
    MUTANT_TABLE_APART,     // first and last stage keep their own gradients
    MUTANT_EXPERTS_OVER_DATA,   // from here on: of experts, see expert_mutant.c
    MUTANT_EXPERTS_TIMES_EP,
    MUTANT_ROUTER_APART,
    MUTANT_SHARED_TIMES_TP,
    MUTANT_COMBINE,
    MUTANT_WEIGHTS_TWICE,
    MUTANT_WEIGHTS_FORWARD,
    MUTANT_SEQUENCE_LOSS,
    MUTANT_LOADS_APART,
    MUTANT_NORM_OWN,
    MUTANT_DROPS_BY_RANK,
    MUTANT_NO_EMPTY_PASS,
    MUTANTS
} mesh_mutant;

/* Puts the fault, if it is one of a model, into a model that is made. */
dls_status mesh_mutant_spoil(mesh_mutant m, dls_transformer *t);
void mesh_mutant_spoil_experts(mesh_mutant m, dls_transformer *t);

/* Spoils the axes that gradients are summed over, or those of the norm; and gradients
 * that are summed. */
void mesh_mutant_spoil_axes(mesh_mutant m, dls_axes *axes);
const dls_axes *mesh_mutant_norm_axes(mesh_mutant m, const dls_axes *axes);
dls_status mesh_mutant_spoil_gradients(mesh_mutant m, dls_params *set, dls_ctx *ctx);

#endif
