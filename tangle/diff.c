/*
 * diff.c - the shortest edit between two lists of lines (Myers 1986, greedy, with its
 * trace).
 *
 * Common heads and tails are cut off first. The trace takes D^2/2 integers for D
 * differing lines; above LARGEST the middle is taken as one replacement, which is
 * correct, only coarse.
 */
#include "files.h"

#include <string.h>

enum { LARGEST = 3000 };

struct middle {
    const slice *a, *b;
    int an, bn;
};

static void add_hunk(hunks *out, struct hunk h)
{
    struct hunk *last = out->n ? &out->at[out->n - 1] : NULL;
    if (last && last->a + last->an == h.a && last->b + last->bn == h.b) {
        last->an += h.an;
        last->bn += h.bn;
    } else {
        PUSH(*out, h);
    }
}

/* Walks forward until the ends meet; trace[d] is the frontier before step d. Returns D or
 * -1. */
static int explore(const struct middle *m, int **trace)
{
    int most = m->an + m->bn < LARGEST ? m->an + m->bn : LARGEST;
    int *v = keep((size_t)(2 * most + 3) * sizeof *v);
    v += most + 1;
    for (int d = 0; d <= most; d++) {
        trace[d] = keep((size_t)(2 * d + 3) * sizeof **trace);
        memcpy(trace[d], v - d - 1, (size_t)(2 * d + 3) * sizeof *v);
        for (int k = -d; k <= d; k += 2) {
            int x = k == -d || (k != d && v[k - 1] < v[k + 1]) ? v[k + 1] : v[k - 1] + 1;
            while (x < m->an && x - k < m->bn && same(m->a[x], m->b[x - k]))
                x++;
            v[k] = x;
            if (x >= m->an && x - k >= m->bn)
                return d;
        }
    }
    return -1;
}

/* Follows the trace back to the start; steps come out last first. */
static int backtrack(const struct middle *m, int **trace, int depth, struct hunk *steps)
{
    int x = m->an, y = m->bn, n = 0;
    for (int d = depth; d > 0; d--) {
        int *v = trace[d] + d + 1, k = x - y;
        bool down = k == -d || (k != d && v[k - 1] < v[k + 1]);
        int from_k = down ? k + 1 : k - 1;
        int from_x = v[from_k], from_y = from_x - from_k;
        steps[n++] = (struct hunk){from_x, !down, from_y, down};
        x = from_x;
        y = from_y;
    }
    return n;
}

void diff_lines(const slice *a, int an, const slice *b, int bn, hunks *out)
{
    int head = 0, tail = 0;
    while (head < an && head < bn && same(a[head], b[head]))
        head++;
    while (tail < an - head && tail < bn - head &&
           same(a[an - 1 - tail], b[bn - 1 - tail]))
        tail++;
    struct middle m = {a + head, b + head, an - head - tail, bn - head - tail};
    if (m.an == 0 && m.bn == 0)
        return;
    int **trace = keep((LARGEST + 1) * sizeof *trace);
    int depth = m.an && m.bn ? explore(&m, trace) : -1;
    if (depth < 0) {
        add_hunk(out, (struct hunk){head, m.an, head, m.bn});
        return;
    }
    struct hunk *steps = keep((size_t)(depth + 1) * sizeof *steps);
    for (int n = backtrack(&m, trace, depth, steps); n-- > 0;)
        add_hunk(out, (struct hunk){steps[n].a + head, steps[n].an, steps[n].b + head,
                                    steps[n].bn});
}

static void show_lines(text *t, char mark, const slice *line, int from, int n)
{
    for (int i = from; i < from + n; i++)
        addf(t, "%c %.*s\n", mark, FMT(line[i]));
}

/* The differing lines of two texts, marked - and +. */
void diff_show(text *t, slice old, slice new)
{
    int an, bn;
    slice *a = cut_lines(old, &an), *b = cut_lines(new, &bn);
    hunks h = {0};
    diff_lines(a, an, b, bn, &h);
    for (size_t i = 0; i < h.n; i++) {
        show_lines(t, '-', a, h.at[i].a, h.at[i].an);
        show_lines(t, '+', b, h.at[i].b, h.at[i].bn);
    }
}
