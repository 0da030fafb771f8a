/* tests/parallel/mesh_layout.h: from chapters/07-proof-layouts.md. Edit the chapter, or edit here and run "make untangle". */
/* Holding cases, in a world of ranks, against what one device computes. */
#ifndef DLS_TESTS_PARALLEL_MESH_LAYOUT_H
#define DLS_TESTS_PARALLEL_MESH_LAYOUT_H

#include "../comm/world.h"
#include "kernels/adamw.h"
#include "mesh_case.h"
#include "mesh_mutant.h"
#include "parallel/pipeline/stage.h"

/* define the forms of a proof */
typedef enum mesh_form {
    MESH_EXACT,     // whole numbers in f32, one step, every bit
    MESH_REAL,      // f64, two steps, to 1e-10
    MESH_SINGLE,    // f32, 20 steps, losses to 1e-5
    MESH_WIDE,      // whole numbers in f64: to prove the first form exact
    MESH_DRIFT,     // f64, 20 steps: losses are shown, and nothing is a fault
    MESH_FORMS
} mesh_form;

extern const char *const mesh_form_names[MESH_FORMS];

/* define the truth */
/* In one mapping, shared by processes; doubles, whatever the model's type is. */
typedef struct mesh_truth {
    size_t elements, tokens;        // of the whole model; of the batch
    double *initial;                // (elements)
    double *grads, *values;         // (steps, elements): before clipping; updated
    double *losses, *norm;          // (steps, tokens), (steps)
    size_t loads;                   // numbers that tell the loads of all expert layers
    double *load;                   // (steps, loads)
    double *shown;                  // (steps, tokens): MESH_DRIFT: losses of the ranks
    unsigned char *seen[4];         // gradients, values, losses, loads: the last step
    size_t bytes;
} mesh_truth;

/* define a proof of a case */
typedef struct mesh_proof {
    mesh_case c;
    mesh_form form;
    double clip;            // largest gradient norm; 0: none
    mesh_mutant mutant;     // a fault to be found; MUTANT_NONE
    mesh_truth truth;
} mesh_proof;

typedef struct mesh_proofs {
    mesh_proof *list;
    int n;                  // all of the same number of ranks
    const char *cluster;    // a file; NULL: the default
} mesh_proofs;

int mesh_proof_exact(const mesh_proof *p);
int mesh_proof_steps(const mesh_proof *p);
int mesh_proof_losses_only(const mesh_proof *p);

/* declare proofs of cases */
/* Room for the truths; before the world is made. */
dls_status mesh_proofs_open(mesh_proofs *proofs);
void mesh_proofs_close(mesh_proofs *proofs);

/* A rank's part, for dls_run_ranks. The first fault ends it, with the case's text. */
dls_status mesh_prove(int rank, void *proofs);

/* declare the parts of a proof */
/* The model of a proof on one device, by its own maker; its values as they begin; its
 * tokens (from_row, to_row) of all T, then the targets. */
dls_model_maker *mesh_proof_maker(const mesh_proof *p);
dls_dtype mesh_proof_dtype(const mesh_proof *p);
double mesh_proof_scale(const mesh_proof *p);
double mesh_proof_rate(const mesh_proof *p);
void mesh_proof_fill(const mesh_proof *p, const dls_params *set, void *host);
int mesh_proof_token(int target, const mesh_case *c, int row, int t);
dls_adamw_options mesh_proof_adamw(const mesh_proof *p);

/* Computes the truth of a proof, here and now. */
dls_status mesh_truth_compute(const mesh_proof *p);

/* Elements first ... first + count - 1 of a part's flat arrays (device or host, of the
 * accumulator type; NULL: not held) against the truth of step 1 ... */
dls_status mesh_compare(const mesh_proof *p, const dls_params *whole,
                        const dls_params *part, int step, size_t first, size_t count,
                        const void *grads, const void *values);
dls_status mesh_compare_losses(const mesh_proof *p, int step, int row, int T,
                               const int *positions, const void *device);
dls_status mesh_compare_norm(const mesh_proof *p, int step, const double *device);

/* What expert layers have counted, from unit `from_unit` on: kept, and compared. */
size_t mesh_loads(const mesh_case *c);
dls_status mesh_keep_loads(const mesh_proof *p, int step, const dls_balance *b);
dls_status mesh_compare_loads(const mesh_proof *p, int step, int from_unit,
                              const dls_balance *b);
dls_status mesh_compare_load(const mesh_proof *p, int step, size_t at, double is);

/* After a barrier: everything has been seen in this step. */
dls_status mesh_compare_seen(const mesh_proof *p, int step);

#endif
