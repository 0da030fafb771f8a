/* code/vgpu/rewrite.c: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* vgpu-rewrite: turns a CUDA source into C++ that g++ reads with the shadow headers.
 *
 *     vgpu-rewrite IN.cu [-o OUT.cpp]
 *
 * Four edits, none of which moves a line: launches become calls, dynamic shared arrays
 * become pointers, static shared arrays announce themselves (DLS_SIMT_SHARED), and unroll
 * pragmas are spelled as gcc spells them. The source is classified once, byte by byte,
 * into code and not-code (comments, strings); all searching, forwards and backwards, then
 * sees code only. A parser of C++ was never an option: matching brackets is enough, and
 * where it is not, the tool says so.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* declare the rewriter state */
enum kind { CODE, NOT_CODE, DIRECTIVE };

typedef struct edit {
    size_t at, remove;  // where, and how many bytes go
    char *insert;       // what comes in their place; never holds a newline
} edit;

static const char *input_name;
static char *src;             // the whole source, NUL-terminated
static size_t len;
static unsigned char *kind;   // (len) one enum kind per byte
static edit *edits;
static size_t edit_count;
static int failures;
/* report a rewriter error */
/* The file and line that #line directives give to position `at`. */
static int place_of(size_t at, char file[256])
{
    int line = 1;
    snprintf(file, 256, "%s", input_name);
    for (size_t i = 0; i < at; i++) {
        int number, seen = 0;
        char name[256];
        if ((i == 0 || src[i - 1] == '\n') && src[i] == '#' &&
            sscanf(src + i, "#%*[ line]%d \"%255[^\"]\"%n", &number, name, &seen) == 2 &&
            seen) {
            line = number - 1;
            snprintf(file, 256, "%s", name);
        }
        line += src[i] == '\n';
    }
    return line;
}

static void fail_at(size_t at, const char *fmt, ...)
{
    char file[256];
    int line = place_of(at, file);
    va_list list;
    va_start(list, fmt);
    fprintf(stderr, "%s:%d: error: ", file, line);
    vfprintf(stderr, fmt, list);
    fputc('\n', stderr);
    va_end(list);
    failures++;
}

static void *checked(void *p)
{
    if (!p) {
        fprintf(stderr, "vgpu-rewrite: out of memory\n");
        exit(1);
    }
    return p;
}
/* read the whole source */
static int read_source(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0)
        return 0;
    len = (size_t)ftell(f);
    rewind(f);
    src = checked(calloc(len + 4, 1));
    int ok = fread(src, 1, len, f) == len;
    fclose(f);
    return ok;
}
/* classify every byte of a cuda source */
static size_t end_of_raw_string(size_t i)
{
    char close[32] = ")";
    size_t n = strcspn(src + i + 2, "(");
    if (n > 16)
        return i + 2;
    strncat(close, src + i + 2, n);
    strcat(close, "\"");
    char *end = strstr(src + i + 2 + n, close);
    return end ? (size_t)(end - src) + strlen(close) : len;
}

/* The end of the comment, string or character that begins at i; i if none does. */
static size_t end_of_literal(size_t i)
{
    if (src[i] == '/' && src[i + 1] == '/') {
        while (i < len && (src[i] != '\n' || src[i - 1] == '\\'))
            i++;
        return i;
    }
    if (src[i] == '/' && src[i + 1] == '*') {
        char *end = strstr(src + i + 2, "*/");
        return end ? (size_t)(end - src) + 2 : len;
    }
    if (src[i] == 'R' && src[i + 1] == '"' && !(i && isalnum((unsigned char)src[i - 1])))
        return end_of_raw_string(i);
    if (src[i] == '"' || (src[i] == '\'' && !(i && isalnum((unsigned char)src[i - 1])))) {
        char quote = src[i++];
        while (i < len && src[i] != quote && src[i] != '\n')
            i += src[i] == '\\' ? 2 : 1;
        return i < len ? i + 1 : len;
    }
    return i;
}

static void classify(void)
{
    kind = checked(calloc(len + 1, 1));
    int directive = 0, line_start = 1;
    for (size_t i = 0; i < len;) {
        size_t end = end_of_literal(i);
        if (end > i) {
            memset(kind + i, NOT_CODE, end - i);
            i = end;
            line_start = 0;
            continue;
        }
        if (line_start && src[i] == '#')
            directive = 1;
        if (src[i] == '\n') {
            directive = directive && i && src[i - 1] == '\\';
            line_start = 1;
        } else if (!isspace((unsigned char)src[i]))
            line_start = 0;
        kind[i++] = directive ? DIRECTIVE : CODE;
    }
}
/* walk over code in both directions */
static int is_name(size_t i)
{
    return kind[i] != NOT_CODE && (isalnum((unsigned char)src[i]) || src[i] == '_');
}

static size_t skip_forward(size_t i)
{
    while (i < len && (kind[i] == NOT_CODE || strchr(" \t\n\r\\", src[i])))
        i++;
    return i;
}

/* The last position before i that holds code which is not blank; (size_t)-1 if none. */
static size_t skip_back(size_t i)
{
    while (i-- > 0)
        if (kind[i] != NOT_CODE && !strchr(" \t\n\r\\", src[i]))
            return i;
    return (size_t)-1;
}

/* src[i] opens a bracket: the position of its partner, or len. */
static size_t match_forward(size_t i)
{
    char partner = src[i] == '(' ? ')' : src[i] == '[' ? ']' : '}';
    for (int depth = 0; i < len; i++) {
        if (kind[i] == NOT_CODE)
            continue;
        if (strchr("([{", src[i]))
            depth++;
        else if (strchr(")]}", src[i]) && --depth == 0)
            return src[i] == partner ? i : len;
    }
    return len;
}

/* src[i] closes a group: the position where the group opens, or (size_t)-1. */
static size_t match_back(size_t i)
{
    char close = src[i], open = close == '>' ? '<' : close == ')' ? '(' : '[';
    int depth = 0;
    for (size_t k = i + 1; k-- > 0;) {
        if (kind[k] == NOT_CODE)
            continue;
        if (src[k] == close)
            depth++;
        else if (src[k] == open && --depth == 0)
            return k;
        else if (strchr(";{}", src[k]) ||
                 (close == '>' && strchr(")]", src[k]) && (k = match_back(k)) + 1 == 0))
            break;
    }
    return (size_t)-1;
}
/* find where a kernel name begins */
/* The first byte of the expression that names the kernel launched at `at`, or at. */
static size_t kernel_start(size_t at)
{
    size_t start = at, i = skip_back(at);
    while (i != (size_t)-1) {
        if (src[i] == '>' || src[i] == ']' || src[i] == ')') {
            int last = src[i] == ')';
            if ((i = match_back(i)) == (size_t)-1)
                return at;
            start = i;
            if (last && !(i && is_name(i - 1)))
                return start;
            i = skip_back(i);
            continue;
        }
        if (!is_name(i))
            return start;
        while (i > 0 && is_name(i - 1))
            i--;
        start = i;
        i = skip_back(i);
        if (i == (size_t)-1 || i == 0 || src[i] != ':' || src[i - 1] != ':')
            return start;
        start = i - 1;
        i = skip_back(i - 1);
    }
    return start;
}
/* rewrite a launch */
static void add_edit(size_t at, size_t remove, const char *fmt, ...)
{
    char *text = NULL;
    va_list list;
    va_start(list, fmt);
    checked(vasprintf(&text, fmt, list) < 0 ? NULL : text);
    va_end(list);
    if (edit_count % 64 == 0)
        edits = checked(realloc(edits, (edit_count + 64) * sizeof *edits));
    edits[edit_count++] = (edit){at, remove, text};
}

/* The position of the >>> that closes the <<< at `at`; len after reporting an error. */
static size_t launch_close(size_t at, int *commas)
{
    int depth = 0;
    for (size_t i = at + 3; i < len; i++) {
        if (kind[i] == NOT_CODE)
            continue;
        if (depth == 0 && !strncmp(src + i, ">>>", 3))
            return i;
        if (strchr("([{", src[i]))
            depth++;
        else if (strchr(")]}", src[i]) && --depth < 0)
            break;
        else if (depth == 0 && src[i] == ';')
            break;
        *commas += depth == 0 && src[i] == ',';
    }
    fail_at(at, "this <<< has no >>> before the statement ends");
    return len;
}

/* Rewrites the launch whose <<< is at `at`; returns where the scan goes on. */
static size_t rewrite_launch(size_t at)
{
    int commas = 0;
    size_t start = kernel_start(at), close = launch_close(at, &commas);
    if (close == len)
        return at + 3;
    if (start == at) {
        fail_at(at, "a launch needs a kernel's name before <<<");
        return close + 3;
    }
    if (commas == 0)
        fail_at(at, "a launch needs <<<grid, block>>>: there is no comma between them");
    size_t list = skip_forward(close + 3);
    if (list >= len || src[list] != '(')
        fail_at(close, "a launch needs an argument list after >>>, if only ()");
    else if (match_forward(list) == len)
        fail_at(list, "the argument list of this launch is never closed");
    add_edit(start, 0, "dls_simt_launch(DLS_SIMT_KERNEL(");
    add_edit(at, 3, "), ");
    add_edit(close, 3, ")");
    return close + 3;
}
/* rewrite a shared array */
static int word_at(size_t i, const char *word)
{
    size_t n = strlen(word);
    return !strncmp(src + i, word, n) && !(i && is_name(i - 1)) && !is_name(i + n);
}

/* Where `word` stands if it is the last thing before `at`, else (size_t)-1. */
static size_t word_before(size_t at, const char *word)
{
    size_t n = strlen(word), end = skip_back(at) + 1;
    return end >= n && word_at(end - n, word) ? end - n : (size_t)-1;
}

/* Does the brace at i open a namespace or an extern "C" block, not a body? */
static int opens_namespace(size_t i)
{
    while (i > 0 && strchr(" \t\n\r", src[i - 1]))
        i--;
    if (i > 0 && src[i - 1] == '"')
        return 1;
    while (i > 0 && kind[i - 1] != DIRECTIVE && !(kind[i - 1] == CODE &&
                                                  strchr(";{}", src[i - 1])))
        i--;
    return word_at(skip_forward(i), "namespace");
}
/* Finds the next declarator in [*from, end): its name in [*name, *stop). 0 when done. */
static int next_declarator(size_t *from, size_t end, size_t *name, size_t *stop)
{
    int angle = 0, found = 0;
    size_t i = *from;
    if (i >= end)
        return 0;
    for (; i < end && !(angle == 0 && src[i] == ',' && kind[i] == CODE); i++) {
        if (kind[i] != CODE)
            continue;
        angle += (src[i] == '<') - (src[i] == '>');
        if (strchr("([{", src[i])) {
            found |= (src[i] == '[') << 1;
            i = match_forward(i);
        } else if (angle == 0 && found < 2 && is_name(i)) {
            *name = i;
            while (is_name(i + 1))
                i++;
            *stop = i + 1;
            found |= 1;
        }
    }
    *from = i + 1;
    return found & 1;
}

/* extern __shared__ T s[]; between `begin` (extern) and `end` (the semicolon). */
static void rewrite_dynamic(size_t begin, size_t after, size_t end, int in_function)
{
    size_t from = after, name, stop;
    if (!next_declarator(&from, end, &name, &stop) || from < end) {
        fail_at(begin, "expected one array: extern __shared__ TYPE NAME[];");
        return;
    }
    size_t open = skip_forward(stop), close = skip_forward(open + 1);
    if (src[open] != '[' || src[close] != ']') {
        fail_at(begin, "a dynamic shared array needs empty brackets: NAME[]");
        return;
    }
    size_t type = skip_forward(after);
    int rows = src[skip_forward(close + 1)] == '[';
    if (in_function) {
        add_edit(begin, type - begin, "%s", "");
        add_edit(name, 0, rows ? "(*" : "*");
        add_edit(open, close + 1 - open, "%s", rows ? ")" : "");
        add_edit(end, 0, " = dls_simt_dynamic_shared()");
        return;
    }
    add_edit(begin, type - begin, "static dls_simt_dynamic_array<");
    add_edit(name, 0, "> ");
    add_edit(open, close + 1 - open, "%s", "");
}

/* `at` is a __shared__ outside preprocessor lines; returns where the scan goes on. */
static size_t rewrite_shared(size_t at, int in_function)
{
    size_t after = at + 10, end = after, name, stop, word;
    while (end < len && (kind[end] != CODE || !strchr(";}", src[end])))
        end = (kind[end] == CODE && src[end] == '{' ? match_forward(end) : end) + 1;
    if (end >= len || src[end] != ';') {
        fail_at(at, "this __shared__ declaration is not ended by a semicolon");
        return after;
    }
    if ((word = word_before(at, "extern")) != (size_t)-1) {
        rewrite_dynamic(word, after, end, in_function);
        return end;
    }
    if ((word = word_before(at, "static")) != (size_t)-1)
        add_edit(word, 6, "%s", "");
    int any = 0;
    for (size_t from = after; next_declarator(&from, end, &name, &stop); any = 1)
        if (in_function)
            add_edit(end + 1, 0, " DLS_SIMT_SHARED(%.*s)", (int)(stop - name),
                     src + name);
    if (!any)
        fail_at(at, "cannot find the variable's name in this __shared__ declaration");
    return end;
}
/* rewrite an unroll pragma */
/* `at` is a # that starts a directive. */
static void rewrite_pragma(size_t at)
{
    size_t i = at + 1 + strspn(src + at + 1, " \t");
    if (strncmp(src + i, "pragma", 6) != 0)
        return;
    i += 6 + strspn(src + i + 6, " \t");
    size_t n = strspn(src + i, "abcdefghijklmnopqrstuvwxyz"), end = i + n;
    int off = n == 8 && !strncmp(src + i, "nounroll", 8);
    if (!off && !(n == 6 && !strncmp(src + i, "unroll", 6)))
        return;
    while (end < len && kind[end] == DIRECTIVE && src[end] != '\n')
        end++;
    size_t number = i + n + strspn(src + i + n, " \t(");
    int literal = isdigit((unsigned char)src[number]);
    int count = off ? 1 : literal ? atoi(src + number) : number < end ? 8 : 16;
    add_edit(i, end - i, "GCC unroll %d", count);
}
/* scan the source for edits */
static void scan(void)
{
    char body[256] = {0};  // per open brace: is it (within) a function body?
    int depth = 0;
    for (size_t i = 0; i < len; i++) {
        if (kind[i] == NOT_CODE)
            continue;
        if (kind[i] == DIRECTIVE && src[i] == '#' && !(i && kind[i - 1] == DIRECTIVE)) {
            rewrite_pragma(i);
        } else if (kind[i] == CODE && src[i] == '{' && depth < 255) {
            body[depth + 1] = body[depth] || !opens_namespace(i);
            depth++;
        } else if (kind[i] == CODE && src[i] == '}' && depth > 0) {
            depth--;
        } else if (!strncmp(src + i, "<<<", 3)) {
            int named = word_before(i, "operator") != (size_t)-1;
            i = (named ? i + 3 : rewrite_launch(i)) - 1;
        } else if (kind[i] == CODE && src[i] == '_' && word_at(i, "__shared__")) {
            i = rewrite_shared(i, body[depth]) - 1;
        }
    }
}
/* apply the edits */
static void write_edited(FILE *out)
{
    size_t at = 0;
    for (size_t e = 0; e < edit_count; e++) {
        fwrite(src + at, 1, edits[e].at - at, out);
        fputs(edits[e].insert, out);
        at = edits[e].at + edits[e].remove;
        for (size_t i = edits[e].at; i < at; i++)
            if (src[i] == '\n')
                fputc('\n', out);
    }
    fwrite(src + at, 1, len - at, out);
}

static int save(const char *path)
{
    char aside[4096];
    snprintf(aside, sizeof aside, "%s.tmp", path);
    FILE *out = fopen(aside, "wb");
    if (!out)
        return 0;
    write_edited(out);
    int ok = !ferror(out);
    return fclose(out) == 0 && ok && rename(aside, path) == 0;
}
/* run the rewriter */
static int usage(int status)
{
    fputs("usage: vgpu-rewrite IN.cu [-o OUT.cpp]\n"
          "Turns launches and __shared__ arrays into C++ for the virtual GPU.\n"
          "example: vgpu-rewrite a.cu -o a.cu.cpp\n", status ? stderr : stdout);
    return status;
}

int main(int argc, char **argv)
{
    const char *output = NULL;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--help"))
            return usage(0);
        if (!strcmp(argv[i], "-o") && i + 1 < argc)
            output = argv[++i];
        else if (argv[i][0] == '-' || input_name)
            return usage(2);
        else
            input_name = argv[i];
    }
    if (!input_name)
        return usage(2);
    if (!read_source(input_name)) {
        fprintf(stderr, "vgpu-rewrite: %s: cannot be read\n", input_name);
        return 1;
    }
    classify();
    if (strncmp(src, "#line", 5))
        add_edit(0, 0, "#line 1 \"%s\"\n", input_name);
    scan();
    if (failures)
        return 1;
    if (!output) {
        write_edited(stdout);
    } else if (!save(output)) {
        fprintf(stderr, "vgpu-rewrite: %s: cannot be written\n", output);
        return 1;
    }
    return 0;
}
