/* code/parallel/pipeline/page/include/ctype.h: from chapters/05-pipeline-pictures-page.md. Edit the chapter, or edit here and run "make untangle". */
/* See libc.c. */
#include "names.h"
int isspace(int c);
