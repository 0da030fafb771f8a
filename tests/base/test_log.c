/* tests/base/test_log.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Log lines: level, prefix, length. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "expect.h"

/* capture the standard error */
static char captured[8192];

/* What was logged since the last call; the first call begins to capture. */
static const char *logged(void)
{
    static int fd = -1;
    if (fd < 0) {
        char path[] = "/tmp/dls-log-XXXXXX";
        fd = mkstemp(path);
        unlink(path);
        dup2(fd, STDERR_FILENO);
    }
    ssize_t n = pread(fd, captured, sizeof captured - 1, 0);
    captured[n > 0 ? n : 0] = 0;
    cr_assert_eq(ftruncate(fd, 0), 0);
    lseek(fd, 0, SEEK_SET);
    return captured;
}

/* test the log */
Test(base, log_shows_from_the_level_on)
{
    setenv("DLS_LOG", "warn", 1);
    logged();
    dls_log(DLS_LOG_INFO, "not this");
    dls_log(DLS_LOG_WARN, "disk at %d%%", 97);
    dls_log_set_rank(2, 4);
    dls_log(DLS_LOG_ERROR, "gone");
    cr_expect_str_eq(logged(), "warn: disk at 97%\n[2/4] error: gone\n");
    dls_log_set_level(DLS_LOG_DEBUG);
    dls_log(DLS_LOG_INFO, "step 1");
    dls_log(DLS_LOG_DEBUG, "x");
    cr_expect_str_eq(logged(), "[2/4] step 1\n[2/4] debug: x\n");
}

Test(base, log_tells_of_a_misspelt_level)
{
    setenv("DLS_LOG", "lots", 1);
    logged();
    dls_log(DLS_LOG_INFO, "here");
    cr_expect_str_eq(logged(), "warn: DLS_LOG: expected debug, info, warn, error or "
                               "none, got \"lots\"\nhere\n");
}

Test(base, log_cuts_a_long_line)
{
    char word[6000];
    memset(word, 'w', sizeof word);
    word[sizeof word - 1] = 0;
    logged();
    dls_log(DLS_LOG_INFO, "%s", word);
    const char *line = logged();
    cr_expect_leq(strlen(line), 4096);
    cr_expect_str_eq(line + strlen(line) - 5, "w...\n");
}
