/*
 * target.c - where a root may write: inside the tree, inside its chapter's folders,
 * through no symbolic link.
 */
#include "tangle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool letters_ok(slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool word =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!word && !strchr("._-/", c))
            return false;
    }
    return true;
}

/* What is wrong with a target's name, or NULL. */
static const char *name_wrong(slice s)
{
    if (memchr(s.p, '\0', s.n) || !letters_ok(s))
        return "has a character other than letters, digits and . _ - /";
    if (s.p[0] == '/')
        return "is absolute; targets are relative to the book's folder";
    for (size_t i = 0; i <= s.n;) {
        const char *slash = i < s.n ? memchr(s.p + i, '/', s.n - i) : NULL;
        size_t n = slash ? (size_t)(slash - s.p) - i : s.n - i;
        if (n == 0)
            return "has an empty part between slashes";
        if (n == 2 && memcmp(s.p + i, "..", 2) == 0)
            return "leaves the tree by \"..\"";
        if (s.p[i] == '.')
            return "has a part that begins with a dot";
        i += n + 1;
    }
    if (!starts(s, "code/") && !starts(s, "tests/"))
        return "lies outside code/ and tests/";
    return NULL;
}

static slice folder_of(slice path)
{
    const char *from = memchr(path.p, '/', path.n);
    const char *to = memchr(from + 1, '/', (size_t)(path.p + path.n - from - 1));
    return to ? (slice){from + 1, (size_t)(to - from - 1)} : (slice){NULL, 0};
}

static bool owns(const struct chapter *c, slice folder)
{
    for (size_t i = 0; i < c->owns.n; i++)
        if (same(c->owns.at[i], folder))
            return true;
    return false;
}

/* Whether a chapter with problems may write to the path, which lies under code/ or tests/. */
bool owner_is_broken(struct book *book, slice path)
{
    slice folder = memchr(path.p, '/', path.n) ? folder_of(path) : (slice){NULL, 0};
    for (size_t i = 0; folder.p && i < book->chapters.n; i++)
        if (book->chapters.at[i]->broken && owns(book->chapters.at[i], folder))
            return true;
    return false;
}

static void check_owner(struct book *book, struct block *b)
{
    slice folder = folder_of(b->name);
    if (!folder.p) {
        problem(CLASS_SYNTAX, "bad-target", at_name(b),
                "target \"%.*s\" lies in no folder; write %.*s/FOLDER/…", FMT(b->name),
                starts(b->name, "code/") ? 4 : 5, b->name.p);
        return;
    }
    if (owns(b->src->chapter, folder))
        return;
    problem(CLASS_SYNTAX, "not-owned", at_name(b),
            "chapter \"%s\" does not own folder \"%.*s\"", b->src->chapter->id,
            FMT(folder));
    for (size_t i = 0; i < book->chapters.n; i++)
        if (owns(book->chapters.at[i], folder))
            note("it is owned by chapter \"%s\"", book->chapters.at[i]->id);
    note("book.yaml: the folders a chapter writes to are listed under \"owns\"");
}

/* Called for every root when its block is read. */
void target_check(struct book *book, struct block *b)
{
    const char *what = name_wrong(b->name);
    if (what)
        problem(CLASS_SYNTAX, "bad-target", at_name(b), "target \"%.*s\" %s",
                FMT(b->name), what);
    else
        check_owner(book, b);
}

/* A symbolic link or a file where a folder should be, on the way to a target. */
static void check_way(map *seen, struct block *b)
{
    for (size_t i = 1; i <= b->name.n; i++) {
        if (i < b->name.n && b->name.p[i] != '/')
            continue;
        slice part = {b->name.p, i};
        char *path = keep_text(part);
        struct stat st;
        if (map_get(seen, part))
            continue;
        map_put(seen, slice_of(path), b);
        if (lstat(path, &st))
            return;
        if (S_ISLNK(st.st_mode)) {
            problem(CLASS_SYNTAX, "symbolic-link", at_name(b),
                    "target \"%.*s\" goes through the symbolic link \"%s\"", FMT(b->name),
                    path);
            return;
        }
        if (i < b->name.n ? !S_ISDIR(st.st_mode) : !S_ISREG(st.st_mode)) {
            problem(CLASS_IO, "in-the-way", at_name(b), "\"%s\" is not a %s", path,
                    i < b->name.n ? "folder" : "file");
            return;
        }
    }
}

/* Called once all roots are known. */
void targets_check(struct book *book)
{
    map seen = {0};
    for (size_t i = 0; i < book->chunks.n; i++) {
        struct chunk *c = book->chunks.at[i];
        if (!c->root || name_wrong(c->name))
            continue;
        check_way(&seen, c->blocks.at[0]);
        for (size_t k = 1; k < c->name.n; k++) {
            struct chunk *above =
                c->name.p[k] == '/' ? map_get(&book->root_by_path, (slice){c->name.p, k})
                                    : NULL;
            if (above)
                problem(CLASS_SYNTAX, "bad-target", at_name(c->blocks.at[0]),
                        "target \"%.*s\" needs \"%.*s\" to be a folder, but it is a "
                        "target too",
                        FMT(c->name), FMT(above->name));
        }
    }
}
