/* tests/tensor/ladder_counts.c: from chapters/02-gemm-ladder-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The sums of ladder_counts.h. A request's sectors are counted from spans: runs of
 * neighbouring elements of one row, in ascending order of address. */
#include "ladder_counts.h"

#include <stdlib.h>

/* add up the sectors of a request */
typedef struct request {
    long last;     // the last sector so far, -1 at first
    long sectors;
} request;

/* Elements first ... first + count - 1 of an array that begins at a sector's border. */
static void span(request *r, long first, long count, int size)
{
    long from = first * size / 32, to = ((first + count) * size - 1) / 32;
    if (count <= 0)
        return;
    if (from <= r->last)
        from = r->last + 1;
    if (to >= from)
        r->sectors += to - from + 1;
    if (to > r->last)
        r->last = to;
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

static void close_request(ladder_traffic *t, const request *r, long times)
{
    t->requests += r->sectors > 0 ? times : 0;
    t->pieces += r->sectors * times;
}

/* add up the turns of a warp */
/* Lanes that store one word of their piece: those of one group take turns. */
static long turns(const int group[32], const char active[32], int from, int to)
{
    long lanes[8] = {0}, most = 0;
    for (int lane = from; lane < to; lane++)
        if (active[lane] && ++lanes[group[lane]] > most)
            most = lanes[group[lane]];
    return most;
}

/* The same for whole pieces: each quarter of the warp has its own turns. */
static long turns_of_pieces(const int group[32], const char active[32])
{
    return turns(group, active, 0, 8) + turns(group, active, 8, 16) +
           turns(group, active, 16, 24) + turns(group, active, 24, 32);
}

/* count the requests for a tile */
typedef struct matrix {
    int rows, columns, size;  // bytes per element
} matrix;

/* `run` neighbours in every `stride` elements, `width` of the latter, in each of
 * `height` rows; one request. */
static void patch(ladder_traffic *t, const matrix *m, int row, int gap, int height,
                  int column, int run, int stride, int width, long times)
{
    request r = {-1, 0};
    for (int i = 0; i < height; i++)
        for (int j = 0; j < width && row + i * gap < m->rows; j++) {
            int c = column + j * stride;
            span(&r, (long)(row + i * gap) * m->columns + c, least(run, m->columns - c),
                 m->size);
        }
    close_request(t, &r, times);
}

static void patch_of_pieces(ladder_traffic *t, const matrix *m, int row, int gap,
                            int height, int column, int pieces, long times)
{
    int each = 16 / m->size;
    if (m->columns % each == 0) {
        patch(t, m, row, gap, height, column, each * pieces, 0, 1, times);
        return;
    }
    for (int e = 0; e < each; e++)
        patch(t, m, row, gap, height, column + e, 1, each, pieces, times);
}

static int group_of(int row, int piece, int per_row, int swizzled)
{
    int place = piece;
    if (swizzled)
        place = per_row == 4 ? piece ^ (row / 2 % 4) : piece ^ (row % 8);
    return (row * per_row + place) % 8;
}

typedef struct tile {
    int row, column;       // in the matrix
    int height, per_row;   // pieces per row
    int swizzled;
} tile;

/* One warp's 32 pieces of a tile, from number `first` on. */
static void fetch_pieces(ladder_counts *n, const matrix *m, const tile *t, int first,
                         long times)
{
    int each = 16 / m->size, group[32];
    char inside[32], outside[32], any = 0;
    request r = {-1, 0};
    for (int lane = 0; lane < 32; lane++) {
        int row = (first + lane) / t->per_row, piece = (first + lane) % t->per_row;
        int c = t->column + piece * each;
        group[lane] = group_of(row, piece, t->per_row, t->swizzled);
        inside[lane] = m->columns % each == 0 && t->row + row < m->rows && c < m->columns;
        outside[lane] = !inside[lane];
        any |= outside[lane];
        if (inside[lane])
            span(&r, (long)(t->row + row) * m->columns + c, each, m->size);
    }
    close_request(&n->load, &r, times);
    n->shared_store.requests += ((r.sectors > 0) + (any ? each : 0)) * times;
    n->shared_store.pieces += turns_of_pieces(group, inside) * times +
                              each * turns(group, outside, 0, 32) * times;
}

static void fetch_tile(ladder_counts *n, const matrix *m, const tile *t, long times)
{
    int each = 16 / m->size;
    for (int first = 0; first < t->height * t->per_row; first += 32) {
        fetch_pieces(n, m, t, first, times);
        if (m->columns % each != 0)
            patch_of_pieces(&n->load, m, t->row + first / t->per_row, 1,
                            32 / t->per_row, t->column, t->per_row, times);
    }
}

/* count steps without tiles */
static void count_naive(ladder_counts *n, const matrix *A, const matrix *C)
{
    for (int i = 0; i < C->rows; i += 32) {
        for (int l = 0; l < A->columns; l++)
            patch(&n->load, A, i, 1, 32, l, 1, 0, 1, C->columns);
        n->load.requests += (long)A->columns * C->columns;  // one element of B
        n->load.pieces += (long)A->columns * C->columns;
        for (int j = 0; j < C->columns; j++)
            patch(&n->store, C, i, 1, 32, j, 1, 0, 1, 1);
    }
}

/* Every row of m, in runs of `run` neighbours. */
static void rows_in_runs(ladder_traffic *t, const matrix *m, int run, long times)
{
    for (int r = 0; r < m->rows; r++)
        for (int c = 0; c < m->columns; c += run)
            patch(t, m, r, 1, 1, c, run, 0, 1, times);
}

static void count_coalesced(ladder_counts *n, const matrix *B, const matrix *C)
{
    long warps = (long)C->rows * ((C->columns + 31) / 32);
    rows_in_runs(&n->load, B, 32, C->rows);
    n->load.requests += warps * B->rows;  // one element of A
    n->load.pieces += warps * B->rows;
    rows_in_runs(&n->store, C, 32, 1);
}

/* count steps with tiles */
struct blocks {
    int down, across, steps;  // of C, of C, of K
};

static void count_shared(ladder_counts *n, const matrix *A, const matrix *B,
                         const matrix *C, const struct blocks *b)
{
    rows_in_runs(&n->load, A, 32, b->across);
    rows_in_runs(&n->load, B, 32, b->down);
    rows_in_runs(&n->store, C, 32, 1);
}

/* Four rows of 8 of A, 32 in a row of B: steps 4 and 5. */
static void load_by_elements(ladder_counts *n, const matrix *A, const matrix *B,
                             const struct blocks *b)
{
    for (int i = 0; i < A->rows; i += 4)
        for (int l = 0; l < A->columns; l += 8)
            patch(&n->load, A, i, 1, 4, l, 8, 0, 1, b->across);
    rows_in_runs(&n->load, B, 32, b->down);
}

static void store_squares(ladder_counts *n, const matrix *C)
{
    for (int i = 0; i < C->rows; i += 16)
        for (int r = i; r < i + 8; r++)
            for (int j = 0; j < C->columns; j += 128)
                for (int e = 0; e < 8; e++)
                    patch(&n->store, C, r, 8, 2, j + e, 1, 8, 16, 1);
}

/* Steps 6 and 7: the same rows, 16 pieces in each half of the tile. */
static void store_halves(ladder_counts *n, const matrix *C)
{
    for (int i = 0; i < C->rows; i += 16)
        for (int r = i; r < i + 8; r++)
            for (int j = 0; j < C->columns; j += 64)
                patch_of_pieces(&n->store, C, r, 8, 2, j, 16, 1);
}

static void store_warp_tiles(ladder_counts *n, const matrix *C)
{
    for (int i = 0; i < C->rows; i += 8)
        for (int j = 0; j < C->columns; j += 16)
            patch_of_pieces(&n->store, C, i, 1, 8, j, 4, 1);
}

static void store_fragments(ladder_counts *n, const matrix *C)
{
    for (int i = 0; i < C->rows; i += 8)
        for (int j = 0; j < C->columns; j += 8)
            for (int e = 0; e < 2; e++)
                patch(&n->store, C, i, 1, 8, j + e, 1, 2, 4, 1);
}

static void load_by_pieces(ladder_counts *n, const matrix *A, const matrix *B,
                           const struct blocks *b)
{
    for (int i = 0; i < A->rows; i += 16)
        for (int l = 0; l < A->columns; l += 8)
            patch_of_pieces(&n->load, A, i, 1, 16, l, 2, b->across);
    for (int l = 0; l < B->rows; l++)
        for (int j = 0; j < B->columns; j += 128)
            patch_of_pieces(&n->load, B, l, 1, 1, j, 32, b->down);
}

/* Steps 7 to 9, tiles of 128 and `depth`. */
static void fetch_tiles(ladder_counts *n, const matrix *A, const matrix *B,
                        const struct blocks *b, int depth)
{
    int pieces_a = depth * A->size / 16, pieces_b = 128 * B->size / 16;
    int swizzled = A->size == 2;
    for (int s = 0; s < b->steps; s++) {
        for (int i = 0; i < b->down; i++)
            fetch_tile(n, A, &(tile){128 * i, depth * s, 128, pieces_a, swizzled},
                       b->across);
        for (int j = 0; j < b->across; j++)
            fetch_tile(n, B, &(tile){depth * s, 128 * j, depth, pieces_b, swizzled},
                       b->down);
    }
}

/* count a step */
/* Per block and tile: warps x (reads, wavefronts), warps x (writes, wavefronts). */
static const struct plan {
    int rows, columns, depth, reads, read_turns, writes, write_turns;
} plans[] = {
    [3] = {32, 32, 32, 32 * 64, 32 * 64, 32 * 2, 32 * 2},
    [4] = {64, 64, 8, 16 * 72, 16 * 72, 16 * 2, 16 * 2},
    [5] = {128, 128, 8, 8 * 8 * 16, 8 * 8 * (8 * 2 + 8 * 4), 8 * 8, 8 * 8},
    [6] = {128, 128, 8, 8 * 8 * 4, 8 * 8 * 4 * 4, 8 * (4 + 1), 8 * (4 + 4)},
    [7] = {128, 128, 8, 8 * 2 * 16, 8 * 2 * 16 * 4, 0, 0},
    [8] = {128, 128, 8, 4 * 2 * 24, 4 * 2 * 24 * 4, 0, 0},
    [9] = {128, 128, 32, 8 * 2 * 6, 8 * 2 * 6 * 4, 0, 0},
};

static int pieces_of(int size, int tile)
{
    return (size + tile - 1) / tile;
}

static void count_tiles(ladder_counts *n, const struct plan *p, const struct blocks *b)
{
    long tiles = (long)b->down * b->across * b->steps;
    n->shared_load.requests += tiles * p->reads;
    n->shared_load.pieces += tiles * p->read_turns;
    n->shared_store.requests += tiles * p->writes;
    n->shared_store.pieces += tiles * p->write_turns;
    n->flops += 2 * tiles * p->rows * p->columns * p->depth;
}

static void count_device_traffic(ladder_counts *n, int step, const matrix *A,
                                 const matrix *B, const matrix *C,
                                 const struct blocks *b)
{
    switch (step) {
    case 1: count_naive(n, A, C); break;
    case 2: count_coalesced(n, B, C); break;
    case 3: count_shared(n, A, B, C, b); break;
    case 4: load_by_elements(n, A, B, b), rows_in_runs(&n->store, C, 32, 1); break;
    case 5: load_by_elements(n, A, B, b), store_squares(n, C); break;
    case 6: load_by_pieces(n, A, B, b), store_halves(n, C); break;
    case 7: fetch_tiles(n, A, B, b, 8), store_halves(n, C); break;
    case 8: fetch_tiles(n, A, B, b, 8), store_warp_tiles(n, C); break;
    default: fetch_tiles(n, A, B, b, 32), store_fragments(n, C); break;
    }
}

static long sectors_of(const matrix *m)
{
    return ((long)m->rows * m->columns * m->size + 31) / 32;
}

ladder_counts ladder_count(int step, int M, int N, int K)
{
    int size = step == 9 ? 2 : 4;
    matrix A = {M, K, size}, B = {K, N, size}, C = {M, N, 4};
    ladder_counts n = {.flops = (long)M * N};
    struct blocks b = {0, 0, 0};
    if (step > 2) {
        const struct plan *p = &plans[step];
        b = (struct blocks){pieces_of(M, p->rows), pieces_of(N, p->columns),
                            pieces_of(K, p->depth)};
        count_tiles(&n, p, &b);
    } else {
        n.flops += 2l * M * N * K;
    }
    count_device_traffic(&n, step, &A, &B, &C, &b);
    n.cold = 32 * (sectors_of(&A) + sectors_of(&B) + sectors_of(&C));
    return n;
}
