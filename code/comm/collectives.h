/* code/comm/collectives.h: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* The algorithms of the collectives, and the choice between them. Private to comm/. */
#ifndef DLS_COMM_COLLECTIVES_H
#define DLS_COMM_COLLECTIVES_H

#include "comm/algorithms.h"
#include "comm/message.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define an algorithm */
typedef struct dls_algorithm {
    dls_message_kind kind;
    const char *name; // "ring"
    dls_steps *steps;
    dls_scratch *scratch;              // NULL: needs none
    int (*fits)(const dls_shape *shape); // NULL: always
} dls_algorithm;

extern const dls_algorithm dls_algorithms[]; // the first of a kind is its default
extern const int dls_algorithm_count;

/* The algorithm of this kind and name (size bytes); NULL: there is none. */
const dls_algorithm *dls_algorithm_find(dls_message_kind kind, const char *name,
                                        size_t size);

/* "all_reduce" -> its kind; 0: no such operation. And back. */
dls_message_kind dls_operation_find(const char *name, size_t size);
const char *dls_operation_name(dls_message_kind kind);

#ifdef __cplusplus
}
#endif
#endif
