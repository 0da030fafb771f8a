/* code/base/file.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Whole files. PATH.part is written under an exclusive flock, then renamed to PATH.
 *
 *     begin              append ...        commit
 *     open+lock .part -> write .part  ->  fsync .part -> rename -> fsync directory
 *                                  \-> abort: unlink .part
 * Random names aside were tried: a test that kills writers filled the disk with them.
 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct dls_file_writer {
    int fd;
    char *path;   // the final name
    char *aside;  // path + ".part"
};

/* read until the end */
static dls_status read_all(int fd, const char *path, char **data, size_t *size)
{
    struct stat info;
    if (fstat(fd, &info) != 0)
        return DLS_FAIL(DLS_ERR_IO, "%s: cannot read: %s", path, strerror(errno));
    size_t room = info.st_size > 0 ? (size_t)info.st_size + 1 : 4096, used = 0;
    char *buffer = malloc(room);
    for (;;) {
        /* make room for one more byte */
        if (buffer && used + 1 == room) {
            char *larger = realloc(buffer, room *= 2);
            if (!larger)
                free(buffer);
            buffer = larger;
        }
        if (!buffer)
            return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory to read it", path);
        ssize_t n = read(fd, buffer + used, room - used - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int why = errno;
            free(buffer);
            return DLS_FAIL(DLS_ERR_IO, "%s: cannot read: %s", path, strerror(why));
        }
        if (n == 0)
            break;
        used += (size_t)n;
    }
    buffer[used] = 0;
    *data = buffer;
    *size = used;
    return DLS_OK;
}

dls_status dls_file_read(const char *path, char **data, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return DLS_FAIL(DLS_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    dls_status status = read_all(fd, path, data, size);
    close(fd);
    return status;
}

/* lock the file aside */
static int same_file(int fd, const char *path)
{
    struct stat held, named;
    return fstat(fd, &held) == 0 && stat(path, &named) == 0 &&
           held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

static dls_status open_aside(dls_file_writer *w)
{
    for (;;) {
        w->fd = open(w->aside, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (w->fd < 0)
            return DLS_FAIL(DLS_ERR_IO, "%s: cannot create: %s", w->aside,
                            strerror(errno));
        if (flock(w->fd, LOCK_EX | LOCK_NB) != 0)
            return DLS_FAIL(DLS_ERR_IO, "%s: another writer is at work on it", w->path);
        if (same_file(w->fd, w->aside))
            break;
        close(w->fd);
    }
    if (ftruncate(w->fd, 0) != 0)
        return DLS_FAIL(DLS_ERR_IO, "%s: cannot truncate: %s", w->aside, strerror(errno));
    return DLS_OK;
}

/* begin a staged file */
static void free_writer(dls_file_writer *w)
{
    if (w->fd >= 0)
        close(w->fd);  // drops the lock as well
    free(w->path);
    free(w->aside);
    free(w);
}

dls_status dls_file_begin(const char *path, dls_file_writer **out)
{
    dls_status status = DLS_OK;
    dls_file_writer *w = calloc(1, sizeof *w);
    size_t n = strlen(path);
    if (w) {
        w->fd = -1;
        w->path = strdup(path);
        w->aside = malloc(n + sizeof ".part");
    }
    if (!w || !w->path || !w->aside)
        DLS_TRY_GOTO(status, DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", path), fail);
    memcpy(w->aside, path, n);
    memcpy(w->aside + n, ".part", sizeof ".part");
    DLS_TRY_GOTO(status, open_aside(w), fail);
    *out = w;
    return DLS_OK;
fail:
    if (w)
        free_writer(w);
    return status;
}

/* append to a staged file */
dls_status dls_file_append(dls_file_writer *w, const void *data, size_t size)
{
    const char *bytes = data;
    while (size > 0) {
        ssize_t n = write(w->fd, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return DLS_FAIL(DLS_ERR_IO, "%s: cannot write: %s", w->aside,
                            strerror(errno));
        bytes += n;
        size -= (size_t)n;
    }
    return DLS_OK;
}

/* finish a staged file */
static dls_status sync_directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *directory = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    if (!directory)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", path);
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int failed = fd < 0 || (fsync(fd) != 0 && errno != EINVAL);
    int why = errno;
    if (fd >= 0)
        close(fd);
    free(directory);
    if (failed)
        return DLS_FAIL(DLS_ERR_IO, "%s: cannot sync its directory: %s", path,
                        strerror(why));
    return DLS_OK;
}

dls_status dls_file_commit(dls_file_writer *w)
{
    dls_status status = DLS_OK;
    if (fsync(w->fd) != 0)
        DLS_TRY_GOTO(status, DLS_FAIL(DLS_ERR_IO, "%s: cannot sync: %s", w->aside,
                                      strerror(errno)), fail);
    if (rename(w->aside, w->path) != 0)
        DLS_TRY_GOTO(status, DLS_FAIL(DLS_ERR_IO, "%s: cannot replace: %s", w->path,
                                      strerror(errno)), fail);
    status = sync_directory_of(w->path);
    free_writer(w);
    return status;
fail:
    dls_file_abort(w);
    return status;
}

void dls_file_abort(dls_file_writer *w)
{
    if (!w)
        return;
    unlink(w->aside);  // before the lock goes: afterwards it may be someone else's
    free_writer(w);
}

dls_status dls_file_write(const char *path, const void *data, size_t size)
{
    dls_file_writer *w;
    DLS_TRY(dls_file_begin(path, &w));
    dls_status status = dls_file_append(w, data, size);
    if (status != DLS_OK) {
        dls_file_abort(w);
        return status;
    }
    return dls_file_commit(w);
}

/* make directories */
static dls_status make_directory(const char *path)
{
    struct stat info;
    if (mkdir(path, 0777) == 0)
        return DLS_OK;
    int why = errno;
    if (why == EEXIST)
        why = stat(path, &info) == 0 && S_ISDIR(info.st_mode) ? 0 : ENOTDIR;
    if (why)
        return DLS_FAIL(DLS_ERR_IO, "%s: cannot make this directory: %s", path,
                        strerror(why));
    return DLS_OK;
}

dls_status dls_file_mkdirs(const char *path)
{
    char *prefix = strdup(path);
    if (!prefix)
        return DLS_FAIL(DLS_ERR_MEMORY, "%s: no memory", path);
    dls_status status = DLS_OK;
    for (char *c = prefix + (*prefix == '/'); status == DLS_OK && *c; c++) {
        if (*c != '/')
            continue;
        *c = 0;
        status = make_directory(prefix);
        *c = '/';
    }
    if (status == DLS_OK)
        status = make_directory(prefix);
    free(prefix);
    return status;
}
