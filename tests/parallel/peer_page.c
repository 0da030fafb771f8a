/* tests/parallel/peer_page.c: from chapters/05-pipeline-pictures-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The page's functions as a program: page svg|json|list|csv WORDS...; page library checks
 * the page's small C library against the real one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel/pipeline/page/page.h"

/* declare the page s library by its other names */
int page_snprintf(char *out, size_t size, const char *format, ...);
long long page_strtoll(const char *text, char **end, int base);
void *page_memmove(void *to, const void *from, size_t n);
void *page_malloc(size_t n);
void *page_realloc(void *old, size_t n);
int page_strcmp(const char *a, const char *b);
int page_strncmp(const char *a, const char *b, size_t n);
char *page_strstr(const char *text, const char *part);
size_t page_strcspn(const char *text, const char *stop);
void page_qsort(void *base, size_t n, size_t size,
                int (*order)(const void *, const void *));

/* compare the libraries */
static int failures;

static void expect(int good, const char *what)
{
    if (!good)
        printf("differs: %s\n", what);
    failures += !good;
}

static volatile size_t room = 40; // gcc would warn of what is cut on purpose

#define SAME_FORMAT(...)                                              \
    do {                                                              \
        char ours[40], real[40];                                      \
        int n = page_snprintf(ours, room, __VA_ARGS__);               \
        int m = snprintf(real, room, __VA_ARGS__);                    \
        expect(n == m && strcmp(ours, real) == 0, #__VA_ARGS__);      \
    } while (0)

static void compare_formats(void)
{
    SAME_FORMAT("%d %d %d", 0, -1, -2147483647 - 1);
    SAME_FORMAT("%lld|%lld", -9223372036854775807LL - 1, 9223372036854775807LL);
    SAME_FORMAT("%zu|%ld|%lx", (size_t)-1, -5L, 255UL);
    SAME_FORMAT("%5d|%-5d|%05d|%05d", 42, 42, 42, -42);
    SAME_FORMAT("%06x|%x|%u", 0xab12u, 0u, 4294967295u);
    SAME_FORMAT("%*d|%-*d|%0*lld", 6, 7, 6, 7, 6, 7LL);
    SAME_FORMAT("%.0d|%.0d|%.3d", 0, 5, 5);
    SAME_FORMAT("%s|%.2s|%.*s|%5s|%-5s|%c%%", "abc", "abc", 1, "abc", "x", "y", 'z');
    SAME_FORMAT("%s", "longer than the forty bytes that there are for it, by some");
}

static void compare_numbers(void)
{
    static const char *const texts[] = {
        "0", "-0", "42x", " 7", "+9", "-9223372036854775808", "9223372036854775807",
        "9223372036854775808", "-9223372036854775809", "", "x", "-", "1e3"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *a, *b;
        int same = page_strtoll(texts[i], &a, 10) == strtoll(texts[i], &b, 10);
        expect(same && (a == b || *texts[i] == '9' || texts[i][1] == '9'), texts[i]);
    }
}

static int by_value(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static void compare_sorting(void)
{
    for (int n = 0; n < 200; n++) {
        int ours[200], real[200];
        for (int i = 0; i < n; i++)
            ours[i] = real[i] = (i * 7919 + n) % 101;
        page_qsort(ours, (size_t)n, sizeof *ours, by_value);
        qsort(real, (size_t)n, sizeof *real, by_value);
        expect(memcmp(ours, real, (size_t)n * sizeof *ours) == 0, "qsort");
    }
}

static int sign(int x)
{
    return (x > 0) - (x < 0);
}

static void compare_strings(void)
{
    static const char *const t[] = {"", "a", "ab", "abc", "b", "abab", "\xff"};
    for (int i = 0; i < 7; i++)
        for (int j = 0; j < 7; j++) {
            expect(sign(page_strcmp(t[i], t[j])) == sign(strcmp(t[i], t[j])), "strcmp");
            expect(sign(page_strncmp(t[i], t[j], 2)) == sign(strncmp(t[i], t[j], 2)),
                   "strncmp");
            expect(page_strstr(t[i], t[j]) == strstr(t[i], t[j]), "strstr");
            expect(page_strcspn(t[i], t[j]) == strcspn(t[i], t[j]), "strcspn");
        }
    char moved[] = "0123456789";
    page_memmove(moved + 2, moved, 5);
    page_memmove(moved + 7, moved + 8, 2);
    expect(strcmp(moved, "0101234899") == 0, "memmove");
}

static void compare_memory(void)
{
    char *a = page_malloc(3), *b = page_realloc(a, 100);
    expect(a == b, "realloc of the last piece stays");
    memcpy(b, "0123456789", 11);
    char *c = page_malloc(1), *d = page_realloc(b, 5000);
    expect(d != b && strcmp(d, "0123456789") == 0, "realloc of another moves");
    expect(((size_t)c & 15) == 0 && c >= b + 100 && d > c, "pieces do not overlap");
    expect(page_malloc((size_t)1 << 40) == NULL, "too much");
}

/* answer like the page */
static int check_library(void)
{
    compare_formats();
    compare_numbers();
    compare_sorting();
    compare_strings();
    compare_memory();
    return failures > 0;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"svg", "json", "message", "csv", "list"};
    if (argc == 2 && strcmp(argv[1], "library") == 0)
        return check_library();
    char text[1 << 16];
    size_t n = 0;
    for (int i = 2; i < argc && n < sizeof text; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", i > 2 ? " " : "",
                              argv[i]);
    memcpy(page_words((int)n), text, n);
    int refused = page_show((int)n, 960);
    for (int what = 0; what < PAGE_TEXTS; what++)
        if (refused ? what == PAGE_MESSAGE
                    : argc > 1 && strcmp(argv[1], names[what]) == 0)
            fwrite(page_text(what), 1, (size_t)page_size(what), stdout);
    if (refused)
        putchar('\n');
    return refused;
}
