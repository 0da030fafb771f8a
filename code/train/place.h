/* code/train/place.h: from chapters/07-together.md. Edit the chapter, or edit here and run "make untangle". */
/* What a rank is in a run's layout: its coordinates, its model, its rows and tokens. A
 * pure function of the configuration, the rank and the world.
 */
#ifndef DLS_TRAIN_PLACE_H
#define DLS_TRAIN_PLACE_H
#include "parallel/mesh.h"
#include "train/train.h"
#ifdef __cplusplus
extern "C" {
#endif

/* define a place */
typedef struct dls_train_place {
    dls_mesh mesh;              /* complete */
    int rank, world;
    int stage_rank;             /* in its pipeline */
    int replica, replicas;      /* of the model, for the rows of a step: along dp */
    int holders, holder;        /* who has the same parameters: dp x cp; which of them */
    int tensor_rank;
    int apart;                  /* 1: an expert's copies are on other ranks: along edp; */
    int expert_holder;          /*    this rank's number among them */
    int together;               /* 1: a pass asks all replicas, with rows or without */
    int plain;                  /* 1: replicas of a whole model, and nothing else */
    int T;                      /* this rank's tokens of a sequence */
    dls_transformer_config model;   /* with the sharding of this rank */
} dls_train_place;

/* DLS_ERR_INPUT: a mesh that does not fit the world. */
dls_status dls_train_place_of(const dls_train_config *c, int rank, int world,
                              dls_train_place *out);

/* 1: a model with experts whose copies are not along dp x cp, on a complete mesh. The
 * same for all ranks. */
int dls_train_experts_apart(const dls_train_config *c, const dls_mesh *m, int rank);

/* The first row behind the passes of a step, as far as this rank counts them. */
int dls_train_passes_end(const dls_train_config *c, const dls_train_place *p);

/* positions (p->T, host) := where its tokens are in their sequence. */
dls_status dls_train_positions(const dls_train_place *p, int *positions);

/* define the groups of a place */
/* A rank's communicators; tensor, context: NULL: a group of one. */
typedef struct dls_train_groups {
    dls_comm *tensor, *context, *pipe;
    dls_comm *data;             /* over dp x cp; the caller's if the place is plain */
    dls_comm *expert, *expert_tensor;   /* of a model with experts, else NULL */
    dls_comm *expert_data;      /* over edp; data, if that has the same ranks */
    dls_comm *rows;             /* over tp x cp x dp; NULL: one rank */
    int plain;
    dls_axes axes;
    const dls_axes *cut;        /* &axes; NULL: the layers are not cut */
} dls_train_groups;

/* Collective over comm, the world. Close it after an error as well. */
dls_status dls_train_groups_open(dls_train_groups *g, const dls_train_place *p,
                                 dls_comm *comm);
void dls_train_groups_close(dls_train_groups *g);
#ifdef __cplusplus
}
#endif
#endif
