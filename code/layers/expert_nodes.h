/* code/layers/expert_nodes.h: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* The points at which an expert layer differs whose rows go over the nodes. */
#ifndef DLS_LAYERS_EXPERT_NODES_H
#define DLS_LAYERS_EXPERT_NODES_H
#include "layers/expert_layer.h"

/* declare the points of nodes */
/* Reserves what the way over nodes needs; changes what the layer's own places take. n:
 * the most rows of a rank. Then the places of values, once the others are planned. */
void dls_expert_nodes_plan(dls_layer *l, dls_plan *plan, int n);
void dls_expert_nodes_places(dls_layer *l, dls_plan *plan);

/* Counts and sends rows x (n, C), the pass's from number `number` on, and their weights;
 * behind the wait: the landed rows by expert, in MOE_ARRIVED. */
dls_status dls_expert_nodes_send(const dls_layer *l, const dls_pass *p, const void *x,
                                 int n, int number);
dls_status dls_expert_nodes_arrive(const dls_layer *l, const dls_pass *p);

/* Adds the experts' answers up, where they are, and sends the sums to MOE_BACK (n, C). */
dls_status dls_expert_nodes_answer(const dls_layer *l, const dls_pass *p);

/* The same of gradients: dy (n, C) to MOE_DOUT, with what the weights' gradients are;
 * MOE_DARRIVED to MOE_DROWS (n, C), and these to MOE_DWEIGHTS (n, k). */
dls_status dls_expert_nodes_send_back(const dls_layer *l, const dls_pass *p,
                                      const void *dy);
dls_status dls_expert_nodes_arrive_back(const dls_layer *l, const dls_pass *p);
dls_status dls_expert_nodes_answer_back(const dls_layer *l, const dls_pass *p);

/* to (n, C) := what came back, added to it if it is there (keeps). */
dls_status dls_expert_nodes_add(const dls_layer *l, const dls_pass *p, void *to,
                                const void *came, int n, int keeps);
#endif
