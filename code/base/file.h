/* code/base/file.h: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Files read whole, and written whole or not at all (aside, fsync, rename).
 * Errors: DLS_ERR_IO with the path and the system's reason, DLS_ERR_MEMORY. */
#ifndef DLS_BASE_FILE_H
#define DLS_BASE_FILE_H

#include <stddef.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare whole files */
/* Reads all of a file. *data is malloc'ed, has a zero byte after its *size bytes, and
 * is the caller's to free; on an error both are left alone. */
dls_status dls_file_read(const char *path, char **data, size_t *size);

/* Replaces `path` by these bytes. After an error or a crash the old file is whole. */
dls_status dls_file_write(const char *path, const void *data, size_t size);

/* Creates a directory and those above it; content with what exists already. */
dls_status dls_file_mkdirs(const char *path);

/* declare the staged writer */
typedef struct dls_file_writer dls_file_writer;

/* Opens PATH.part beside `path`. Refused while another process is writing it. */
dls_status dls_file_begin(const char *path, dls_file_writer **out);
dls_status dls_file_append(dls_file_writer *w, const void *data, size_t size);

/* Makes the new content durable and puts it in place; frees w, also on an error, after
 * which the old file is there as before. */
dls_status dls_file_commit(dls_file_writer *w);

/* Forgets the new content; frees w. w may be NULL. */
void dls_file_abort(dls_file_writer *w);

#ifdef __cplusplus
}
#endif
#endif
