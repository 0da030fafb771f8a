/* code/layers/token_order.h: from chapters/06-context-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Who has which tokens of a sequence that several ranks share (context parallelism). With
 * n ranks, 8 tokens and n = 2:
 *
 *   contiguous   0 1 2 3 | 4 5 6 7      rank r has part r of n
 *   zig-zag      0 1 6 7 | 2 3 4 5      parts r and 2n-1-r of 2n
 *   striped      0 2 4 6 | 1 3 5 7      token i is on rank i mod n
 *
 * Lengths need not divide: of N parts of T tokens the first T mod N are one longer. A
 * rank keeps its tokens in ascending order, whatever the order is. */
#ifndef DLS_LAYERS_TOKEN_ORDER_H
#define DLS_LAYERS_TOKEN_ORDER_H

#include "layers/sharding.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the token orders */
enum { DLS_TOKEN_ORDERS = 3 };
const char *dls_token_order_name(dls_token_order order); // "zigzag" ...; "?"

/* First token of part `part` of `parts`, as even as can be: the first T mod parts are one
 * longer. part = parts gives T. */
int dls_token_cut(int T, int parts, int part);

/* How many of T_whole tokens a rank has. */
int dls_token_count(dls_token_order order, int T_whole, int ranks, int rank);

/* positions (dls_token_count, host) := where this rank's tokens are in the sequence.
 * DLS_ERR_INPUT: no such rank, or an order that there is not. */
dls_status dls_token_positions(dls_token_order order, int T_whole, int ranks, int rank,
                               int *positions);

/* The run of this rank's tokens from its `local`-th on: how many, the position of the
 * first, and from one to the next. 0 behind the last. */
int dls_token_run(dls_token_order order, int T_whole, int ranks, int rank, int local,
                  int *position, int *step);

#ifdef __cplusplus
}
#endif
#endif
