/* code/vgpu/rewrite.c: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* vgpu-rewrite: turns a CUDA source into C++ that g++ reads with the shadow headers.
 *
 *     vgpu-rewrite IN.cu [-o OUT.cpp]
 *
 * Edits, none of which moves a line: launches become calls, dynamic shared arrays become
 * pointers, static ones references into the block's arena (DLS_SIMT_SHARED), and unroll
 * pragmas are spelled as gcc spells them. The source is classified once, byte by byte,
 * into code and not-code (comments, strings; rewrite_text.c); all searching, forwards and
 * backwards, then sees code only. A parser of C++ was never an option: matching brackets
 * is enough, and where it is not, the tool says so.
 */
#include "vgpu/rewrite.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* A typedef takes gcc's spelling of an alignment and not alignas. */
static void spell_alignment(size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++)
        if (kind[i] == CODE && word_at(i, "alignas"))
            add_edit(i, 7, "__align__");
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
    for (word = at; word > 0 && !strchr(";{}", src[word - 1]);)
        word--;
    spell_alignment(word, end);
    add_edit(at, 10, "typedef");
    const char *macro = in_function ? "DLS_SIMT_SHARED" : "DLS_SIMT_SHARED_GLOBAL";
    size_t first = edit_count;
    for (size_t from = after; next_declarator(&from, end, &name, &stop);)
        add_edit(name, 0, "dls_type_");
    if (edit_count == first)
        fail_at(at, "cannot find the variable's name in this __shared__ declaration");
    for (size_t from = after; next_declarator(&from, end, &name, &stop);)
        add_edit(end + 1, 0, " %s(%.*s)", macro, (int)(stop - name), src + name);
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
/* rewrite launch bounds */
/* `at` is a __launch_bounds__. */
static void rewrite_bounds(size_t at)
{
    size_t open = skip_forward(at + 17), close;
    if (src[open] != '(' || (close = match_forward(open)) == len)
        return;
    for (size_t i = close + 1; i < len && src[i] != ';'; i++) {
        if (kind[i] != CODE)
            continue;
        if (src[i] == '(')
            i = match_forward(i);
        else if (src[i] == '{') {
            add_edit(i + 1, 0, " DLS_SIMT_BOUNDS%.*s", (int)(close + 1 - open),
                     src + open);
            return;
        }
    }
}
/* rewrite a launch by pointer */
/* The position behind a cast to (const) void * at i; i if there is none. */
static size_t skip_cast(size_t i)
{
    if (src[i] != '(')
        return i;
    size_t word = skip_forward(i + 1);
    if (word_at(word, "const"))
        word = skip_forward(word + 5);
    if (!word_at(word, "void"))
        return i;
    size_t star = skip_forward(word + 4), close = skip_forward(star + 1);
    return src[star] == '*' && src[close] == ')' ? skip_forward(close + 1) : i;
}

/* `at` is a cudaLaunchKernel or cudaLaunchCooperativeKernel of `length` bytes. */
static void rewrite_call(size_t at, size_t length)
{
    size_t open = skip_forward(at + length), first = skip_forward(open + 1), i;
    int angle = 0;
    if (src[open] != '(')
        return;
    size_t kernel = skip_cast(first);
    for (i = kernel; i < len && !(angle == 0 && (src[i] == ',' || src[i] == ')')); i++) {
        if (kind[i] == NOT_CODE)
            continue;
        angle += (src[i] == '<') - (src[i] == '>');
        if (strchr("([{", src[i]))
            i = match_forward(i);
    }
    if (i < len && src[i] == ',') {
        add_edit(first, kernel - first, "DLS_SIMT_NAMED(");
        add_edit(i, 0, ")");
    }
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
        } else if (kind[i] == CODE && src[i] == '_' && word_at(i, "__launch_bounds__")) {
            rewrite_bounds(i);
        } else if (kind[i] == CODE && src[i] == 'c' && word_at(i, "cudaLaunchKernel")) {
            rewrite_call(i, strlen("cudaLaunchKernel"));
        } else if (kind[i] == CODE && src[i] == 'c' &&
                   word_at(i, "cudaLaunchCooperativeKernel")) {
            rewrite_call(i, strlen("cudaLaunchCooperativeKernel"));
        }
    }
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
    if (!save_edited(output)) {
        fprintf(stderr, "vgpu-rewrite: %s: cannot be written\n", output);
        return 1;
    }
    return 0;
}
