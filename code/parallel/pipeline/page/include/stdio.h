/* code/parallel/pipeline/page/include/stdio.h: from chapters/05-pipeline-pictures-page.md. Edit the chapter, or edit here and run "make untangle". */
/* See libc.c. */
#ifndef PAGE_STDIO_H
#define PAGE_STDIO_H
#include <stdarg.h>
#include <stddef.h>

#include "names.h"
int vsnprintf(char *out, size_t size, const char *format, va_list arguments);
int snprintf(char *out, size_t size, const char *format, ...);
int printf(const char *format, ...);
#endif
