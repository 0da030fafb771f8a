/*
 * index.c - `tangle index`: all that the weave needs to know about the book.
 */
#include "tangle.h"

#include <ctype.h>
#include <string.h>

/* chunk-NAME-k for the k-th block of a chunk, file-code-x-y-c for a root. */
const char *anchor_of(const struct block *b)
{
    if (!b->chunk->root)
        return keepf("chunk-%.*s-%d", FMT(b->chunk->name), b->part);
    char *a = keepf("file-%.*s", FMT(b->chunk->name));
    for (char *p = a; *p; p++)
        if (!isalnum((unsigned char)*p))
            *p = '-';
    return a;
}

/* The chapter with its lists present even where book.yaml leaves them out. */
static void complete_chapter(json_t *chapter)
{
    static const char *const lists[] = {"files", "owns"};
    for (size_t i = 0; i < 2; i++)
        if (!json_object_get(chapter, lists[i]))
            json_object_set_new(chapter, lists[i], json_array());
}

static json_t *book_json(struct book *b)
{
    json_t *parts = json_object_get(b->meta, "parts");
    for (size_t i = 0; i < json_array_size(parts); i++) {
        json_t *chapters = json_object_get(json_array_get(parts, i), "chapters");
        for (size_t k = 0; k < json_array_size(chapters); k++)
            complete_chapter(json_array_get(chapters, k));
    }
    return json_deep_copy(b->meta);
}

static json_t *block_json(const struct block *b)
{
    return json_pack("{s:s, s:i, s:o}", "file", b->src->path, "line", b->fence,
                     "language", json_of(b->lang_name));
}

static json_t *chunk_json(const struct chunk *c)
{
    json_t *blocks = json_array(), *uses = json_array();
    for (size_t i = 0; i < c->blocks.n; i++)
        json_array_append_new(blocks, block_json(c->blocks.at[i]));
    for (size_t i = 0; i < c->uses.n; i++) {
        struct ref *r = c->uses.at[i];
        json_array_append_new(
            uses, json_pack("{s:s, s:i, s:o, s:s}", "file", r->in->src->path, "line",
                            r->in->first + r->row, "inside", json_of(r->in->chunk->name),
                            "anchor", anchor_of(r->in)));
    }
    return json_pack("{s:o, s:o}", "blocks", blocks, "uses", uses);
}

static json_t *run_json(const struct run *r)
{
    struct record rec = record_read(r->id);
    const char *status = !rec.present                 ? "missing"
                         : rec.hash == record_hash(r) ? "fresh"
                                                      : "stale";
    json_t *v = json_pack("{s:s, s:i, s:o, s:s}", "file", r->block->src->path, "line",
                          r->block->fence, "command", json_of(run_command_text(r->block)),
                          "status", status);
    if (rec.present) {
        json_object_set_new(v, "exit", json_integer(rec.exit));
        json_object_set_new(v, "output", json_of(rec.output));
        json_object_set_new(v, "machine", json_string(rec.machine));
        json_object_set_new(v, "date", json_string(rec.date));
    }
    return v;
}

static json_t *exercise_json(const struct exercise *e)
{
    json_t *v = json_pack("{s:s, s:i}", "file", e->src->path, "line", e->line);
    if (e->solution)
        json_object_set_new(v, "solution",
                            json_pack("{s:s, s:i}", "file", e->solution->src->path,
                                      "line", e->solution->fence));
    return v;
}

json_t *index_json(struct book *b)
{
    json_t *chunks = json_object(), *roots = json_object(), *runs = json_object();
    json_t *exercises = json_object();
    for (size_t i = 0; i < b->chunks.n; i++) {
        struct chunk *c = b->chunks.at[i];
        if (c->blocks.n)
            json_object_set_new(c->root ? roots : chunks, keep_text(c->name),
                                c->root ? block_json(c->blocks.at[0]) : chunk_json(c));
    }
    for (size_t i = 0; i < b->runs.n; i++)
        json_object_set_new(runs, keep_text(b->runs.at[i]->id), run_json(b->runs.at[i]));
    for (size_t i = 0; i < b->exercises.n; i++)
        json_object_set_new(exercises, keep_text(b->exercises.at[i]->name),
                            exercise_json(b->exercises.at[i]));
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "book", book_json(b), "chunks",
                     chunks, "roots", roots, "identifiers", identifiers_json(b), "runs",
                     runs, "exercises", exercises);
}

/* The index of a book with problems would be wrong in places: it is printed only when
 * there are none, except with --allow-missing, where missing chapters are the normal
 * state. */
void command_index(const struct options *o)
{
    struct book *b = load_current(o);
    if (problem_count() && !o->allow_missing)
        return;
    json_t *v = index_json(b);
    problems_as_text = true; /* standard output is the index */
    if (o->lua)
        emit_lua(v, stdout);
    else
        emit_json(v, stdout);
    json_decref(v);
}
