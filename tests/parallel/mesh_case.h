/* tests/parallel/mesh_case.h: from chapters/07-proof-cases.md. Edit the chapter, or edit here and run "make untangle". */
/* A layout with everything that could make a difference in it, drawn by a seed. */
#ifndef DLS_TESTS_PARALLEL_MESH_CASE_H
#define DLS_TESTS_PARALLEL_MESH_CASE_H

#include "layers/token_order.h"
#include "model/transformer.h"
#include "parallel/mesh.h"
#include "parallel/pipeline/schedule.h"
#include "train/train.h"

/* define a case */
typedef struct mesh_case {
    dls_mesh mesh;                  // tp, cp, pp, dp, in any order of ranks
    int llama, untied;
    int drops;                      // 1: embedding and branches; 2: attention as well
    int heads, kv_heads, layers, T; // what the layout leaves open of the model
    int split_rows, overlap;        // sequence parallelism; pieces that overlap
    dls_context_way way;
    dls_token_order order;
    int ulysses;
    const char *schedule;           // NULL: one stage, no pipeline
    int chunks, microbatches;       // of the schedule
    int zero;                       // stage; 0: every rank has its whole state
    int prefetch, keep_forward;     // of it
    dls_recompute recompute;
    int rows, micro;                // of the batch; of a pass
    dls_moe moe;                    // experts 0: none
    dls_dispatch_way dispatch;      // of their rows
} mesh_case;

/* declare the cases */
enum { MESH_C = 7, MESH_V = 19, MESH_MOST = 16, MESH_TOKENS = 512, MESH_MOST_EP = 8,
       MESH_MOST_ETP = 4, MESH_TEXT = 384 };

/* Draws all but the sizes of the axes; attempt: another one for the same layout. */
void mesh_case_draw(mesh_case *c, const int size[DLS_AXES], int llama, int attempt);

/* Gives a drawn case experts, over ep * etp of the ranks; what of them is exact; rows of
 * a pass on one device; the text behind that of the rest. */
void mesh_case_draw_experts(mesh_case *c, int ep, int etp, int attempt);
dls_moe mesh_exact_experts(const mesh_case *c);
int mesh_case_pass(const mesh_case *c);
void mesh_case_text_experts(const mesh_case *c, char *text, size_t room);

/* DLS_ERR_INPUT with the reason why it can not be: the program's own. */
dls_status mesh_case_check(const mesh_case *c);

/* Its model, not cut yet; exact: for exact_transformer. */
dls_transformer_config mesh_case_config(const mesh_case *c, int exact);

/* The same with the rest, as the trainer reads it from a file. */
dls_train_config mesh_case_settings(const mesh_case *c, int exact);

/* "dp2 pp1 tp4 cp2 llama ..." */
void mesh_case_text(const mesh_case *c, char text[MESH_TEXT]);

/* define the features */
enum { MESH_DENSE = 14, MESH_FEATURES = 25, MESH_VALUES = 20 };
extern const char *const mesh_feature_names[MESH_FEATURES];

/* What the case has of each feature, 0 ... MESH_VALUES - 1; -1: does not apply. */
void mesh_case_features(const mesh_case *c, int of[MESH_FEATURES]);
void mesh_case_features_of_experts(const mesh_case *c, int *of);    // the last of them

/* The cases of all layouts of at most `most` ranks, one for each layout and family, such
 * that pairs of features are covered as well as they can be. */
enum { MESH_FIELDS = 12, MESH_FIELD = 40 };

typedef struct mesh_cases {
    mesh_case *list;
    int n, refused;             // refused: draws that could not be,
    int because[MESH_FIELDS];   //   and of which field
    char field[MESH_FIELDS][MESH_FIELD];
    int pairs;                  // of features, in the list
} mesh_cases;

dls_status mesh_cases_make(mesh_cases *out, int most);

/* The same with experts: one for each layout and each way to share them out. */
dls_status mesh_expert_cases_make(mesh_cases *out, int most);
void mesh_cases_free(mesh_cases *cases);

#endif
