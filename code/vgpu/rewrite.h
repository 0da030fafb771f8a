/* code/vgpu/rewrite.h: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to vgpu-rewrite: one text, its classification, and a list of edits. */
#ifndef DLS_VGPU_REWRITE_H
#define DLS_VGPU_REWRITE_H

#include <stddef.h>

/* declare the rewriter state */
enum kind { CODE, NOT_CODE, DIRECTIVE };

typedef struct edit {
    size_t at, remove;  // where, and how many bytes go
    char *insert;       // what comes in their place; never holds a newline
} edit;

extern const char *input_name;
extern char *src;             // the whole source, NUL-terminated
extern size_t len;
extern unsigned char *kind;   // (len) one enum kind per byte
extern size_t edit_count;
extern int failures;
/* declare the text functions */
void fail_at(size_t at, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int read_source(const char *path);
void classify(void);
int is_name(size_t i);              // is src[i] part of a name?
size_t skip_forward(size_t i);      // over blanks and comments
size_t skip_back(size_t i);         // (size_t)-1: nothing before i
size_t match_forward(size_t i);     // the partner of the bracket at i, or len
size_t match_back(size_t i);        // the same to the left, or (size_t)-1
void add_edit(size_t at, size_t remove, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int save_edited(const char *path);  // NULL: to the standard output
#endif
