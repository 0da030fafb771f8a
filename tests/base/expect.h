/* tests/base/expect.h: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Expectations shared by the tests of the base library. */
#ifndef TESTS_BASE_EXPECT_H
#define TESTS_BASE_EXPECT_H

#include <criterion/criterion.h>

#include "base/status.h"

#define EXPECT_OK(expr)                                                       \
    do {                                                                      \
        dls_status status_ = (expr);                                          \
        cr_expect(status_ == DLS_OK, "%s: %s", #expr, dls_status_message());  \
    } while (0)

#define EXPECT_ERROR(expr, code, words)                                       \
    do {                                                                      \
        dls_status status_ = (expr);                                          \
        cr_expect(status_ == (code), "%s: got status %d", #expr, status_);    \
        cr_expect_str_eq(dls_status_message(), (words));                      \
    } while (0)

#endif
