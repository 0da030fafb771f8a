/*
 * run.c - `tangle run`: executes the book's .run blocks, compiles its .fails blocks.
 *
 * A block runs when its record is missing or stale. What it printed is recorded and held
 * against the expectation in the chapter; a fresh record is held against it too, since
 * the expectation may have changed. A block that fails leaves the old record as it was.
 */
#include "tangle.h"

#include <stdlib.h>
#include <string.h>

enum { SECONDS = 60, SHOWN_LINES = 12 };

static long number_of(const struct block *b, const char *key, long otherwise)
{
    slice s = attribute_of(b, key);
    return s.p ? strtol(keep_text(s), NULL, 10) : otherwise;
}

/* The end of an output, as notes under a problem. */
static void note_tail(slice output)
{
    int n;
    slice *line = cut_lines(output, &n);
    if (n > SHOWN_LINES)
        note("... %d lines before", n - SHOWN_LINES);
    for (int i = n > SHOWN_LINES ? n - SHOWN_LINES : 0; i < n; i++)
        note("| %.*s", FMT(line[i]));
}

static void check_expectation(const struct run *r, slice output)
{
    slice got;
    const struct block *e = r->expect;
    int row = e ? expectation_row(e, output, &got) : -1;
    if (row < 0)
        return;
    bool wanted = row < e->lines;
    problem(CLASS_RUN, "unmet-expectation", at_line(e->src, e->first + row),
            "run \"%.*s\" printed something else", FMT(r->id));
    if (wanted)
        note("- %.*s", FMT(block_line(e, row)));
    if (got.p)
        note("+ %.*s", FMT(got));
    else
        note("the output ends here");
}

/* Runs one block. Returns what became of it, for the table. */
static const char *run_block(const struct run *r, uint64_t hash)
{
    const struct block *b = r->block;
    struct process p = {0};
    long wanted = number_of(b, "exit", 0), seconds = number_of(b, "timeout", SECONDS);
    char *argv[] = {"bash", "-euo", "pipefail", "-c", keep_text(run_command_text(b)),
                    NULL};
    record_forget_files();
    if (process_run(argv, (slice){"", 0}, (int)seconds, false, &p)) {
        problem(CLASS_IO, "cannot-run", at_name(b), "bash cannot be started");
        return "failed";
    }
    if (p.timed_out)
        problem(CLASS_RUN, "timeout", at_name(b), "run \"%.*s\" took more than %ld s",
                FMT(r->id), seconds);
    else if (p.exit != wanted)
        problem(CLASS_RUN, "run-failed", at_name(b),
                "run \"%.*s\" ended with %d, not %ld", FMT(r->id), p.exit, wanted);
    if (p.timed_out || p.exit != wanted) {
        note_tail(text_slice(&p.output));
        return "failed";
    }
    struct record rec = {.output = text_slice(&p.output), .hash = hash, .exit = p.exit};
    const char *wrong = record_write(r, &rec);
    if (wrong)
        problem(CLASS_IO, "cannot-write", at_name(b), "build/run/%.*s.json: %s",
                FMT(r->id), wrong);
    check_expectation(r, rec.output);
    return wrong ? "failed" : "ran";
}

static const char *visit_run(const struct options *o, const struct run *r)
{
    struct record rec = record_read(r->id);
    uint64_t hash = record_hash(r);
    if (rec.present && rec.hash == hash && !o->force) {
        check_expectation(r, rec.output);
        return "fresh";
    }
    if (has_class(r->block, "slow") && !o->slow)
        return rec.present ? "stale" : "missing";
    if (!o->json) {
        fprintf(stderr, "tangle: running %.*s\n", FMT(r->id));
        fflush(stderr);
    }
    return run_block(r, hash);
}

/* ---- blocks that must not compile ------------------------------------------------ */

static char **compiler(enum lang l)
{
    static char *c[] = {"gcc", "-std=c11", "-fsyntax-only", "-Icode", "-x", "c",
                        "-",   NULL};
    static char *cpp[] = {"g++",    "-std=c++17",  "-fsyntax-only",
                          "-Icode", "-Icode/vgpu/shadow", "-x",
                          "c++",    "-",           NULL};
    return l == LANG_C ? c : cpp;
}

static bool compile_failing(const struct block *b)
{
    struct process p = {0};
    text t = {0};
    slice body = run_command_text(b);
    addf(&t, "#line %d \"%s\"\n%.*s\n", b->first, b->src->path, FMT(body));
    if (b->lang != LANG_C && b->lang != LANG_CPP && b->lang != LANG_CUDA) {
        problem(CLASS_SYNTAX, "unknown-language", at_name(b),
                "only c, cpp and cuda blocks can be compiled");
        return false;
    }
    if (process_run(compiler(b->lang), text_slice(&t), SECONDS, true, &p) ||
        p.exit == 127) {
        problem(CLASS_IO, "cannot-run", at_name(b), "%s cannot be started",
                *compiler(b->lang));
        return false;
    }
    if (p.exit == 0) {
        problem(CLASS_RUN, "compiles", at_name(b),
                "this block must fail to compile, and compiles");
        return false;
    }
    if (memmem(p.output.p, p.output.n, b->name.p, b->name.n))
        return true;
    problem(CLASS_RUN, "other-message", at_name(b),
            "fails to compile, but without the message");
    note_tail(text_slice(&p.output));
    return false;
}

static void visit_fails(const struct options *o, struct book *b, json_t *all)
{
    for (size_t i = 0; i < b->blocks.n; i++) {
        struct block *block = b->blocks.at[i];
        if (block->fate != FATE_FAILS || o->only)
            continue;
        bool ok = compile_failing(block);
        json_array_append_new(all, json_pack("{s:s, s:i, s:s}", "file", block->src->path,
                                             "line", block->fence, "status",
                                             ok ? "fails" : "failed"));
    }
}

static void unknown_run(struct book *b, const char *id)
{
    guess g = guess_for(slice_of(id));
    for (size_t i = 0; i < b->runs.n; i++)
        guess_try(&g, b->runs.at[i]->id);
    problem(CLASS_USAGE, "usage", (struct place){0}, "no run has the id \"%s\"", id);
    note_guess(&g);
}

void command_run(const struct options *o)
{
    struct book *b = load_current(o);
    size_t count = 0, waiting = 0;
    if (problem_count())
        return;
    if (o->only && !map_get(&b->run_by_id, slice_of(o->only))) {
        unknown_run(b, o->only);
        return;
    }
    json_t *all = json_array();
    for (size_t i = 0; i < b->runs.n; i++) {
        struct run *r = b->runs.at[i];
        if (o->only && !is(r->id, o->only))
            continue;
        const char *status = visit_run(o, r);
        count += !strcmp(status, "ran");
        waiting += !strcmp(status, "stale") || !strcmp(status, "missing");
        json_array_append_new(
            all, json_pack("{s:o, s:s}", "id", json_of(r->id), "status", status));
    }
    visit_fails(o, b, all);
    if (!o->json && count)
        printf("tangle: %zu run%s recorded\n", count, count == 1 ? "" : "s");
    if (!o->json && waiting)
        printf("tangle: %zu slow run%s without a fresh record; tangle run --slow\n",
               waiting, waiting == 1 ? "" : "s");
    result(all);
}
