/*
 * tangle.h - the literate tool: data model and the modules' interfaces.
 *
 * A run goes through the same stations whatever the command:
 *
 *   book.yaml --book.c--> chapters, files
 *   chapters  --source.c, attr.c, fate.c--> blocks with fates, references, runs,
 * exercises blocks    --resolve.c--> chunks and roots, every reference bound, every rule
 * checked roots     --expand.c--> outputs: the clean text and the text with #line, with
 * line maps outputs   --store.c, commit.c--> files (all or none), manifest, base snapshot
 *
 * Nothing prints on the way: every problem goes into one report (problem.c), which is
 * sorted and printed at the end, so that a reader sees all of them at once. Memory is
 * taken from one arena that lives as long as the process; slices point into the chapters'
 * texts and are never copied.
 */
#ifndef TANGLE_H
#define TANGLE_H

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- util.c: memory, text, files ------------------------------------------------- */

/* Text that is not owned and not terminated. */
typedef struct {
    const char *p;
    size_t n;
} slice;

#define SLICE(literal) ((slice){literal, sizeof(literal) - 1})
#define FMT(s) (int)(s).n, (s).p /* for printf's "%.*s" */

/* A growing text; p is not terminated. */
typedef struct {
    char *p;
    size_t n, cap;
} text;

#define VEC(type)      \
    struct {           \
        type *at;      \
        size_t n, cap; \
    }
#define PUSH(v, ...)                                             \
    ((v).at = vec_room((v).at, (v).n, &(v).cap, sizeof *(v).at), \
     (v).at[(v).n++] = (__VA_ARGS__))

/* Zeroed memory that lives as long as the process. Never NULL: without memory it ends. */
void *keep(size_t size);
char *keepf(const char *format, ...) __attribute__((format(printf, 1, 2)));
char *keep_text(slice s);
void *vec_room(void *at, size_t n, size_t *cap, size_t size);

slice slice_of(const char *terminated);
bool same(slice a, slice b);
bool is(slice a, const char *literal);
bool starts(slice a, const char *prefix);
slice trim(slice s);
int characters(const char *p, size_t n); /* code points in n bytes of UTF-8 */
/* Length of the UTF-8 sequence at p, or 0 when it is none (overlong, surrogate, too
 * large). */
size_t utf8_length(const unsigned char *p, size_t n);
void add(text *t, const char *p, size_t n);
void addf(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
slice text_slice(const text *t);
uint64_t hash_of(slice s);

/* Reads a regular file. Returns 0 or an errno value. */
int slurp(const char *path, slice *out);
/* Cuts a text at newlines; a last line without newline counts. *count gets their number.
 */
slice *cut_lines(slice whole, int *count);

/* A map from text to a pointer; keys are kept by reference. */
typedef struct {
    struct map_slot {
        slice key;
        void *value;
    } * slot;
    size_t n, cap;
} map;
void *map_get(const map *m, slice key);
void map_put(map *m, slice key, void *value);

/* Distance of two words in insertions, deletions, replacements and swaps of neighbours.
 */
int edit_distance(slice a, slice b);

/* The candidate nearest to a mistyped word, if near enough to be worth a "did you mean".
 */
typedef struct {
    slice word, best;
    int distance;
} guess;
guess guess_for(slice word);
void guess_try(guess *g, slice candidate);

#define BOOK_YAML "book.yaml"

/* ---- the book -------------------------------------------------------------------- */

enum lang {
    LANG_C,
    LANG_CUDA,
    LANG_CPP,
    LANG_YAML,
    LANG_SH,
    LANG_MAKE,
    LANG_LUA,
    LANG_JS,
    LANG_TEXT,
    LANG_JSON,
    LANG_OTHER
};

enum fate {
    FATE_NONE,
    FATE_ROOT,
    FATE_CHUNK,
    FATE_RUN,
    FATE_EXPECT,
    FATE_FAILS,
    FATE_SOLUTION,
    FATE_QUOTE
};

struct chapter {
    const char *id, *number; /* number "" when unnumbered */
    VEC(slice) owns;
    VEC(struct source *) files;
    bool broken; /* has problems: write --keep-going leaves its outputs alone */
};

/* One Markdown file. */
struct source {
    const char *path;
    struct chapter *chapter;
    slice all;
    slice *line; /* line[0] is line 1 */
    int lines;
    char *kind; /* per line: LINE_PROSE ... */
    int order;  /* position in the book, for sorting problems */
    int yaml_line, yaml_column;
    bool missing;
};
enum { LINE_PROSE, LINE_FENCE, LINE_CODE, LINE_RAW };

struct attribute {
    char kind; /* '.' class, '#' id, '=' key */
    slice name, value;
    int column, value_column; /* from 1, in characters */
};
typedef VEC(struct attribute) attributes;

struct chunk;

/* <<name>> alone on a line of a block. */
struct ref {
    struct block *in;
    int row;    /* line of the block, from 0 */
    int indent; /* bytes of white space before it */
    slice name;
    struct chunk *to;
};

/* A fenced block. */
struct block {
    struct source *src;
    int fence, column; /* line of the opening fence; column it starts in */
    int first, lines;  /* first line of the body, and how many there are */
    enum lang lang;
    slice lang_name;
    enum fate fate;
    slice name; /* root: path; chunk: name; run: id; expect, solution: of; fails: match */
    int name_column;
    attributes attrs;
    struct chunk *chunk; /* root and chunk */
    int part;            /* 1-based among the blocks of its chunk */
    struct ref *ref;     /* the block's references in order */
    int refs;
};

/* A named chunk, or (root) an output file, which is a chunk under a path's name. */
struct chunk {
    slice name;
    bool root;
    VEC(struct block *) blocks;
    VEC(struct ref *) uses;
    int mark; /* for the depth-first search */
};

struct exercise {
    slice name;
    struct source *src;
    int line;
    struct block *solution;
};

struct run {
    slice id;
    struct block *block;
    struct block *expect;
};

/* A chunk named in the prose. */
struct mention {
    slice name;
    struct source *src;
    int line, column;
};

struct book {
    slice yaml;   /* book.yaml */
    json_t *meta; /* the same as an object */
    VEC(struct chapter *) chapters;
    VEC(struct source *) sources;
    VEC(struct block *) blocks;
    VEC(struct chunk *) chunks; /* in order of first appearance, roots among them */
    VEC(struct run *) runs;
    VEC(struct exercise *) exercises;
    VEC(struct mention) mentions;
    map chunk_by_name, root_by_path, run_by_id, exercise_by_name;
    int missing; /* files of book.yaml that are not there */
};

slice block_line(const struct block *b, int row);
slice attribute_of(const struct block *b, const char *key); /* p == NULL when absent */
bool has_class(const struct block *b, const char *name);
const char *fate_name(enum fate f);
const char *anchor_of(const struct block *b); /* the weave's anchor */

/* ---- problem.c: what is wrong, all of it ----------------------------------------- */

enum class {
    CLASS_NONE = 0,
    CLASS_RUN = 1,
    CLASS_USAGE = 2,
    CLASS_SYNTAX = 3,
    CLASS_REFERENCE = 4,
    CLASS_CONFLICT = 5,
    CLASS_IO = 6,
    CLASS_STYLE = 7
};

struct place {
    const char *file;         /* NULL: no place */
    const struct source *src; /* to show the line, or NULL */
    int line, column, width;  /* 0 when unknown */
};
struct place at_line(const struct source *src, int line);
struct place at_span(const struct source *src, int line, int column, int width);
struct place at_ref(const struct ref *r);
struct place at_name(const struct block *b);
struct place at_file(const char *path, int line);

/* Reports a problem; `code` is its stable short name ("undefined-chunk"). */
void problem(enum class c, const char *code, struct place where, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Adds a line under the problem reported last. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void note_guess(const guess *g);
int problem_count(void);
int warning_count(void);
enum class problem_class(
    void); /* the first class, in the order of the numbers, that occurred */
size_t problems_mark(void); /* to take back what is reported from here on */
void problems_rewind(size_t mark);
bool problems_break_chapters(
    void);                  /* sets chapter.broken; false: some are of no chapter */
void problems_strict(void); /* from now on style warnings are errors */
void problems_print(FILE *out);
json_t *problems_json(void);

/* ---- reading --------------------------------------------------------------------- */

/* Where book_load() takes the files' texts from: the disk, or a snapshot. 0 or an errno
 * value. */
typedef int reader(void *context, const char *path, slice *out);

struct load_options {
    bool allow_missing;
    reader *read; /* NULL: slurp */
    void *context;
};

/* Reads book.yaml and all chapters and checks everything that can be checked without
 * looking at the outputs. Problems go into the report; the book is complete as far as it
 * could be read. */
struct book *book_load(const struct load_options *o);
void book_yaml(struct book *b, slice yaml);         /* book.c */
void source_read(struct book *b, struct source *s); /* source.c */
bool attributes_parse(struct source *s, int line, slice brace,
                      attributes *out);                         /* attr.c */
void fate_decide(struct block *b, slice info, int info_column); /* fate.c */
bool chunk_name_ok(slice s);
void target_check(struct book *book, struct block *b); /* target.c */
void targets_check(struct book *book);
bool owner_is_broken(struct book *book, slice path);
void resolve(struct book *b); /* resolve.c */

/* ---- expand.c -------------------------------------------------------------------- */

enum origin_kind { FROM_HEADER, FROM_COMMENT, FROM_TEXT, FROM_LINE };

/* One expansion of one block: the same block expanded twice has two. */
struct instance {
    struct block *block;
    slice indent;
    int parent; /* instance holding the reference, -1 for a root */
    int row;    /* of the reference in it */
};

/* Where a line of an output comes from. A comment's row is that of the reference it
 * stands for. */
struct origin {
    int instance, row;
    enum origin_kind kind;
};

typedef VEC(struct origin) origins;

struct output {
    const char *path;     /* code/... or tests/... */
    const char *src_path; /* build/src/... */
    struct chunk *root;
    text clean, src;
    VEC(struct instance) instances;
    origins clean_map, src_map;
};
typedef VEC(struct output *) outputs;

/* Expands every root of a book without problems. With `maps` the line maps are filled as
 * well. */
void expand(struct book *b, outputs *out, bool maps);
bool has_header(slice content, const char *path); /* is this a file that tangle wrote? */

/* ---- commands -------------------------------------------------------------------- */

struct options {
    const char *command;
    bool json, lua, strict, allow_missing, force, slow, keep_going;
    const char *only;
    const char *
        prefix; /* the folder tangle was started in, below the book's; NULL: the book's */
    int argc;
    char **argv; /* arguments that are not options */
};

void command_write(const struct options *o);
void command_check(const struct options *o);
void command_untangle(const struct options *o);
void command_where(const struct options *o);
void command_list(const struct options *o);
void command_index(const struct options *o);
void command_stats(const struct options *o);
void command_run(const struct options *o);

/* The book of the working folder as a command wants it. */
struct book *load_current(const struct options *o);
/* Prints a JSON object (which it takes over) or keeps it for the end when problems come
 * first. */
void result(json_t *object);
extern json_t *the_result;
extern bool problems_as_text; /* even with --json */

/* index: identifiers of the C blocks (scan.c) and the two notations (emit.c) */
json_t *identifiers_json(struct book *b);
json_t *index_json(struct book *b);
json_t *json_of(slice s); /* what is not UTF-8 becomes U+FFFD */
void emit_json(json_t *v, FILE *out);
void emit_lua(json_t *v, FILE *out);

/* run.c and record.c */
struct record {
    bool present;
    slice output;
    const char *command, *machine, *date;
    uint64_t hash;
    int exit;
};
struct record record_read(slice id);
void record_forget_files(void); /* a run may have changed what others need */
uint64_t record_hash(const struct run *r);
slice run_command_text(const struct block *b);
const char *record_write(const struct run *r, const struct record *rec);
const char *machine_name(void);
/* expect.c: the row of the first line of an output that does not meet the expectation, or
 * -1. *got is the line that came instead (p == NULL when the output ended). */
int expectation_row(const struct block *expect, slice output, slice *got);
/* process.c: runs argv with both outputs merged. */
struct process {
    text output;
    int exit; /* 128 + signal when killed */
    bool timed_out;
};
int process_run(char *const argv[], slice input, int timeout, bool c_locale,
                struct process *out);

#endif
