/* code/comm/steps_double_tree.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* The double binary tree: two trees, half a vector each, in pieces. A pure function; see
 * algorithms.h.
 *
 * With D the depth of the deepest rank, piece c goes up from depth d in step D - d + c
 * and down from depth d in step D + d + c. */
#include "comm/algorithms.h"

/* climb a tree */
/* The number 1..n of a rank in tree 0 or 1, and back. */
static int number_of(int rank, int n, int tree)
{
    int x = rank + 1;
    return tree == 0 ? x : n % 2 ? x % n + 1 : n + 1 - x;
}

static int rank_of(int x, int n, int tree)
{
    return tree == 0 ? x - 1 : n % 2 ? (x + n - 2) % n : n - x;
}

/* 0 for the root. */
static int parent_of(int x, int n)
{
    do {
        int height = x & -x;
        x = (x - height) | 2 * height;
        if (x > 2 * n)
            return 0;
    } while (x > n);
    return x;
}

static int depth_of(int x, int n)
{
    int depth = -1;
    for (; x; x = parent_of(x, n))
        depth++;
    return depth;
}

static int deepest(int n)
{
    int most = 0;
    for (int x = 1; x <= n; x += 2)
        most = depth_of(x, n) > most ? depth_of(x, n) : most;
    return most;
}

/* send pieces up and down */
/* Range of piece c of a tree's half. */
static void piece(const dls_shape *shape, int tree, int c, int pieces, size_t *first,
                  size_t *count)
{
    size_t half, size, at;
    dls_part(shape->count, 2, tree, &half, &size);
    dls_part(size, pieces, c, &at, count);
    *first = half + at;
}

static int pieces_of(const dls_shape *shape)
{
    size_t half = (shape->count + 1) / 2;
    return half ? (int)((half + shape->block - 1) / shape->block) : 1;
}

/* Adds the moves of one tree. up, down: pieces that this rank sends; the pieces that it
 * receives are one further. */
static void climb(const dls_shape *shape, int tree, int up, int down, dls_step *step)
{
    int n = shape->world, pieces = pieces_of(shape), x = number_of(shape->rank, n, tree);
    int above = parent_of(x, n), child[2], children = 0;
    size_t first, count;
    for (int y = 1; y <= n; y++)
        if (y != x && parent_of(y, n) == x)
            child[children++] = rank_of(y, n, tree);
    /* send a piece each way */
    if (above && up >= 0 && up < pieces) {
        piece(shape, tree, up, pieces, &first, &count);
        dls_step_send(step, rank_of(above, n, tree), DLS_OUT, first, count);
    }
    if (down >= 0 && down < pieces) {
        piece(shape, tree, down, pieces, &first, &count);
        for (int i = 0; i < children; i++)
            dls_step_send(step, child[i], DLS_OUT, first, count);
    }
    /* receive a piece each way */
    if (up + 1 >= 0 && up + 1 < pieces) {
        piece(shape, tree, up + 1, pieces, &first, &count);
        for (int i = 0; i < children; i++)
            dls_step_combine(step, child[i], DLS_OUT, first, count, DLS_OUT)->finish =
                !above && i == children - 1;
    }
    if (above && down + 1 >= 0 && down + 1 < pieces) {
        piece(shape, tree, down + 1, pieces, &first, &count);
        dls_step_receive(step, rank_of(above, n, tree), DLS_OUT, first, count);
    }
}

int dls_double_tree_all_reduce(const dls_shape *shape, int k, dls_step *step)
{
    int n = shape->world, deep = deepest(n);
    dls_step_clear(step);
    if (k >= 2 * deep - 1 + pieces_of(shape))
        return 0;
    for (int tree = 0; tree < 2; tree++) {
        int depth = depth_of(number_of(shape->rank, n, tree), n);
        climb(shape, tree, k - (deep - depth), k - (deep + depth), step);
    }
    return 1;
}
