/* code/base/log.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* The log: a level, a prefix, and one write per line. stdio was tried first; its buffer
 * is per process, and a child forked between two lines writes its parent's again. */
#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES = 4096 };

static const char *const level_names[] = {"debug", "info", "warn", "error", "none"};
static pthread_once_t level_once = PTHREAD_ONCE_INIT;
static int least_level = DLS_LOG_INFO;
static int log_rank = 0, log_world = 1;

/* write a whole line */
static void write_all(const char *text, size_t n)
{
    while (n > 0) {
        ssize_t k = write(STDERR_FILENO, text, n);
        if (k <= 0)
            return;
        text += k;
        n -= (size_t)k;
    }
}

/* read the log level */
static void read_level(void)
{
    const char *wanted = getenv("DLS_LOG");
    if (!wanted || !*wanted)
        return;
    for (int i = 0; i <= DLS_LOG_NONE; i++)
        if (strcmp(wanted, level_names[i]) == 0) {
            least_level = i;
            return;
        }
    char line[256];
    int n = snprintf(line, sizeof line,
                     "warn: DLS_LOG: expected debug, info, warn, error or none, "
                     "got \"%.80s\"\n", wanted);
    write_all(line, (size_t)n);
}

/* log a line */
void dls_log_set_rank(int rank, int world)
{
    log_rank = rank;
    log_world = world;
}

int dls_log_world(void) { return log_world; }

void dls_log_set_level(dls_log_level level)
{
    pthread_once(&level_once, read_level);
    least_level = level;
}

void dls_log(dls_log_level level, const char *fmt, ...)
{
    pthread_once(&level_once, read_level);
    if ((int)level < least_level)
        return;
    char line[LINE_BYTES];
    int n = 0;
    if (log_world > 1)
        n += snprintf(line, sizeof line, "[%d/%d] ", log_rank, log_world);
    if (level != DLS_LOG_INFO)
        n += snprintf(line + n, sizeof line - (size_t)n, "%s: ", level_names[level]);
    va_list arguments;
    va_start(arguments, fmt);
    int room = LINE_BYTES - n - 1;  // the newline takes the place of the final zero
    int k = vsnprintf(line + n, (size_t)room, fmt, arguments);
    va_end(arguments);
    if (k >= room) {
        memcpy(line + LINE_BYTES - 1 - 4, "...", 3);
        k = room - 1;
    }
    n += k > 0 ? k : 0;
    line[n++] = '\n';
    write_all(line, (size_t)n);
}
