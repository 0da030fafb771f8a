/* code/vgpu/rewrite_text.c: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* The text that vgpu-rewrite works on: reading, classifying and walking it, reporting
 * errors at the author's lines, and recording and applying edits. */
#include "vgpu/rewrite.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* define the rewriter state */
const char *input_name;
char *src;
size_t len;
unsigned char *kind;
size_t edit_count;
int failures;
static edit *edits;
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

void fail_at(size_t at, const char *fmt, ...)
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
int read_source(const char *path)
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

void classify(void)
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
int is_name(size_t i)
{
    return kind[i] != NOT_CODE && (isalnum((unsigned char)src[i]) || src[i] == '_');
}

size_t skip_forward(size_t i)
{
    while (i < len && (kind[i] == NOT_CODE || strchr(" \t\n\r\\", src[i])))
        i++;
    return i;
}

/* The last position before i that holds code which is not blank; (size_t)-1 if none. */
size_t skip_back(size_t i)
{
    while (i-- > 0)
        if (kind[i] != NOT_CODE && !strchr(" \t\n\r\\", src[i]))
            return i;
    return (size_t)-1;
}

/* src[i] opens a bracket: the position of its partner, or len. */
size_t match_forward(size_t i)
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
size_t match_back(size_t i)
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
/* record an edit */
void add_edit(size_t at, size_t remove, const char *fmt, ...)
{
    char *text = NULL;
    va_list list;
    va_start(list, fmt);
    checked(vasprintf(&text, fmt, list) < 0 ? NULL : text);
    va_end(list);
    if (edit_count % 64 == 0)
        edits = checked(realloc(edits, (edit_count + 64) * sizeof *edits));
    size_t i = edit_count++;
    for (; i > 0 && edits[i - 1].at > at; i--)
        edits[i] = edits[i - 1];
    edits[i] = (edit){at, remove, text};
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

int save_edited(const char *path)
{
    char aside[4096];
    if (!path) {
        write_edited(stdout);
        return 1;
    }
    snprintf(aside, sizeof aside, "%s.tmp", path);
    FILE *out = fopen(aside, "wb");
    if (!out)
        return 0;
    write_edited(out);
    int ok = !ferror(out);
    return fclose(out) == 0 && ok && rename(aside, path) == 0;
}
