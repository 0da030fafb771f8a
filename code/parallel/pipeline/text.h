/* code/parallel/pipeline/text.h: from chapters/05-pipeline-pictures.md. Edit the chapter, or edit here and run "make untangle". */
/* A text that grows, for what is written piece by piece: a drawing, a list of actions.
 *
 *   dls_text t = {0};
 *   dls_text_add(&t, "rank %d", 3);
 *   dls_text_ratio(&t, 23, 2);      // 11.5
 *   status = dls_text_status(&t);   // the only place to look for errors
 *   dls_text_free(&t);
 *
 * Numbers are integers: a page and a program that divide by the same rule print the same
 * bytes, whatever their processors think of rounding. */
#ifndef DLS_PARALLEL_PIPELINE_TEXT_H
#define DLS_PARALLEL_PIPELINE_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the growing text */
typedef struct dls_text {
    char *data;  // `size` bytes and a zero; NULL as long as it is empty
    size_t size, room;
    int lost;    // 1: memory ran out, and nothing is added any more
} dls_text;

/* Appends in printf's format; %d, %lld, %zu, %s and %.*s are what a page knows too. */
void dls_text_add(dls_text *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Appends n/d, cut to two decimals, without zeros at the end. d > 0, |n| < 2^56. */
void dls_text_ratio(dls_text *t, int64_t n, int64_t d);

/* Appends a text with <, >, & and " written for XML; control bytes become spaces. */
void dls_text_xml(dls_text *t, const char *text);

/* DLS_ERR_MEMORY when a piece was lost. */
dls_status dls_text_status(const dls_text *t);
void dls_text_free(dls_text *t);

#ifdef __cplusplus
}
#endif
#endif
