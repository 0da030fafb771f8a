/* code/parallel/pipeline/page/include/stdlib.h: from chapters/05-pipeline-pictures-page.md. Edit the chapter, or edit here and run "make untangle". */
/* See libc.c. */
#ifndef PAGE_STDLIB_H
#define PAGE_STDLIB_H
#include <stddef.h>

#include "names.h"
/* declare the page s stdlib */
void *malloc(size_t n);
void *calloc(size_t n, size_t size);
void *realloc(void *old, size_t n);
void free(void *p);
long long strtoll(const char *text, char **end, int base);
double strtod(const char *text, char **end);
void qsort(void *base, size_t n, size_t size, int (*order)(const void *, const void *));
#endif
