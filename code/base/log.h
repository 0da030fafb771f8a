/* code/base/log.h: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Log lines on the standard error, whole, with the rank in front when there are several.
 * DLS_LOG=debug|info|warn|error|none chooses the least level that is shown (info). */
#ifndef DLS_BASE_LOG_H
#define DLS_BASE_LOG_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dls_log_level {
    DLS_LOG_DEBUG, DLS_LOG_INFO, DLS_LOG_WARN, DLS_LOG_ERROR, DLS_LOG_NONE
} dls_log_level;

/* declare the log functions */
/* One line; a newline at the end is added, those inside are kept. Never fails. */
void dls_log(dls_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* From now on lines begin with "[rank/world] " when world > 1. */
void dls_log_set_rank(int rank, int world);
int dls_log_world(void);        // before: 1

/* Replaces what DLS_LOG said. */
void dls_log_set_level(dls_log_level level);

#ifdef __cplusplus
}
#endif
#endif
