/* code/base/status.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Status codes with messages: the two buffers of a thread and what is written to them.
 *
 *   message [ "tour.yaml:12: train.steps: expected an integer ..." 0 ]   replaced
 *   trace   [ "  at chapters/C-...:210\n" "  at chapters/09-...:88\n" 0 ]  grows outwards
 */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 2048, TRACE_BYTES = 2048 };

static _Thread_local char message[MESSAGE_BYTES];
static _Thread_local char trace[TRACE_BYTES];

/* keep the message on one line */
static void make_one_line(char *text)
{
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
}

/* note a place */
static void note_place(const char *file, int line)
{
    size_t used = strlen(trace);
    int n = snprintf(trace + used, sizeof trace - used, "  at %s:%d\n", file, line);
    if (n < 0 || (size_t)n >= sizeof trace - used)
        trace[used] = 0;  // half a place is worse than none
}

/* record a failure */
dls_status dls_status_fail(dls_status code, const char *file, int line,
                           const char *fmt, ...)
{
    char text[MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, fmt);
    vsnprintf(text, sizeof text, fmt, arguments);
    va_end(arguments);
    make_one_line(text);
    memcpy(message, text, strlen(text) + 1);
    trace[0] = 0;
    note_place(file, line);
    return code;
}

dls_status dls_status_pass(dls_status code, const char *file, int line)
{
    note_place(file, line);
    return code;
}

/* tell the last failure */
const char *dls_status_message(void)
{
    return message;
}

const char *dls_status_trace(void)
{
    return trace;
}

void dls_status_clear(void)
{
    message[0] = trace[0] = 0;
}

const char *dls_status_name(dls_status code)
{
    switch (code) {
    case DLS_OK: return "ok";
    case DLS_ERR_INPUT: return "input error";
    case DLS_ERR_IO: return "input/output error";
    case DLS_ERR_MEMORY: return "out of memory";
    case DLS_ERR_DEVICE: return "device error";
    case DLS_ERR_COMM: return "communication error";
    case DLS_ERR_STATE: return "wrong state";
    }
    return "unknown status";
}
