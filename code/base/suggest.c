/* code/base/suggest.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Edit distance (optimal string alignment) over all candidates. */
#include "base/suggest.h"

#include <stddef.h>
#include <string.h>

enum { WORD = 64 };

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* count the edits */
static int edits(const char *a, const char *b)
{
    int na = (int)strlen(a), nb = (int)strlen(b);
    if (na >= WORD || nb >= WORD)
        return WORD;
    int d[WORD][WORD];
    for (int i = 0; i <= na; i++)
        for (int j = 0; j <= nb; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            best = least(best, least(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = least(best, d[i - 2][j - 2] + 1);
            d[i][j] = best;
        }
    return d[na][nb];
}

const char *dls_suggest(const char *word, const char *const *candidates, int count)
{
    int allowed = (int)strlen(word) / 3;
    int best = allowed > 1 ? allowed : 1;
    const char *nearest = NULL;
    for (int i = 0; i < count; i++) {
        int distance = edits(word, candidates[i]);
        if (distance < best || (distance == best && !nearest)) {
            best = distance;
            nearest = candidates[i];
        }
    }
    return nearest;
}
