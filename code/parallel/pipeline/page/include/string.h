/* code/parallel/pipeline/page/include/string.h: from chapters/05-pipeline-pictures-page.md. Edit the chapter, or edit here and run "make untangle". */
/* See libc.c. */
#ifndef PAGE_STRING_H
#define PAGE_STRING_H
#include <stddef.h>

#include "names.h"
/* declare the page s strings */
void *memcpy(void *to, const void *from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
void *memchr(const void *text, int byte, size_t n);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
char *strchr(const char *text, int c);
size_t strcspn(const char *text, const char *stop);
char *strstr(const char *text, const char *part);
#endif
