/*
 * main.c - the command line of the literate tool.
 */
#include "files.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct command {
    const char *name;
    void (*call)(const struct options *o);
    const char *arguments, *purpose, *options, *example;
    int least, most; /* how many arguments */
} commands[] = {
    {"write", command_write, "", "writes code/, tests/ and build/src/ from the chapters",
     "  --force           overwrite outputs that were edited by hand\n"
     "  --keep-going      leave out the chapters with problems, write the others\n",
     "  $ tangle write\n  tangle: 4 files written, 0 removed, 212 unchanged\n", 0, 0},
    {"check", command_check, "",
     "checks the chapters, and that every output is in step with them",
     "  --strict          warnings (long chunk, long line) are errors\n",
     "  $ tangle check\n  tangle: in step: 96 outputs of 731 chunks from 12 chapter "
     "files; 14 runs\n",
     0, 0},
    {"untangle", command_untangle, "",
     "takes edits made in code/ and tests/ back into the chapters", "",
     "  $ tangle untangle\n  chapters/04-data-parallelism.md:212: send-the-first-shard\n"
     "  tangle: 1 block changed in 1 chapter file\n",
     0, 0},
    {"where", command_where, "FILE:LINE",
     "leads from a chapter's line to the files, and back", "",
     "  $ tangle where code/comm/ring.c:45\n"
     "  chapters/04-data-parallelism.md:212  send-the-first-shard\n",
     1, 1},
    {"list", command_list, "[KIND]",
     "lists roots, chunks, runs and exercises (or one KIND)", "",
     "  $ tangle list runs\n", 0, 1},
    {"stats", command_stats, "",
     "counts chunk lengths and words per code line, by chapter", "", "  $ tangle stats\n",
     0, 0},
    {"run", command_run, "",
     "runs the .run blocks that are not fresh, compiles the .fails blocks",
     "  --slow            run the blocks of class .slow as well\n"
     "  --force           run fresh blocks again\n"
     "  --only ID         this block only\n",
     "  $ tangle run --only measure-the-ring\n  tangle: 1 run recorded\n", 0, 0},
    {"index", command_index, "",
     "prints chunks, identifiers, runs and exercises for the weave",
     "  --lua             as a Lua table (default: JSON)\n",
     "  $ tangle index --lua > build/index.lua\n", 0, 0},
};

enum { COMMANDS = sizeof commands / sizeof *commands };

json_t *the_result;
bool problems_as_text;

void result(json_t *object)
{
    json_decref(the_result);
    the_result = object;
}

static void usage(FILE *out)
{
    fputs("tangle: the literate tool of the running book\n\nusage: tangle COMMAND "
          "[options]\n\n",
          out);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-9s %-11s %s\n", commands[i].name, commands[i].arguments,
                commands[i].purpose);
    fputs(
        "\noptions of every command:\n"
        "  -C FOLDER         the book's folder (default: here, or the first above with a "
        "book.yaml)\n"
        "  --allow-missing   chapters that book.yaml lists but that do not exist are no "
        "error\n"
        "  --json            results and problems as one JSON object\n"
        "  --help            this text, or a command's, with an example\n\n"
        "exit: 0 good, 1 a run did not do what was expected, 2 usage, 3 syntax, 4 "
        "reference,\n"
        "      5 conflict, 6 files, 7 style (check --strict)\n",
        out);
}

static void help(const struct command *c)
{
    printf("usage: tangle %s%s%s [options]\n\n%s\n\n", c->name, *c->arguments ? " " : "",
           c->arguments, c->purpose);
    printf("options:\n%s  --json            results and problems as one JSON object\n"
           "  --allow-missing   missing chapters are no error\n"
           "  -C FOLDER         the book's folder\n\nexample:\n%s",
           c->options, c->example);
}

static const struct command *find_command(const char *name)
{
    guess g = guess_for(slice_of(name));
    for (int i = 0; i < COMMANDS; i++) {
        if (!strcmp(commands[i].name, name))
            return &commands[i];
        guess_try(&g, slice_of(commands[i].name));
    }
    problem(CLASS_USAGE, "usage", (struct place){0}, "unknown command \"%s\"", name);
    note_guess(&g);
    note("tangle --help lists the commands");
    return NULL;
}

static bool flag(struct options *o, const char *arg)
{
    const struct {
        const char *name;
        bool *value;
    } flags[] = {{"--json", &o->json},
                 {"--lua", &o->lua},
                 {"--strict", &o->strict},
                 {"--allow-missing", &o->allow_missing},
                 {"--force", &o->force},
                 {"--slow", &o->slow},
                 {"--keep-going", &o->keep_going}};
    guess g = guess_for(slice_of(arg));
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        guess_try(&g, slice_of(flags[i].name));
        if (!strcmp(flags[i].name, arg))
            return *flags[i].value = true;
    }
    problem(CLASS_USAGE, "usage", (struct place){0}, "unknown option \"%s\"", arg);
    note_guess(&g);
    return false;
}

/* An option that only one command has must not be taken silently by another. */
static void check_fits(const struct command *c, const char *arg)
{
    if (strcmp(arg, "--json") && strcmp(arg, "--allow-missing") &&
        !strstr(c->options, arg))
        problem(CLASS_USAGE, "usage", (struct place){0}, "tangle %s has no option %s",
                c->name, arg);
}

static bool go_to_book(const char *folder, struct options *o)
{
    if (folder) {
        if (chdir(folder) == 0)
            return true;
        problem(CLASS_USAGE, "usage", (struct place){0}, "-C %s: no such folder", folder);
        return false;
    }
    char start[4096];
    if (!getcwd(start, sizeof start))
        return true;
    while (access(BOOK_YAML, F_OK)) {
        char here[4096];
        if (!getcwd(here, sizeof here) || !strcmp(here, "/") || chdir(".."))
            return chdir(start) == 0;
    }
    char root[4096];
    if (getcwd(root, sizeof root) && strlen(start) > strlen(root))
        o->prefix = keepf("%s/", start + strlen(root) + 1);
    return true;
}

static int finish(const struct options *o)
{
    enum class c = problem_class();
    if (o->json && !problems_as_text) {
        json_t *all = json_object();
        json_object_set_new(all, "ok", json_boolean(c == CLASS_NONE));
        json_object_set_new(all, "exit", json_integer(c));
        json_object_set_new(all, "problems", problems_json());
        if (the_result)
            json_object_set(all, "result", the_result);
        emit_json(all, stdout);
        json_decref(all);
    } else {
        fflush(stdout);
        problems_print(stderr);
        if (problem_count() > 1)
            fprintf(stderr, "tangle: %d problems\n", problem_count());
    }
    json_decref(the_result);
    return fflush(stdout) ? CLASS_IO : (int)c;
}

/* Splits the arguments of a command into options and the rest. */
static const char *parse(const struct command *c, int argc, char **argv,
                         struct options *o, bool *wants_help)
{
    const char *folder = NULL;
    o->argv = keep(((size_t)argc + 1) * sizeof *o->argv);
    for (int i = 0; i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
            *wants_help = true;
        } else if (!strcmp(argv[i], "-C") || !strcmp(argv[i], "--only")) {
            if (i + 1 == argc)
                problem(CLASS_USAGE, "usage", (struct place){0}, "%s needs a value",
                        argv[i]);
            else if (argv[i][1] == 'C')
                folder = argv[++i];
            else {
                check_fits(c, argv[i]);
                o->only = argv[++i];
            }
        } else if (argv[i][0] == '-') {
            if (flag(o, argv[i]))
                check_fits(c, argv[i]);
        } else {
            o->argv[o->argc++] = argv[i];
        }
    }
    if (o->argc < c->least || o->argc > c->most)
        problem(CLASS_USAGE, "usage", (struct place){0}, "usage: tangle %s %s", c->name,
                c->arguments);
    return folder;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    const char *folder = NULL;
    if (argc > 2 &&
        !strcmp(argv[1], "-C")) { /* as git and make have it, before the command */
        folder = argv[2];
        argv += 2;
        argc -= 2;
    }
    if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
        !strcmp(argv[1], "help")) {
        usage(argc < 2 ? stderr : stdout);
        return argc < 2 ? CLASS_USAGE : 0;
    }
    const struct command *c = find_command(argv[1]);
    bool wants_help = false;
    if (c) {
        o.command = c->name;
        const char *given = parse(c, argc - 2, argv + 2, &o, &wants_help);
        folder = given ? given : folder;
    }
    if (wants_help && c) {
        help(c);
        return 0;
    }
    if (!problem_count() && go_to_book(folder, &o))
        c->call(&o);
    return finish(&o);
}
