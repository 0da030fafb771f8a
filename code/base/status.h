/* code/base/status.h: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Status codes with messages.
 *
 * A function that can fail returns dls_status. The message, one line, and the trace, one
 * place per line, are kept per thread in fixed buffers: reporting that memory has run out
 * must not need memory. errno was considered and rejected: a number cannot name a file.
 */
#ifndef DLS_BASE_STATUS_H
#define DLS_BASE_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* define the status codes */
typedef enum dls_status {
    DLS_OK = 0,
    DLS_ERR_INPUT,   // what the user wrote: a file's content, an option, a shape
    DLS_ERR_IO,      // the operating system refused: open, write, rename
    DLS_ERR_MEMORY,  // host or device memory is exhausted
    DLS_ERR_DEVICE,  // CUDA or cuBLAS reported an error
    DLS_ERR_COMM,    // another rank died, timed out or disagreed
    DLS_ERR_STATE    // a call that is wrong at this moment: used before created
} dls_status;

/* declare the status functions */
/* Records a one-line message (printf format) and the place; returns `code`. The arguments
 * may include dls_status_message() itself: a message can be put into a wider one. */
dls_status dls_status_fail(dls_status code, const char *file, int line,
                           const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Adds a place to the trace; returns `code` unchanged. */
dls_status dls_status_pass(dls_status code, const char *file, int line);

static inline dls_status dls_status_keep(dls_status recorded, dls_status code)
{
    (void)recorded;
    return code;
}

/* The last failure of this thread: one line without a newline, "" when there is none.
 * Valid until this thread fails again or clears. */
const char *dls_status_message(void);

/* Where it was born and which calls it passed: lines "  at FILE:LINE\n", "" when none. */
const char *dls_status_trace(void);

void dls_status_clear(void);

/* "input error", "out of memory" ...: a constant string, for any value. */
const char *dls_status_name(dls_status code);

/* fail and pass on */
#define DLS_FAIL(code, ...)                                                  \
    dls_status_keep(dls_status_fail((code), __FILE__, __LINE__, __VA_ARGS__), (code))

#define DLS_TRY(expr)                                                        \
    do {                                                                     \
        dls_status dls_try_ = (expr);                                        \
        if (dls_try_ != DLS_OK) {                                            \
            dls_status_pass(dls_try_, __FILE__, __LINE__);                   \
            return dls_try_;                                                 \
        }                                                                    \
    } while (0)

#define DLS_TRY_GOTO(status, expr, label)                                    \
    do {                                                                     \
        (status) = (expr);                                                   \
        if ((status) != DLS_OK) {                                            \
            dls_status_pass((status), __FILE__, __LINE__);                   \
            goto label;                                                      \
        }                                                                    \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif
