/* code/parallel/pipeline/exact.c: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* Fractions of 64-bit integers, and their text. */
#include "parallel/pipeline/exact.h"

#include <stdio.h>
#include <string.h>

static const int64_t most_exact = 1000000000000000;  // 10^15

int64_t dls_common_divisor(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* read a fraction */
/* Digits into *value; 0 when there are none, or it grows above the most. */
static int read_digits(const char **text, int64_t *value)
{
    const char *start = *text;
    for (; **text >= '0' && **text <= '9' && *value <= most_exact; (*text)++)
        *value = *value * 10 + (**text - '0');
    return *text > start && *value <= most_exact;
}

/* read a whole fraction */
static int read_fraction(const char **text, dls_fraction *out)
{
    *out = (dls_fraction){0, 1};
    if (!read_digits(text, &out->over))
        return 0;
    if (**text == '.') {
        const char *start = ++*text;
        if (!read_digits(text, &out->over))
            return 0;
        for (const char *c = start; c < *text && out->under < most_exact; c++)
            out->under *= 10;
        if (out->under == most_exact)
            return 0;
    } else if (**text == '/') {
        ++*text;
        out->under = 0;
        if (!read_digits(text, &out->under) || !out->under)
            return 0;
    }
    int64_t common = dls_common_divisor(out->over, out->under);
    out->over /= common;
    out->under /= common;
    return 1;
}

/* read fractions */
dls_status dls_fractions_read(const char *what, const char *text, int least, int most,
                              dls_fraction *out, int *count)
{
    const char *at = text;
    for (*count = 0; *count < most; at++) {
        if (!read_fraction(&at, &out[(*count)++]) || (*at && *at != ','))
            break;
        if (!*at && *count >= least)
            return DLS_OK;
        if (!*at)
            break;
    }
    return DLS_FAIL(DLS_ERR_INPUT, "%s: expected %d%s%.0d number%s like 1, 2.5 or 1/3 "
                    "with commas between, none negative or above 10^15, got "
                    "\"%.80s\"", what,
                    least, most > least ? " to " : "", most > least ? most : 0,
                    most > 1 ? "s" : "", text);
}

/* align fractions */
dls_status dls_fractions_align(const char *what, dls_fraction *f, int n, int64_t *unit)
{
    int64_t common = 1;
    for (int i = 0; i < n; i++) {
        int64_t more = f[i].under / dls_common_divisor(common, f[i].under);
        if (common > most_exact / more)
            return DLS_FAIL(DLS_ERR_INPUT, "%s: expected a common denominator up to "
                            "10^15", what);
        common *= more;
    }
    for (int i = 0; i < n; i++) {
        int64_t factor = common / f[i].under;
        if (f[i].over > most_exact / factor)
            return DLS_FAIL(DLS_ERR_INPUT, "%s: expected numbers up to 10^15 over their "
                            "common denominator %lld", what, (long long)common);
        f[i] = (dls_fraction){f[i].over * factor, common};
    }
    *unit = common;
    return DLS_OK;
}

/* write a fraction */
/* 2^a 5^b is a divisor of a power of ten. */
static int has_an_end(int64_t under)
{
    while (under % 2 == 0)
        under /= 2;
    while (under % 5 == 0)
        under /= 5;
    return under == 1;
}

/* write an endless fraction */
static int endless_text(int64_t over, int64_t under, char out[DLS_EXACT_TEXT])
{
    const int64_t enough = 10000000000000000;  // 10^16, the least number of 17 digits
    const char *sign = over < 0 ? "-" : "";
    int digits = 0;
    for (over = over < 0 ? -over : over; under > INT64_MAX / 10; under /= 2)
        over /= 2;
    int64_t value = over / under, rest = over % under;
    for (; value < enough && digits < 40; digits++) {
        value = value * 10 + rest * 10 / under;
        rest = rest * 10 % under;
    }
    value += rest >= under - rest;
    int64_t power = 1;
    int zeros = digits > 18 ? digits - 18 : 0;
    for (int i = zeros; i < digits; i++)
        power *= 10;
    return snprintf(out, DLS_EXACT_TEXT, "%s%lld.%.*s%0*lld", sign,
                    (long long)(value / power), zeros, "0000000000000000000000",
                    digits - zeros, (long long)(value % power));
}

int dls_fraction_text(int64_t over, int64_t under, char out[DLS_EXACT_TEXT])
{
    int64_t common = dls_common_divisor(over < 0 ? -over : over, under);
    over /= common;
    under /= common;
    if (!has_an_end(under) || under > INT64_MAX / 10)
        return endless_text(over, under, out);
    int64_t rest = (over < 0 ? -over : over) % under;
    int n = snprintf(out, DLS_EXACT_TEXT, "%s%lld", over < 0 ? "-" : "",
                     (long long)((over < 0 ? -over : over) / under));
    if (rest)
        out[n++] = '.';
    for (; rest; rest = rest * 10 % under)
        out[n++] = (char)('0' + rest * 10 / under);
    out[n] = 0;
    return n;
}
