/* code/comm/choose.h: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* Which algorithm a collective uses. Private to comm/. */
#ifndef DLS_COMM_CHOOSE_H
#define DLS_COMM_CHOOSE_H

#include "comm/collectives.h"
#include "comm/comm_private.h"

/* declare the choice */
/* Remembers what the user wants, "all_reduce:ring,broadcast:chain"; NULL: DLS_ALGORITHM.
 * DLS_ERR_INPUT: no such operation or algorithm. */
dls_status dls_comm_want(dls_comm *comm, const char *wanted);

/* The algorithm for an operation of this shape, which gets shape->block; `element` is in
 * bytes. DLS_ERR_INPUT: the one that is wanted does not fit the shape. */
dls_status dls_comm_choose(dls_comm *comm, int kind, dls_shape *shape, size_t element,
                           const dls_algorithm **out);

/* The same for a call by its name, before there is one: fills in shape and *element. *out
 * is NULL where no algorithm of ours would run: alone, or by the native backend. */
dls_status dls_comm_choose_named(dls_comm *comm, const char *operation, size_t count,
                                 int dtype, dls_shape *shape, size_t *element,
                                 const dls_algorithm **out);

#endif
