/* code/cli/toolchain.h: from chapters/01-introduction-own-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Compiling a reader's own CUDA files against the library: behind dls cc, check, profile.
 */
#ifndef DLS_CLI_TOOLCHAIN_H
#define DLS_CLI_TOOLCHAIN_H

#include <stddef.h>

#include "base/status.h"

/* declare a list of words */
/* The arguments of a program that is to be run; NULL-terminated at all times. */
typedef struct words {
    char **word;
    int count, failed;  // failed: no memory for some word
} words;

void words_add(words *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void words_free(words *w);

/* Runs the program and waits; its exit status, or 128 + the signal that ended it. */
dls_status words_run(const words *w, int *exit_code);
/* declare a build */
typedef enum forms { PLAIN = 1, PROBED = 2 } forms;

typedef struct build {
    words sources;   // .cu files, and .c, .cpp, .o and .a files as they are
    words options;   // for the compiler and linker
    const char *output;
    int forms;
} build;

/* DLS_ERR_INPUT: the file can not be read, or is no text although its name says so. */
dls_status toolchain_look_at(const char *path);

/* Makes b->output, and b->output.probed. The compiler has already said what is wrong with
 * the sources when this returns DLS_ERR_INPUT. */
dls_status toolchain_build(const build *b);

/* Removes a folder with the files in it. */
void toolchain_remove(const char *folder);
/* A new empty folder for what is in between. */
dls_status toolchain_folder(char *path, size_t room);

#endif
