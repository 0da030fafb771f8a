/* code/parallel/pipeline/page/include/names.h: from chapters/05-pipeline-pictures-page.md. Edit the chapter, or edit here and run "make untangle". */
/* On a processor with a C library of its own, ours must not replace it. */
#ifndef PAGE_NAMES_H
#define PAGE_NAMES_H
#ifndef __wasm__
/* rename our library */
#define malloc page_malloc
#define calloc page_calloc
#define realloc page_realloc
#define free page_free
#define memcpy page_memcpy
#define memmove page_memmove
#define memset page_memset
#define memcmp page_memcmp
#define memchr page_memchr
#define strlen page_strlen
#define strcmp page_strcmp
#define strncmp page_strncmp
#define strchr page_strchr
#define strcspn page_strcspn
#define strstr page_strstr
#define isspace page_isspace
#define strtoll page_strtoll
#define strtod page_strtod
#define qsort page_qsort
#define vsnprintf page_vsnprintf
#define snprintf page_snprintf
#endif
#endif
