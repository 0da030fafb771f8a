/* tests/base/folder.h: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* A fresh folder for a test to work in. */
#ifndef DLS_TESTS_BASE_FOLDER_H
#define DLS_TESTS_BASE_FOLDER_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[] = "/tmp/dls-test-XXXXXX";

static inline void enter(void)
{
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
}

static inline void leave(void)
{
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

#endif
