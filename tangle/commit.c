/*
 * commit.c - all or nothing: the files of a plan are put in place together.
 *
 * 1. every new text is written aside, in its own folder, and brought to the disk;
 * 2. every file to be replaced or removed gets a second name (a hard link);
 * 3. the manifest is written with the old and the new hashes, so that a run cut short
 * here leaves nothing that the next run would take for an edit;
 * 4. the new files are renamed into place, the stale ones removed;
 * 5. snapshot and final manifest.
 * A failure up to 4 puts everything back as it was. build/src is not brought to the disk
 * (fsync): it is derived, and the next run compares it with what it should be.
 */
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static VEC(const char *) made_folders;

int make_folders(const char *path)
{
    char *copy = keep_text(slice_of(path));
    for (char *p = copy + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(copy, 0777) == 0)
            PUSH(made_folders, keep_text(slice_of(copy)));
        else if (errno != EEXIST)
            return errno;
        *p = '/';
    }
    return 0;
}

static void unmake_folders(void)
{
    while (made_folders.n)
        rmdir(made_folders.at[--made_folders.n]);
}

static char *beside(const char *path, const char *suffix)
{
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash + 1 - path) : 0;
    return keepf("%.*s.%s%s", folder, path, path + folder, suffix);
}

static int write_all(int fd, slice s)
{
    while (s.n) {
        ssize_t put = write(fd, s.p, s.n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return errno;
        s.p += put;
        s.n -= (size_t)put;
    }
    return 0;
}

/* Writes a new file under a name of its own; scripts can be executed. */
static int stage(const char *path, const char *staged, slice content, bool durable)
{
    int err = make_folders(path);
    if (err)
        return err;
    int fd = open(staged, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                  starts(content, "#!") ? 0777 : 0666);
    if (fd < 0)
        return errno;
    struct stat st;
    if (stat(path, &st) == 0)
        fchmod(fd, st.st_mode & 07777);
    err = write_all(fd, content);
    if (!err && durable && fsync(fd))
        err = errno;
    if (close(fd) && !err)
        err = errno;
    if (err)
        unlink(staged);
    return err;
}

int write_aside(const char *path, slice content)
{
    char *staged = beside(path, ".tangle~");
    int err = stage(path, staged, content, true);
    if (!err && rename(staged, path)) {
        err = errno;
        unlink(staged);
    }
    return err;
}

static bool failed(const struct item *it, int err)
{
    problem(CLASS_IO, "cannot-write", at_file(it->path, 0), "%s", strerror(err));
    return false;
}

static bool stage_all(struct plan *p)
{
    for (size_t i = 0; i < p->items.n; i++) {
        struct item *it = p->items.at[i];
        if (it->action != ACTION_CREATE && it->action != ACTION_REPLACE)
            continue;
        char *staged = beside(it->path, ".tangle~");
        int err = stage(it->path, staged, it->content, it->kind != KIND_SRC);
        if (err)
            return failed(it, err);
        it->staged = staged;
    }
    return true;
}

static void link_all(struct plan *p)
{
    for (size_t i = 0; i < p->items.n; i++) {
        struct item *it = p->items.at[i];
        if (it->action != ACTION_REPLACE && it->action != ACTION_REMOVE)
            continue;
        char *backup = beside(it->path, ".tangle-old~");
        unlink(backup);
        if (link(it->path, backup) == 0) /* a file system without links has no way back */
            it->backup = backup;
    }
}

/* Renames and removes; *done is the number of items dealt with. */
static bool move_all(struct plan *p, size_t *done)
{
    for (*done = 0; *done < p->items.n; ++*done) {
        struct item *it = p->items.at[*done];
        if (it->action == ACTION_REMOVE ? unlink(it->path) && errno != ENOENT
                                        : it->staged && rename(it->staged, it->path))
            return failed(it, errno);
    }
    return true;
}

static void move_back(struct plan *p, size_t done)
{
    while (done-- > 0) {
        struct item *it = p->items.at[done];
        if (it->backup)
            rename(it->backup, it->path);
        else if (it->action == ACTION_CREATE)
            unlink(it->path);
    }
}

/* Empty folders that a removed file leaves behind, up to but not including code/ and
 * tests/. */
static void prune(const char *path)
{
    char *copy = keep_text(slice_of(path)), *slash;
    const char *top = starts(slice_of(path), "build/src/") ? path + 10 : path;
    size_t shortest = (size_t)(strchr(top, '/') - path);
    while ((slash = strrchr(copy, '/')) && (size_t)(slash - copy) > shortest) {
        *slash = '\0';
        if (rmdir(copy))
            return;
    }
}

static void tidy(struct plan *p)
{
    for (size_t i = 0; i < p->items.n; i++) {
        struct item *it = p->items.at[i];
        if (it->backup)
            unlink(it->backup);
        if (it->staged)
            unlink(it->staged); /* there only when a move failed */
        if (it->action == ACTION_REMOVE)
            prune(it->path);
    }
}

static bool record(struct plan *p, struct book *b, slice base, bool both)
{
    slice text = manifest_text(p, b, hash_of(base), both);
    int err = both ? 0 : write_aside(BASE_PATH, base);
    if (!err)
        err = write_aside(MANIFEST_PATH, text);
    if (err)
        problem(CLASS_IO, "cannot-write", at_file(MANIFEST_PATH, 0), "%s", strerror(err));
    return !err;
}

bool plan_commit(struct plan *p, struct book *b)
{
    size_t done = 0;
    slice base = base_text(b);
    bool ok = stage_all(p);
    if (ok) {
        link_all(p);
        ok = record(p, b, base, true);
    }
    if (ok && !move_all(p, &done)) {
        move_back(p, done);
        ok = false;
    }
    if (ok)
        ok = record(p, b, base, false);
    tidy(p);
    if (!ok)
        unmake_folders();
    made_folders.n = 0;
    return ok;
}

/* One tangle at a time in a tree: two makes started together wait for each other here. */
bool lock_tree(void)
{
    int err = make_folders("build/tangle.lock");
    int fd = err ? -1 : open("build/tangle.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0 || flock(fd, LOCK_EX)) {
        problem(CLASS_IO, "cannot-lock", at_file("build/tangle.lock", 0), "%s",
                strerror(err ? err : errno));
        return false;
    }
    made_folders.n = 0;
    return true; /* held until the process ends */
}
