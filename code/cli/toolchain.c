/* code/cli/toolchain.c: from chapters/01-introduction-own-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Finding the compiler's other half (headers, rewriter, library) and calling it. */
#include "cli/toolchain.h"

#include <dirent.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* collect words */
void words_add(words *w, const char *format, ...)
{
    char **more = realloc(w->word, ((size_t)w->count + 2) * sizeof *more);
    va_list list;
    w->failed |= more == NULL;
    if (!more)
        return;
    w->word = more;
    va_start(list, format);
    if (vasprintf(&more[w->count], format, list) < 0)
        w->failed = 1;
    else
        w->count++;
    va_end(list);
    more[w->count] = NULL;
}

void words_free(words *w)
{
    for (int i = 0; i < w->count; i++)
        free(w->word[i]);
    free(w->word);
    *w = (words){0};
}
/* run a program and wait */
dls_status words_run(const words *w, int *exit_code)
{
    pid_t child;
    int status;
    if (w->failed)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a command line");
    fflush(stdout);
    int error = posix_spawnp(&child, w->word[0], NULL, NULL, w->word, environ);
    if (error)
        return DLS_FAIL(DLS_ERR_IO, "%s: %s", w->word[0], strerror(error));
    if (waitpid(child, &status, 0) != child)
        return DLS_FAIL(DLS_ERR_IO, "%s: can not be waited for", w->word[0]);
    *exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return DLS_OK;
}


/* A compiler given a picture complains about every byte of it. */
dls_status toolchain_look_at(const char *path)
{
    char start[4096];
    const char *dot = strrchr(path, '.');
    int binary = dot && (!strcmp(dot, ".o") || !strcmp(dot, ".a"));
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(start, 1, sizeof start, f) : 0;
    int readable = f && !ferror(f);
    if (f)
        fclose(f);
    if (!readable)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: no such file, or it can not be read", path);
    if (!binary && memchr(start, 0, n))
        return DLS_FAIL(DLS_ERR_INPUT, "%s: not a text file: it has zero bytes", path);
    return DLS_OK;
}

static dls_status run_compiler(words *w)
{
    int exit_code = 0;
    dls_status status = words_run(w, &exit_code);
    if (status == DLS_OK && exit_code != 0)
        status = DLS_FAIL(DLS_ERR_INPUT, "%s has refused it: see above", w->word[0]);
    words_free(w);
    return status;
}
/* find the books folder */
typedef struct toolchain {
    char root[PATH_MAX], tools[PATH_MAX];  // the book's folder; that of dls itself
} toolchain;

static int has(const char *folder, const char *file)
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    return access(path, R_OK) == 0;
}

static dls_status find_toolchain(toolchain *t)
{
    static const char header[] = "code/vgpu/shadow/cuda_runtime.h";
    ssize_t n = readlink("/proc/self/exe", t->tools, sizeof t->tools - 1);
    t->tools[n < 0 ? 0 : n] = 0;
    snprintf(t->root, sizeof t->root, "%s", t->tools);
    for (char *slash; (slash = strrchr(t->root, '/')); ) {
        *slash = 0;
        if (has(t->root, header))
            break;
    }
    const char *home = getenv("DLS_HOME");
    if (!t->root[0] && home)
        snprintf(t->root, sizeof t->root, "%s", home);
    if (!has(t->root, header) || !has(t->root, "build/bin/vgpu-rewrite") ||
        !has(t->root, "build/virtual/libdls.probed.a"))
        return DLS_FAIL(DLS_ERR_INPUT, "the headers and the library are not found above "
                        "%s: run `make lib` there, or set DLS_HOME to the book's folder",
                        t->tools);
    return DLS_OK;
}
/* make and remove a folder */
dls_status toolchain_folder(char *path, size_t room)
{
    const char *where = getenv("TMPDIR");
    snprintf(path, room, "%s/dls-cc-XXXXXX", where && *where ? where : "/tmp");
    if (!mkdtemp(path))
        return DLS_FAIL(DLS_ERR_IO, "%s: can not be created", path);
    return DLS_OK;
}

void toolchain_remove(const char *folder)
{
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d)); )
        unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(folder);
}
/* compile one file */
static int ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && !strcmp(name + n - m, end);
}

static int is_for_linker(const char *option)
{
    return !strncmp(option, "-l", 2) || !strncmp(option, "-L", 2);
}

static dls_status rewrite(const toolchain *t, const char *source, const char *to)
{
    words w = {0};
    words_add(&w, "%s/build/bin/vgpu-rewrite", t->root);
    words_add(&w, "%s", source);
    words_add(&w, "-o");
    words_add(&w, "%s", to);
    return run_compiler(&w);
}

static void add_compiler(words *w, const toolchain *t, const char *source, forms form)
{
    const char *slash = strrchr(source, '/');
    static const char *const always[] = {"-std=c++17", "-g", "-O2", "-c",
                                         "-DDLS_BACKEND_virtual=1", "-include",
                                         "cuda_runtime.h"};
    words_add(w, "g++");
    if (form == PROBED)  // it includes a file that has to be the first
        words_add(w, "@%s/code/vgpu/probed.flags", t->root);
#if defined(__x86_64__)
    if (form == PROBED)
        words_add(w, "-fcf-protection=branch");  // see that file
#endif
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
        words_add(w, "%s", always[i]);
    words_add(w, "-iquote%.*s", slash ? (int)(slash - source) : 1, slash ? source : ".");
    words_add(w, "-I%s/code/vgpu/shadow", t->root);
    words_add(w, "-I%s/code", t->root);
}

/* source (.cu) -> object, through a rewritten copy. */
static dls_status compile(const toolchain *t, const build *b, const char *source,
                          const char *rewritten, const char *object, forms form)
{
    words w = {0};
    add_compiler(&w, t, source, form);
    for (int i = 0; i < b->options.count; i++)
        if (!is_for_linker(b->options.word[i]))
            words_add(&w, "%s", b->options.word[i]);
    words_add(&w, "%s", rewritten);
    words_add(&w, "-o");
    words_add(&w, "%s", object);
    DLS_TRY(run_compiler(&w));
    if (form == PLAIN)
        return DLS_OK;
    words_add(&w, "objcopy");
    words_add(&w, "--redefine-syms=%s/code/vgpu/probed.names", t->root);
    words_add(&w, "--localize-symbols=%s/code/vgpu/probed.local", t->root);
    words_add(&w, "%s", object);
    return run_compiler(&w);
}
/* link a program */
#ifndef DLS_LINK_PLAIN
#define DLS_LINK_PLAIN ""
#define DLS_LINK_PROBED ""
#endif

static void add_all(words *w, const char *list)
{
    while (*(list += strspn(list, " "))) {
        size_t n = strcspn(list, " ");
        words_add(w, "%.*s", (int)n, list);
        list += n;
    }
}

static dls_status link_program(const toolchain *t, const build *b, const words *objects,
                               forms form)
{
    words w = {0};
    const char *suffix = form == PROBED ? ".probed" : "";
    words_add(&w, "g++");
    for (int i = 0; i < objects->count; i++)
        words_add(&w, "%s", objects->word[i]);
    words_add(&w, "-o");
    words_add(&w, "%s%s", b->output, suffix);
    words_add(&w, "%s/build/virtual/libdls%s.a", t->root, suffix);
    for (int i = 0; i < b->options.count; i++)
        if (is_for_linker(b->options.word[i]))
            words_add(&w, "%s", b->options.word[i]);
    add_all(&w, form == PROBED ? DLS_LINK_PROBED : "");
    add_all(&w, DLS_LINK_PLAIN);
    return run_compiler(&w);
}
/* build one form of a program */
static dls_status build_form(const toolchain *t, const build *b, const char *folder,
                             forms form)
{
    words objects = {0};
    dls_status status = DLS_OK;
    for (int i = 0; i < b->sources.count && status == DLS_OK; i++) {
        const char *source = b->sources.word[i];
        char rewritten[PATH_MAX], object[PATH_MAX];
        snprintf(rewritten, sizeof rewritten, "%s/%d.cpp", folder, i);
        snprintf(object, sizeof object, "%s/%d.%d.o", folder, i, form);
        if (!ends_with(source, ".cu")) {
            words_add(&objects, "%s", source);
            continue;
        }
        status = rewrite(t, source, rewritten);
        if (status == DLS_OK)
            status = compile(t, b, source, rewritten, object, form);
        words_add(&objects, "%s", object);
    }
    if (status == DLS_OK)
        status = link_program(t, b, &objects, form);
    words_free(&objects);
    return status;
}

dls_status toolchain_build(const build *b)
{
    toolchain t;
    char folder[PATH_MAX];
    DLS_TRY(find_toolchain(&t));
    DLS_TRY(toolchain_folder(folder, sizeof folder));
    dls_status status = DLS_OK;
    if (b->forms & PLAIN)
        status = build_form(&t, b, folder, PLAIN);
    if (status == DLS_OK && (b->forms & PROBED))
        status = build_form(&t, b, folder, PROBED);
    toolchain_remove(folder);
    return status;
}
