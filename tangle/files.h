/*
 * files.h - the part of the tool that deals with the disk: what is there, what should be,
 * what was edited, and how all of it is changed at once.
 */
#ifndef TANGLE_FILES_H
#define TANGLE_FILES_H

#include "tangle.h"

/* ---- store.c, commit.c, base.c: what is on the disk, and what should be ---------- */

enum kind { KIND_CLEAN, KIND_SRC, KIND_CHAPTER };
enum action { ACTION_KEEP, ACTION_CREATE, ACTION_REPLACE, ACTION_REMOVE };

struct item {
    const char *path;
    enum kind kind;
    enum action action;
    slice content; /* what the file is to be */
    uint64_t hash; /* of content */
    slice disk;    /* what is there now */
    const char *staged, *backup;
    struct chunk *root; /* the root it comes from; NULL for chapters and stale files */
};

struct entry {
    const char *path;
    enum kind kind;
    uint64_t
        hash[2]; /* either is a text that tangle wrote; two after an interrupted run */
    int hashes;
};

struct input {
    const char *path;
    uint64_t hash;
    bool missing;
};

struct manifest {
    bool present;
    uint64_t tool, base;
    VEC(struct entry *) entries;
    map by_path;
    VEC(struct input) inputs;
};

/* The book as it was when the outputs were last in step with it. */
struct base {
    enum { BASE_NONE, BASE_SNAPSHOT, BASE_HEAD } from;
    struct book *book;
    outputs outputs;
    map by_path; /* output by clean path */
};

struct plan {
    VEC(struct item *) items;
    map by_path;
    struct manifest old;
    struct base *base; /* read when first needed */
};

void manifest_read(struct manifest *m);
/* Are all inputs and outputs as the last write left them? */
bool manifest_unchanged(const struct manifest *m, bool allow_missing);
slice manifest_text(const struct plan *p, const struct book *b, uint64_t base, bool both);

/* Decides for every output and every stale file what to do. `absorbed` (may be NULL)
 * holds the paths whose edits are in the chapters by now; with `force` edited files are
 * overwritten. */
void plan_make(struct plan *p, struct book *b, const outputs *o, const map *absorbed,
               bool force);
struct item *plan_add(struct plan *p, const char *path, enum kind kind, slice content);
/* Calls visit for every file under code/ and tests/ that is no dot file. */
void walk_outputs(void (*visit)(void *context, const char *path), void *context);
/* All or nothing: true when every file is in place, false when none was changed. */
bool plan_commit(struct plan *p, struct book *b);
/* Writes a file aside and renames it. Returns 0 or an errno value. */
int write_aside(const char *path, slice content);
int make_folders(const char *path); /* those above path */
slice base_text(const struct book *b);
int head_text(const char *path, slice *out); /* as git's HEAD has it; 0 or ENOENT */
struct base *base_load(const struct manifest *m, bool head_only);
bool lock_tree(void);

#define MANIFEST_PATH "build/tangle.manifest"
#define BASE_PATH "build/tangle.base"

/* ---- diff.c ---------------------------------------------------------------------- */

struct hunk {
    int a, an, b, bn; /* lines a..a+an of the old text become b..b+bn of the new */
};
typedef VEC(struct hunk) hunks;
void diff_lines(const slice *a, int an, const slice *b, int bn, hunks *out);
void diff_show(text *t, slice old, slice new);

/* ---- place.c: the edits of an output, by block ----------------------------------- */

typedef VEC(slice) lines_of_text;

struct row_edit {
    bool gone;
    lines_of_text after; /* new lines after this row */
};

struct edited {
    const struct output *base; /* as it was written, with its map */
    slice disk;                /* as it is now */
    slice *base_line, *line;
    int lines;
    struct row_edit **rows; /* per instance: rows[i][0] is before the first row */
    bool refused;
};
void place_edits(struct edited *e);
lines_of_text edited_body(const struct edited *e, int instance);

#endif
