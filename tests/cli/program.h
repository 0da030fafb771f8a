/* tests/cli/program.h: from chapters/01-introduction.md. Edit the chapter, or edit here and run "make untangle". */
/* Running a program from a test: its output and its exit status. */
#ifndef TESTS_CLI_PROGRAM_H
#define TESTS_CLI_PROGRAM_H
#include <stddef.h>

/* What a finished program left behind. */
typedef struct outcome {
    int exit_code;       /* 128 + signal when one ended it */
    char output[65536];  /* stdout and stderr merged, cut at this size */
} outcome;

/* Runs a shell command from the book's folder (the tests' working directory). */
outcome run_program(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Asserts that "COMMAND OPTIONS" ends with this status and prints these words. */
void program_says(const char *command, const char *options, int exit_code,
                  const char *words);

/* A fresh directory below build/, whose name the caller frees. */
char *fresh_directory(const char *label);

/* The whole file, zero-terminated, or NULL; the caller frees it. */
char *read_whole(const char *path, size_t *size);
#endif
