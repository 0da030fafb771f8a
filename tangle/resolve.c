/*
 * resolve.c - from blocks to chunks: who defines, who refers, and every rule about it.
 */
#include "tangle.h"

#include <string.h>

static struct chunk *chunk_new(struct book *b, map *index, slice name, bool root)
{
    struct chunk *c = keep(sizeof *c);
    c->name = name;
    c->root = root;
    PUSH(b->chunks, c);
    map_put(index, name, c);
    return c;
}

static void add_root(struct book *book, struct block *b)
{
    struct chunk *c = map_get(&book->root_by_path, b->name);
    if (c) {
        struct block *first = c->blocks.at[0];
        problem(CLASS_REFERENCE, "twice-rooted", at_name(b),
                "\"%.*s\" is the root of a second block", FMT(b->name));
        note("the first is at %s:%d; let one root refer to chunks, and append to those",
             first->src->path, first->fence);
        return;
    }
    b->chunk = chunk_new(book, &book->root_by_path, b->name, true);
    b->part = 1;
    PUSH(b->chunk->blocks, b);
    target_check(book, b);
}

static bool c_family(enum lang l)
{
    return l == LANG_C || l == LANG_CUDA || l == LANG_CPP;
}

static bool mixes(enum lang a, enum lang b)
{
    return a == b || (c_family(a) && c_family(b));
}

static void add_chunk(struct book *book, struct block *b)
{
    struct chunk *c = map_get(&book->chunk_by_name, b->name);
    if (!c)
        c = chunk_new(book, &book->chunk_by_name, b->name, false);
    struct block *first = c->blocks.n ? c->blocks.at[0] : b;
    b->chunk = c;
    if (first->src->chapter != b->src->chapter) {
        problem(CLASS_REFERENCE, "duplicate-chunk", at_name(b),
                "chunk \"%.*s\" belongs to another chapter", FMT(b->name));
        note("it is defined at %s:%d; names are unique over chapters", first->src->path,
             first->fence);
        return;
    }
    if (!mixes(first->lang, b->lang))
        problem(CLASS_REFERENCE, "mixed-languages", at_name(b),
                "chunk \"%.*s\" is %.*s at %s:%d and %.*s here", FMT(b->name),
                FMT(first->lang_name), first->src->path, first->fence, FMT(b->lang_name));
    PUSH(c->blocks, b);
    b->part = (int)c->blocks.n;
}

static void add_run(struct book *book, struct block *b)
{
    struct run *old = map_get(&book->run_by_id, b->name);
    if (old) {
        problem(CLASS_SYNTAX, "duplicate-id", at_name(b),
                "a second run with the id \"%.*s\"", FMT(b->name));
        note("the first is at %s:%d", old->block->src->path, old->block->fence);
        return;
    }
    struct run *r = keep(sizeof *r);
    *r = (struct run){b->name, b, NULL};
    PUSH(book->runs, r);
    map_put(&book->run_by_id, b->name, r);
}

static void bind_expect(struct book *book, struct block *b)
{
    struct run *r = map_get(&book->run_by_id, b->name);
    if (!r) {
        guess g = guess_for(b->name);
        for (size_t i = 0; i < book->runs.n; i++)
            guess_try(&g, book->runs.at[i]->id);
        problem(CLASS_REFERENCE, "no-run", at_name(b),
                "an expectation of \"%.*s\", but no run "
                "has that id",
                FMT(b->name));
        note_guess(&g);
    } else if (r->expect) {
        problem(CLASS_REFERENCE, "duplicate-expect", at_name(b),
                "a second expectation of run \"%.*s\"", FMT(b->name));
        note("the first is at %s:%d", r->expect->src->path, r->expect->fence);
    } else {
        r->expect = b;
    }
}

static void bind_solution(struct book *book, struct block *b)
{
    struct exercise *e = map_get(&book->exercise_by_name, b->name);
    if (e) {
        e->solution = e->solution ? e->solution : b;
        return;
    }
    guess g = guess_for(b->name);
    for (size_t i = 0; i < book->exercises.n; i++)
        guess_try(&g, book->exercises.at[i]->name);
    problem(CLASS_REFERENCE, "no-exercise", at_name(b),
            "a solution of \"%.*s\", but no exercise has that id", FMT(b->name));
    note_guess(&g);
}

static void bind_ref(struct book *book, struct ref *r, int *guesses)
{
    r->to = map_get(&book->chunk_by_name, r->name);
    if (r->to) {
        PUSH(r->to->uses, r);
        struct block *first = r->to->blocks.n ? r->to->blocks.at[0] : r->in;
        if (!mixes(first->lang, r->in->lang))
            problem(CLASS_REFERENCE, "mixed-languages", at_ref(r),
                    "chunk \"%.*s\" is %.*s, and this block is %.*s", FMT(r->name),
                    FMT(first->lang_name), FMT(r->in->lang_name));
        return;
    }
    problem(CLASS_REFERENCE, "undefined-chunk", at_ref(r), "no chunk is named \"%.*s\"",
            FMT(r->name));
    if (book->missing)
        note("%d file%s of book.yaml could not be read; it may be defined there",
             book->missing, book->missing == 1 ? "" : "s");
    if ((*guesses)-- <= 0)
        return;
    guess g = guess_for(r->name);
    for (size_t i = 0; i < book->chunks.n; i++)
        if (!book->chunks.at[i]->root)
            guess_try(&g, book->chunks.at[i]->name);
    note_guess(&g);
}

enum { WHITE, GREY, BLACK };

/* The way back to `to` on the stack of references, written as a -> b -> a. */
static void report_cycle(struct ref **stack, int depth, struct ref *last)
{
    text way = {0};
    int from = depth;
    if (last->in->chunk != last->to) {
        while (from > 0 && stack[from - 1]->in->chunk != last->to)
            from--;
        from -= from > 0;
    }
    for (int i = from; i < depth; i++)
        addf(&way, "%.*s -> ", FMT(stack[i]->in->chunk->name));
    addf(&way, "%.*s -> %.*s", FMT(last->in->chunk->name), FMT(last->to->name));
    problem(CLASS_REFERENCE, "cyclic-chunk", at_ref(last),
            "chunk \"%.*s\" contains itself: %.*s", FMT(last->to->name),
            FMT(text_slice(&way)));
}

/*
 * Depth-first search with a stack of our own: a hostile book may be as deep as it is
 * long. A grey chunk met again closes a cycle, reported at the reference that closes it.
 */
struct frame {
    struct chunk *chunk;
    size_t block;
    int ref;
};

static struct ref *next_ref(struct frame *f)
{
    for (; f->block < f->chunk->blocks.n; f->block++, f->ref = 0)
        if (f->ref < f->chunk->blocks.at[f->block]->refs)
            return &f->chunk->blocks.at[f->block]->ref[f->ref++];
    return NULL;
}

static void search(struct chunk *start, struct frame *stack, struct ref **way)
{
    int depth = 0;
    start->mark = GREY;
    stack[0] = (struct frame){start, 0, 0};
    while (depth >= 0) {
        struct ref *r = next_ref(&stack[depth]);
        if (!r) {
            stack[depth--].chunk->mark = BLACK;
            continue;
        }
        if (!r->to || r->to->mark == BLACK)
            continue;
        if (r->to->mark == GREY) {
            report_cycle(way, depth, r);
            continue;
        }
        way[depth] = r;
        r->to->mark = GREY;
        stack[++depth] = (struct frame){r->to, 0, 0};
    }
}

static void find_cycles(struct book *b)
{
    struct frame *stack = keep((b->chunks.n + 1) * sizeof *stack);
    struct ref **way = keep((b->chunks.n + 1) * sizeof *way);
    for (size_t i = 0; i < b->chunks.n; i++)
        if (b->chunks.at[i]->mark == WHITE)
            search(b->chunks.at[i], stack, way);
}

static void find_unused(struct book *b)
{
    for (size_t i = 0; i < b->chunks.n; i++) {
        struct chunk *c = b->chunks.at[i];
        if (c->root || c->uses.n || !c->blocks.n)
            continue;
        problem(CLASS_REFERENCE, "unused-chunk", at_name(c->blocks.at[0]),
                "chunk \"%.*s\" is never used", FMT(c->name));
        if (b->missing)
            note("%d file%s of book.yaml could not be read; it may be used there",
                 b->missing, b->missing == 1 ? "" : "s");
    }
}

void resolve(struct book *b)
{
    for (size_t i = 0; i < b->blocks.n; i++) {
        struct block *block = b->blocks.at[i];
        if (block->fate == FATE_ROOT)
            add_root(b, block);
        else if (block->fate == FATE_CHUNK)
            add_chunk(b, block);
        else if (block->fate == FATE_RUN)
            add_run(b, block);
    }
    int guesses =
        50; /* distances to every name are dear; a broken book needs no more hints */
    for (size_t i = 0; i < b->blocks.n; i++) {
        struct block *block = b->blocks.at[i];
        if (block->fate == FATE_EXPECT)
            bind_expect(b, block);
        else if (block->fate == FATE_SOLUTION)
            bind_solution(b, block);
        for (int k = 0; block->chunk && k < block->refs; k++)
            bind_ref(b, &block->ref[k], &guesses);
    }
    find_cycles(b);
    find_unused(b);
    targets_check(b);
}
