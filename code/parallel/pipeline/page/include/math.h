/* code/parallel/pipeline/page/include/math.h: from chapters/05-pipeline-pictures-page.md. Edit the chapter, or edit here and run "make untangle". */
/* See libc.c. */
#define isfinite(x) __builtin_isfinite(x)
