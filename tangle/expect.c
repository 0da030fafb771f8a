/*
 * expect.c - does a run's output meet the chapter's expectation?
 *
 * exact        line for line the same (the end of the last line aside)
 * tolerance=t  the same words; each number within t of the expected one, relatively
 * .device      the same words; numbers belong to the device and are not compared
 * In the last two, runs of white space count as one space, since columns move with the
 * numbers.
 */
#include "tangle.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum mode { EXACT, TOLERANCE, DEVICE };

/* A number at p: its length, or 0. Digits inside a word (conv2d) are none. */
static size_t number_at(const slice s, size_t i, double *value)
{
    char copy[64], *end;
    if (i > 0 && (isalnum((unsigned char)s.p[i - 1]) || strchr("_.", s.p[i - 1])))
        return 0;
    size_t digit = i + (s.p[i] == '-' || s.p[i] == '+');
    digit += digit < s.n && s.p[digit] == '.';
    if (digit >= s.n || !isdigit((unsigned char)s.p[digit]))
        return 0;
    size_t n = s.n - i < sizeof copy - 1 ? s.n - i : sizeof copy - 1;
    n = strspn(memcpy(copy, s.p + i, n), "+-.0123456789eE") < n
            ? strspn(copy, "+-.0123456789eE")
            : n;
    copy[n] = '\0';
    *value = strtod(copy, &end);
    return (size_t)(end - copy);
}

static size_t skip_spaces(slice s, size_t i)
{
    while (i < s.n && isspace((unsigned char)s.p[i]))
        i++;
    return i;
}

static bool close_enough(double want, double got, double tolerance)
{
    double larger = fabs(want) > fabs(got) ? fabs(want) : fabs(got);
    return fabs(want - got) <= tolerance * larger;
}

static bool line_meets(slice want, slice got, enum mode mode, double tolerance)
{
    if (mode == EXACT)
        return same(want, got);
    want = trim(want);
    got = trim(got);
    size_t i = 0, k = 0;
    while (i < want.n && k < got.n) {
        double x = 0, y = 0;
        bool space = isspace((unsigned char)want.p[i]);
        size_t xn = number_at(want, i, &x), yn = number_at(got, k, &y);
        if (xn && yn) {
            if (mode == TOLERANCE && !close_enough(x, y, tolerance))
                return false;
            i += xn;
            k += yn;
        } else if (space && isspace((unsigned char)got.p[k])) {
            i = skip_spaces(want, i);
            k = skip_spaces(got, k);
        } else if (want.p[i++] != got.p[k++]) {
            return false;
        }
    }
    return i == want.n && k == got.n;
}

/* Without the empty lines at the end. */
static int meaningful(const slice *line, int n)
{
    while (n > 0 && !trim(line[n - 1]).n)
        n--;
    return n;
}

/* Returns the row of the first line that differs, or -1. *got_line is what came instead.
 */
int expectation_row(const struct block *e, slice output, slice *got_line)
{
    slice tolerance = attribute_of(e, "tolerance");
    enum mode mode = tolerance.p ? TOLERANCE : has_class(e, "device") ? DEVICE : EXACT;
    double t = tolerance.p ? strtod(keep_text(tolerance), NULL) : 0;
    int gn, wn = e->lines;
    slice *got = cut_lines(output, &gn);
    gn = meaningful(got, gn);
    while (wn > 0 && !trim(block_line(e, wn - 1)).n)
        wn--;
    for (int row = 0; row < wn || row < gn; row++) {
        *got_line = row < gn ? got[row] : (slice){NULL, 0};
        if (row >= wn || row >= gn || !line_meets(block_line(e, row), got[row], mode, t))
            return row;
    }
    return -1;
}
