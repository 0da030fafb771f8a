/* code/parallel/pipeline/page/libc.c: from chapters/05-pipeline-pictures-page.md. Edit the chapter, or edit here and run "make untangle". */
/* The part of the C library that the page's sources need, for WebAssembly, where there is
 * none. Compiled for the processor at hand it has other names (names.h), and a test runs
 * it there.
 *
 *   heap  | words, lists, times, boxes, texts ... | free, grows by pages of 64 KiB |
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int errno_of_page;

/* find the page s heap */
#ifdef __wasm__
extern unsigned char __heap_base;
static unsigned char *heap_start(void) { return &__heap_base; }

static int heap_reaches(const unsigned char *end)
{
    uintptr_t have = __builtin_wasm_memory_size(0) << 16, need = (uintptr_t)end;
    return need <= have ||
           __builtin_wasm_memory_grow(0, (need - have + 65535) >> 16) != (uintptr_t)-1;
}
#else
static unsigned char heap[256 << 20] __attribute__((aligned(16)));
static unsigned char *heap_start(void) { return heap; }
static int heap_reaches(const unsigned char *end) { return end <= heap + sizeof heap; }
#endif

/* hand out memory */
static unsigned char *next;

void page_forget_memory(void)
{
    next = NULL;
}

void *malloc(size_t n)
{
    uintptr_t at = (uintptr_t)(next ? next : heap_start());
    unsigned char *p = (unsigned char *)((at + 31) & ~(uintptr_t)15);
    if (n > (size_t)1 << 30 || !heap_reaches(p + n))
        return NULL;
    ((size_t *)(void *)p)[-1] = n;
    next = p + n;
    return p;
}

void *calloc(size_t n, size_t size)
{
    void *p = size && n > ((size_t)1 << 30) / size ? NULL : malloc(n * size);
    return p ? memset(p, 0, n * size) : NULL;
}

void *realloc(void *old, size_t n)
{
    size_t *size = (size_t *)old - 1;
    if (old && (unsigned char *)old + *size == next && n >= *size &&
        n <= (size_t)1 << 30 && heap_reaches((unsigned char *)old + n)) {
        next = (unsigned char *)old + n;
        *size = n;
        return old;
    }
    void *p = malloc(n);
    return p && old ? memcpy(p, old, n < *size ? n : *size) : p;
}

void free(void *p)
{
    (void)p;
}

/* move bytes */
void *memcpy(void *to, const void *from, size_t n)
{
    return memmove(to, from, n);
}

void *memmove(void *to, const void *from, size_t n)
{
    unsigned char *t = to;
    const unsigned char *f = from;
    for (size_t i = 0; i < n && t < f; i++)
        t[i] = f[i];
    for (size_t i = n; i > 0 && t > f; i--)
        t[i - 1] = f[i - 1];
    return to;
}

void *memset(void *to, int byte, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((unsigned char *)to)[i] = (unsigned char)byte;
    return to;
}

/* compare and search strings */
int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *x = a, *y = b;
    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i])
            return x[i] - y[i];
    return 0;
}

void *memchr(const void *text, int byte, size_t n)
{
    for (const unsigned char *p = text; n > 0; n--, p++)
        if (*p == (unsigned char)byte)
            return (void *)p;
    return NULL;
}

size_t strlen(const char *text)
{
    size_t n = 0;
    while (text[n])
        n++;
    return n;
}

int strcmp(const char *a, const char *b)
{
    size_t n = strlen(a);
    return memcmp(a, b, n < strlen(b) ? n + 1 : strlen(b) + 1);
}

int strncmp(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i] || !a[i])
            return (unsigned char)a[i] - (unsigned char)b[i];
    return 0;
}

char *strchr(const char *text, int c)
{
    return memchr(text, c, strlen(text) + 1);
}

size_t strcspn(const char *text, const char *stop)
{
    size_t n = 0;
    while (text[n] && !strchr(stop, text[n]))
        n++;
    return n;
}

char *strstr(const char *text, const char *part)
{
    for (size_t n = strlen(part); strlen(text) >= n; text++)
        if (memcmp(text, part, n) == 0)
            return (char *)text;
    return NULL;
}

/* read a number */
int isspace(int c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

long long strtoll(const char *text, char **end, int base)
{
    const char *at = text;
    uint64_t value = 0, most = INT64_MAX;
    while (isspace(*at))
        at++;
    int minus = *at == '-';
    at += *at == '-' || *at == '+';
    const char *digits = at;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (value > (most + (unsigned)minus - (unsigned)(*at - '0')) / (unsigned)base) {
            errno = ERANGE;
            value = most + (unsigned)minus;
            break;
        }
        value = value * (unsigned)base + (unsigned)(*at - '0');
    }
    *end = (char *)(at == digits ? text : at);
    return (long long)(minus ? 0 - value : value);
}

double strtod(const char *text, char **end)
{
    *end = (char *)text;
    return 0;
}

/* sort in place */
static void swap(char *a, char *b, size_t size)
{
    for (; size > 0; size--, a++, b++) {
        char c = *a;
        *a = *b;
        *b = c;
    }
}

void qsort(void *base, size_t n, size_t size, int (*order)(const void *, const void *))
{
    char *a = base;
    for (size_t end = n, start = n / 2; end > 1;) {
        if (start > 0)
            start--;
        else
            swap(a, a + --end * size, size);
        for (size_t i = start, child; (child = 2 * i + 1) < end; i = child) {
            if (child + 1 < end && order(a + child * size, a + (child + 1) * size) < 0)
                child++;
            if (order(a + i * size, a + child * size) >= 0)
                break;
            swap(a + i * size, a + child * size, size);
        }
    }
}

/* write into a bounded buffer */
typedef struct buffer {
    char *at;
    size_t size, length;
} buffer;

static void put(buffer *b, char c)
{
    if (b->length + 1 < b->size)
        b->at[b->length] = c;
    b->length++;
}

static void put_field(buffer *b, const char *text, size_t n, int width, int left)
{
    for (int i = (int)n; i < width && !left; i++)
        put(b, ' ');
    for (size_t i = 0; i < n; i++)
        put(b, text[i]);
    for (int i = (int)n; i < width && left; i++)
        put(b, ' ');
}

/* write a conversion */
typedef struct form {
    int left, zero, width, precision; // precision -1: not given
} form;

static void put_number(buffer *b, const form *f, uint64_t value, unsigned base, int minus)
{
    char digits[80];
    int n = 0, least = f->precision >= 0 ? f->precision : 1;
    if (f->zero && f->precision < 0 && !f->left)
        least = f->width - minus;
    least = least > 64 ? 64 : least;
    for (; value || n < least; value /= base)
        digits[n++] = "0123456789abcdef"[value % base];
    if (minus)
        digits[n++] = '-';
    for (int i = 0; i < n / 2; i++) {
        char c = digits[i];
        digits[i] = digits[n - 1 - i];
        digits[n - 1 - i] = c;
    }
    put_field(b, digits, (size_t)n, f->width, f->left);
}

static void put_string(buffer *b, const form *f, const char *text)
{
    size_t n = 0;
    while ((f->precision < 0 || n < (size_t)f->precision) && text[n])
        n++;
    put_field(b, text, n, f->width, f->left);
}

/* write a format */
/* "-5", "08", "*": a flag or two and a number. */
static int read_star(const char **f, va_list *arguments)
{
    int n = 0;
    if (**f == '*') {
        ++*f;
        return va_arg(*arguments, int);
    }
    for (; **f >= '0' && **f <= '9'; ++*f)
        n = n * 10 + (**f - '0');
    return n;
}

static const char *read_form(const char *f, form *out, va_list *arguments)
{
    *out = (form){.precision = -1};
    for (; *f == '-' || *f == '0'; f++) {
        out->left |= *f == '-';
        out->zero |= *f == '0';
    }
    out->width = read_star(&f, arguments);
    if (*f == '.') {
        f++;
        out->precision = read_star(&f, arguments);
    }
    return f;
}

static void convert(buffer *b, const form *f, char c, int wide, va_list *arguments)
{
    if (c == 's') {
        put_string(b, f, va_arg(*arguments, const char *));
    } else if (c == 'c') {
        char one = (char)va_arg(*arguments, int);
        put_field(b, &one, 1, f->width, f->left);
    } else if (c == 'd' || c == 'i') {
        int64_t v = wide ? va_arg(*arguments, int64_t) : va_arg(*arguments, int);
        put_number(b, f, v < 0 ? 0 - (uint64_t)v : (uint64_t)v, 10, v < 0);
    } else if (c == 'u' || c == 'x') {
        uint64_t v = wide ? va_arg(*arguments, uint64_t) : va_arg(*arguments, unsigned);
        put_number(b, f, v, c == 'x' ? 16 : 10, 0);
    } else {
        put(b, c);
    }
}

int vsnprintf(char *out, size_t size, const char *f, va_list outer)
{
    buffer b = {out, size, 0};
    va_list arguments;
    va_copy(arguments, outer);
    for (; *f; f++) {
        if (*f != '%') {
            put(&b, *f);
            continue;
        }
        form how;
        f = read_form(f + 1, &how, &arguments);
        size_t bytes = sizeof(int);
        for (; *f == 'l' || *f == 'z'; f++)
            bytes = bytes == sizeof(int) ? sizeof(size_t) : sizeof(long long);
        if (f[-1] == 'l' && f[-2] == 'l')
            bytes = sizeof(long long);
        convert(&b, &how, *f, bytes == sizeof(int64_t), &arguments);
    }
    if (size)
        out[b.length < size ? b.length : size - 1] = 0;
    va_end(arguments);
    return (int)b.length;
}

int snprintf(char *out, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(out, size, format, arguments);
    va_end(arguments);
    return n;
}

#ifdef __wasm__
int printf(const char *format, ...) // for --help: a page shows help of its own
{
    (void)format;
    return 0;
}
#endif
