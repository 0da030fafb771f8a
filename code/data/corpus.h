/* code/data/corpus.h: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* A text as bytes, mapped read-only, in two parts: training first, validation at the end.
 *
 *   | training ............................................. | validation |
 *   0                                                  split          size  */
#ifndef DLS_DATA_CORPUS_H
#define DLS_DATA_CORPUS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the corpus */
typedef struct dls_corpus dls_corpus;
typedef enum dls_corpus_half { DLS_PART_TRAINING, DLS_PART_VALIDATION } dls_corpus_half;

/* Maps the file; a tenth of it is the validation part until dls_corpus_split says
 * otherwise. DLS_ERR_IO: cannot be opened. DLS_ERR_INPUT: a directory, or empty. */
dls_status dls_corpus_open(const char *path, dls_corpus **out);
void dls_corpus_close(dls_corpus *corpus); // NULL is fine

/* The last `validation_fraction` (0 <= f < 1) of the bytes, rounded down, is
 * validation. */
dls_status dls_corpus_split(dls_corpus *corpus, double validation_fraction);

const unsigned char *dls_corpus_bytes(const dls_corpus *corpus);
size_t dls_corpus_size(const dls_corpus *corpus);

/* The part is the bytes [*begin, *end). */
void dls_corpus_part(const dls_corpus *corpus, dls_corpus_half part, uint64_t *begin,
                     uint64_t *end);

#ifdef __cplusplus
}
#endif
#endif
