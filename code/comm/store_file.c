/* code/comm/store_file.c: from chapters/04-data-parallelism-rendezvous.md. Edit the chapter, or edit here and run "make untangle". */
/* A store in a file: a log of changes under a lock, replayed by everybody.
 *
 *   | head | key | value | head | key | value | ... |  torn: cut off by the next writer
 *
 * The lock is a range of bytes (fcntl), which network file systems know as well, and it
 * belongs to the open file, not to the process: two stores in one process exclude each
 * other. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "comm/store_private.h"

/* define a file store */
typedef struct record {
    uint32_t magic, op;        // DLS_STORE_SET or DLS_STORE_DELETE
    uint32_t key, bytes;       // which follow
    uint64_t check;            // of these
} record;

typedef struct file_store {
    dls_store base;
    int fd;
    off_t at;                  // replayed up to here
    dls_store_table *table;
    char *body;                // of the record under way
} file_store;

enum { RECORD_MAGIC = 0x31464c44, LOCK_SECONDS = 5 };

/* lock the file */
static dls_status lock(const file_store *f)
{
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    double until = dls_store_clock() + LOCK_SECONDS;
    while (fcntl(f->fd, F_OFD_SETLK, &all) != 0) {
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return DLS_FAIL(DLS_ERR_IO, "%s: cannot lock it: %s", f->base.url,
                            strerror(errno));
        if (dls_store_clock() > until)
            return DLS_FAIL(DLS_ERR_COMM, "%s: another process has held its lock for %d "
                            "s; is one of the ranks stopped?", f->base.url, LOCK_SECONDS);
        usleep(1000);
    }
    return DLS_OK;
}

static void unlock(const file_store *f)
{
    struct flock all = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    fcntl(f->fd, F_OFD_SETLK, &all);
}

/* replay what is new */
/* 1: a whole record, its body read; 0: the end, or a torn one; -1: not our file. */
static int read_record(file_store *f, record *r)
{
    ssize_t n = pread(f->fd, r, sizeof *r, f->at);
    if (n >= 4 && r->magic != RECORD_MAGIC)
        return -1;
    if (n != (ssize_t)sizeof *r)
        return 0;
    if (r->key == 0 || r->key > DLS_STORE_KEY || r->bytes > DLS_STORE_VALUE)
        return -1;
    size_t size = r->key + r->bytes;
    char *body = realloc(f->body, size);
    if (!body)
        return -1;
    f->body = body;
    n = pread(f->fd, body, size, f->at + (off_t)sizeof *r);
    return n == (ssize_t)size && dls_hash64(body, size) == r->check;
}

static dls_status replay(file_store *f)
{
    record r;
    dls_store_answer ignored;
    struct stat info;
    int whole;
    if (fstat(f->fd, &info) == 0 && info.st_nlink == 0)
        return DLS_FAIL(DLS_ERR_COMM, "%s: the file was deleted meanwhile", f->base.url);
    while ((whole = read_record(f, &r)) > 0) {
        dls_store_request change = {.op = (int)r.op, .value = f->body + r.key,
                                    .bytes = r.bytes};
        memcpy(change.key, f->body, r.key);
        DLS_TRY(dls_store_apply(f->table, &change, &ignored));
        f->at += (off_t)(sizeof r + r.key + r.bytes);
    }
    if (whole < 0)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: this file is not a store; name one that does "
                        "not exist yet", f->base.url);
    if (info.st_size > f->at && ftruncate(f->fd, f->at) != 0)
        return DLS_FAIL(DLS_ERR_IO, "%s: %s", f->base.url, strerror(errno));
    return DLS_OK;
}

/* append a change */
static dls_status append(file_store *f, const char *key, const dls_store_answer *now,
                         int deleted)
{
    size_t n = strlen(key), size = n + now->bytes, total = sizeof(record) + size;
    char *whole = malloc(total);
    if (!whole)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a record of a store");
    memcpy(whole + sizeof(record), key, n);
    if (now->bytes)
        memcpy(whole + sizeof(record) + n, now->value, now->bytes);
    record r = {RECORD_MAGIC, deleted ? DLS_STORE_DELETE : DLS_STORE_SET, (uint32_t)n,
                (uint32_t)now->bytes, dls_hash64(whole + sizeof(record), size)};
    memcpy(whole, &r, sizeof r);
    ssize_t written = pwrite(f->fd, whole, total, f->at);
    free(whole);
    if (written != (ssize_t)total)
        return DLS_FAIL(DLS_ERR_IO, "%s: cannot write: %s", f->base.url,
                        written < 0 ? strerror(errno) : "the disk is full");
    f->at += (off_t)total;
    return DLS_OK;
}

/* ask the file */
static dls_status ask_once(file_store *f, const dls_store_request *r, dls_store_answer *a)
{
    dls_store_answer now;
    dls_store_request get = {.op = DLS_STORE_GET};
    DLS_TRY(replay(f));
    DLS_TRY(dls_store_apply(f->table, r, a));
    if (!a->changed)
        return DLS_OK;
    memcpy(get.key, r->key, sizeof get.key);
    DLS_TRY(dls_store_apply(f->table, &get, &now));
    return append(f, r->key, &now, r->op == DLS_STORE_DELETE);
}

static dls_status ask_file(dls_store *store, const dls_store_request *r, double seconds,
                           dls_store_answer *answer)
{
    file_store *f = (file_store *)store;
    double until = dls_store_clock() + seconds;
    useconds_t pause = 500;
    for (;;) {
        DLS_TRY(lock(f));
        dls_status status = ask_once(f, r, answer);
        unlock(f);
        if (status != DLS_OK || answer->ready)
            return status;
        if (dls_store_clock() >= until)
            return DLS_FAIL(DLS_ERR_COMM, "%s: nobody has set '%s' within %g s",
                            store->url, r->key, seconds);
        usleep(pause);
        pause = pause < 20000 ? 2 * pause : pause;
    }
}

/* open and close a file store */
static void close_file(dls_store *store)
{
    file_store *f = (file_store *)store;
    if (f->fd >= 0)
        close(f->fd);
    dls_store_table_destroy(f->table);
    free(f->body);
    free(f);
}

dls_status dls_store_file_open(const char *url, const char *path, dls_store **out)
{
    file_store *f = calloc(1, sizeof *f);
    if (!f || !(f->table = dls_store_table_create())) {
        free(f);
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a store");
    }
    f->base = (dls_store){.ask = ask_file, .close = close_file};
    snprintf(f->base.url, sizeof f->base.url, "%s", url);
    f->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (f->fd < 0) {
        int error = errno;
        close_file(&f->base);
        return DLS_FAIL(DLS_ERR_IO, "%.200s: %s", url, strerror(error));
    }
    *out = &f->base;
    return DLS_OK;
}
