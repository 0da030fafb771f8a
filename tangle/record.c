/*
 * record.c - what a run of a block gave: build/run/ID.json, or the committed
 * figures/run/ID.json.
 *
 * A record is fresh when its hash is that of the command and of every file the block
 * needs.
 */
#include "files.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

slice run_command_text(const struct block *b)
{
    if (!b->lines)
        return (slice){"", 0};
    slice first = block_line(b, 0), last = block_line(b, b->lines - 1);
    return (slice){first.p, (size_t)(last.p + last.n - first.p)};
}

static map seen; /* files are hashed once, however many blocks need them */

void record_forget_files(void)
{
    seen = (map){0};
}

/* A program is another file after every edit of the prose, since line numbers are in it.
 * Its builder may put beside it PATH.id, a text that changes with the code only; where
 * there is one, it is hashed in place of the file. */
static uint64_t file_hash(slice path)
{
    uint64_t *known = map_get(&seen, path);
    if (known)
        return *known;
    slice all;
    known = keep(sizeof *known);
    char *name = keep_text(path);
    *known = slurp(keepf("%s.id", name), &all) && slurp(name, &all) ? 0 : hash_of(all);
    map_put(&seen, slice_of(name), known);
    return *known;
}

/* Of the command, its exit status and time limit, and the files under needs="..." .
 * Without the attribute that is build/bin/dls, so that a rebuilt program runs again. */
uint64_t record_hash(const struct run *r)
{
    text t = {0};
    slice command = run_command_text(r->block),
          exit_wanted = attribute_of(r->block, "exit");
    slice needs = attribute_of(r->block, "needs");
    if (!needs.p)
        needs = SLICE("build/bin/dls");
    addf(&t, "exit=%.*s\n", FMT(exit_wanted.p ? exit_wanted : SLICE("0")));
    add(&t, command.p, command.n);
    for (size_t i = 0; i < needs.n;) {
        size_t from = i;
        while (i < needs.n && needs.p[i] != ' ')
            i++;
        if (i > from)
            addf(&t, "\n%016" PRIx64, file_hash((slice){needs.p + from, i - from}));
        i++;
    }
    return hash_of(text_slice(&t));
}

static const char *text_of(json_t *v, const char *key)
{
    const char *s = json_string_value(json_object_get(v, key));
    return s ? keep_text(slice_of(s)) : "";
}

struct record record_read(slice id)
{
    struct record r = {0};
    json_t *v = json_load_file(keepf("build/run/%.*s.json", FMT(id)), 0, NULL);
    if (!v)
        v = json_load_file(keepf("figures/run/%.*s.json", FMT(id)), 0, NULL);
    if (!json_is_object(v)) {
        json_decref(v);
        return r;
    }
    r.present = true;
    r.output = slice_of(text_of(v, "output"));
    r.command = text_of(v, "command");
    r.machine = text_of(v, "machine");
    r.date = text_of(v, "date");
    r.hash = strtoull(text_of(v, "hash"), NULL, 16);
    r.exit = (int)json_integer_value(json_object_get(v, "exit"));
    json_decref(v);
    return r;
}

static slice line_value(const char *path, const char *key)
{
    slice all;
    int n = 0;
    if (slurp(path, &all))
        return (slice){NULL, 0};
    slice *line = cut_lines(all, &n);
    for (int i = 0; i < n; i++) {
        if (!starts(line[i], key))
            continue;
        const char *p = line[i].p + strcspn(line[i].p, ":=") + 1;
        slice v = trim((slice){p, (size_t)(line[i].p + line[i].n - p)});
        while (v.n && v.p[0] == '"')
            v = (slice){v.p + 1, v.n - 1};
        while (v.n && v.p[v.n - 1] == '"')
            v.n--;
        return v;
    }
    return (slice){NULL, 0};
}

/* Processor, cores and system: what a reader needs to judge a time. No host name. */
const char *machine_name(void)
{
    slice cpu = line_value("/proc/cpuinfo", "model name");
    slice os = line_value("/etc/os-release", "PRETTY_NAME");
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return keepf("%.*s, %ld core%s, %.*s", FMT(cpu.p ? cpu : SLICE("unknown processor")),
                 cores, cores == 1 ? "" : "s", FMT(os.p ? os : SLICE("unknown system")));
}

/* Writes build/run/ID.json. Returns NULL or what went wrong. */
const char *record_write(const struct run *r, const struct record *rec)
{
    char date[32], hash[32];
    time_t now = time(NULL);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    snprintf(hash, sizeof hash, "%016" PRIx64, rec->hash);
    json_t *v = json_pack("{s:o, s:s, s:o, s:o, s:i, s:s, s:s, s:s}", "id",
                          json_of(r->id), "chapter", r->block->src->path, "command",
                          json_of(run_command_text(r->block)), "output",
                          json_of(rec->output), "exit", rec->exit, "machine",
                          machine_name(), "date", date, "hash", hash);
    char *made = json_dumps(v, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
    json_decref(v);
    text t = {0};
    addf(&t, "%s\n", made ? made : "");
    free(made);
    int err = write_aside(keepf("build/run/%.*s.json", FMT(r->id)), text_slice(&t));
    return err ? strerror(err) : NULL;
}
