/* code/parallel/pipeline/page/include/errno.h: from chapters/05-pipeline-pictures-page.md. Edit the chapter, or edit here and run "make untangle". */
/* See libc.c. */
extern int errno_of_page;
#define errno errno_of_page
#define ERANGE 34
