/* tests/tangle/small.h: from chapters/B-tangle-and-weave.md. Edit the chapter, or edit here and run "make untangle". */
/* Helpers of the literate tool's tests: small books in a folder of their own. */
#ifndef TESTS_TANGLE_SMALL_H
#define TESTS_TANGLE_SMALL_H

#include <criterion/criterion.h>
#include <string.h>

/* write blocks briefly */
#define BLOCK(attributes, body) "```{" attributes "}\n" body "```\n\n"
#define ROOT(path, body) BLOCK(".c file=" path, body)
#define CHUNK(name, body) BLOCK(".c #" name, body)
#define HEADER(path, file)                                                       \
    "/* " path ": from " file                                                    \
    ". Edit the chapter, or edit here and run \"make untangle\". */\n"
/* declare the small book helpers */
extern char small_said[]; // what the last run of the tool printed
void small_begin(void);   // a new folder becomes the working folder
void small_end(void);
void small_put(const char *path, const char *text);
void small_put_bytes(const char *path, const char *bytes, size_t n);
char *small_get(const char *path); // NULL when there is no such file
void small_edit(const char *path, const char *from, const char *to); // the first
void small_book(const char *chapter); // one chapter, chapters/01-one.md, owns x
int small_tangle(const char *arguments); // returns the exit status
int small_tangle_twice(const char *arguments); // two at a time; 0 when both end with 0
int small_shell(const char *command);
void small_age(const char *path);   // gives a file an old time stamp
int small_is_old(const char *path); // has it still?
int small_exists(const char *path);
/* expect what it says */
#define EXPECT_EXIT(arguments, status)                                           \
    do {                                                                         \
        int got_ = small_tangle(arguments);                                      \
        cr_expect_eq(got_, status, "tangle %s: exit %d, not %d:\n%s", arguments, \
                     got_, status, small_said);                                  \
    } while (0)
#define EXPECT_SAID(text)                                                        \
    cr_expect(strstr(small_said, text), "not said: %s\nbut:\n%s", text, small_said)
#define EXPECT_NOT_SAID(text)                                                    \
    cr_expect(!strstr(small_said, text), "said: %s", small_said)
#define EXPECT_FILE(path, text)                                                  \
    do {                                                                         \
        char *got_ = small_get(path);                                            \
        cr_expect(got_ && !strcmp(got_, text), "%s is\n%s", path,                \
                  got_ ? got_ : "missing");                                      \
    } while (0)

#endif
