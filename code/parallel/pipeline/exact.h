/* code/parallel/pipeline/exact.h: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* Costs as exact numbers: "2.5" and "1/3" become whole ticks of a common unit. */
#ifndef DLS_PARALLEL_PIPELINE_EXACT_H
#define DLS_PARALLEL_PIPELINE_EXACT_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dls_fraction { int64_t over, under; } dls_fraction;  // under > 0

enum { DLS_EXACT_TEXT = 96 };

/* declare exact numbers */
/* Reads "1,2.5,1/3": least to most numbers, none negative. `what` is for messages.
 * Errors: DLS_ERR_INPUT "WHAT: expected ..., got ...". */
dls_status dls_fractions_read(const char *what, const char *text, int least, int most,
                              dls_fraction *out, int *count);

/* The greatest common divisor; of a and 0 it is a. */
int64_t dls_common_divisor(int64_t a, int64_t b);

/* Gives all n the same denominator, *unit. Errors: DLS_ERR_INPUT when it or a numerator
 * is above 10^15. */
dls_status dls_fractions_align(const char *what, dls_fraction *f, int n, int64_t *unit);

/* declare the text of a fraction */
/* over / under as a JSON number: an integer, else the whole decimal fraction, else (it
 * has none) the first 17 digits, rounded. Returns the length. */
int dls_fraction_text(int64_t over, int64_t under, char out[DLS_EXACT_TEXT]);

#ifdef __cplusplus
}
#endif
#endif
