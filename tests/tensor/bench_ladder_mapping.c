/* tests/tensor/bench_ladder_mapping.c: from chapters/02-gemm-ladder-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Draws which elements of a block's tile of C belong to warp 0 and to its first two
 * threads, for each step of the ladder: an SVG in the file of that name. */
#include <stdio.h>
#include <string.h>

/* place an element */
struct place {
    int r, c;
};

static struct place naive(int t, int e)
{
    return (struct place){t % 32, t / 32 + e};
}

static struct place coalesced(int t, int e)  // and step 3
{
    return (struct place){t / 32, t % 32 + e};
}

static struct place column(int t, int e)
{
    return (struct place){t / 64 * 8 + e, t % 64};
}

static struct place square(int t, int e)
{
    return (struct place){t / 16 * 8 + e / 8, t % 16 * 8 + e % 8};
}

static struct place vector(int t, int e)
{
    return (struct place){t / 16 * 8 + e / 8, t % 16 * 4 + e / 4 % 2 * 64 + e % 4};
}

static struct place warp(int t, int e)
{
    int w = t / 32, lane = t % 32;
    return (struct place){w / 2 * 64 + lane / 4 + e / 16 * 8,
                          w % 2 * 64 + lane % 4 * 4 + e / 4 % 4 * 16 + e % 4};
}

static struct place tensor_core(int t, int e)
{
    int w = t / 32, lane = t % 32;
    return (struct place){w / 4 * 64 + e / 16 * 16 + lane / 4 + e / 2 % 2 * 8,
                          w % 4 * 32 + e / 4 % 4 * 8 + lane % 4 * 2 + e % 2};
}

static const struct step {
    const char *name;
    int rows, columns, threads, each;
    struct place (*place)(int t, int e);
} steps[] = {{"1 naive", 32, 8, 256, 1, naive},
             {"2 coalesced", 8, 32, 256, 1, coalesced},
             {"3 shared", 32, 32, 1024, 1, coalesced},
             {"4 column", 64, 64, 512, 8, column},
             {"5 square", 128, 128, 256, 64, square},
             {"6, 7 vector, pipeline", 128, 128, 256, 64, vector},
             {"8 warp", 128, 128, 128, 128, warp},
             {"9 tensor core", 128, 128, 256, 64, tensor_core}};

/* classify a tile */
enum { NOBODY, OTHERS, WARP, SECOND, FIRST };
static char owner[128][128];

static int classify(const struct step *s)
{
    int wrong = 0;
    memset(owner, NOBODY, sizeof owner);
    for (int t = 0; t < s->threads; t++)
        for (int e = 0; e < s->each; e++) {
            struct place p = s->place(t, e);
            wrong += owner[p.r][p.c] != NOBODY;
            owner[p.r][p.c] = t == 0 ? FIRST : t == 1 ? SECOND : t < 32 ? WARP : OTHERS;
        }
    for (int r = 0; r < s->rows; r++)
        for (int c = 0; c < s->columns; c++)
            wrong += owner[r][c] == NOBODY;
    return wrong;
}

/* draw a panel of the ladder */
static const char *const colours[] = {"", "#e4e7eb", "#8fb8de", "#5aa469", "#e07b28"};

static void rectangle(double x, double y, double w, double h, const char *fill)
{
    printf("<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" "
           "fill=\"%s\"/>\n", x, y, w, h, fill);
}

static int same(const struct step *s, int r, int c, int width, char who)
{
    for (int j = c; j < c + width; j++)
        if (r >= s->rows || owner[r][j] != who)
            return 0;
    return 1;
}

static void draw_tile(const struct step *s, double x, double y, double scale)
{
    for (int r = 0; r < s->rows; r++)
        for (int c = 0; c < s->columns; c++) {
            char who = owner[r][c];
            int width = 0, height = 0;
            while (c + width < s->columns && owner[r][c + width] == who)
                width++;
            if (who == NOBODY)
                continue;
            while (same(s, r + height, c, width, who))
                height++;
            rectangle(x + c * scale, y + r * scale, width * scale, height * scale,
                      colours[(int)who]);
            for (int i = r; i < r + height; i++)
                memset(&owner[i][c], NOBODY, (size_t)width);
        }
}

static void draw_bars(const struct step *s, double x, double y, double scale, int threads,
                      double offset, const char *fill)
{
    char row[128] = {0}, column[128] = {0};
    for (int t = 0; t < threads; t++)
        for (int e = 0; e < s->each; e++) {
            struct place p = s->place(t, e);
            row[p.r] = column[p.c] = 1;
        }
    for (int i = 0; i < 128; i++) {
        if (row[i])
            rectangle(x - offset, y + i * scale, 4, scale, fill);
        if (column[i])
            rectangle(x + i * scale, y - offset, scale, 4, fill);
    }
}

static int draw_panel(int n)
{
    const struct step *s = &steps[n];
    int most = s->rows > s->columns ? s->rows : s->columns;
    double x = 24 + n % 4 * 165, y = 44 + n / 4 * 190, scale = 128.0 / most;
    int wrong = classify(s);
    printf("<text x=\"%.0f\" y=\"%.0f\">%s</text>\n", x - 12, y - 20, s->name);
    draw_bars(s, x, y, scale, 32, 12, colours[WARP]);
    draw_bars(s, x, y, scale, 1, 7, colours[FIRST]);
    draw_tile(s, x, y, scale);
    if (wrong)
        fprintf(stderr, "%s: %d elements without exactly one owner\n", s->name, wrong);
    return wrong;
}

int main(int argc, char **argv)
{
    int wrong = 0;
    if (freopen(argc > 1 ? argv[1] : "/dev/null", "w", stdout) == NULL)
        return 1;
    printf("<svg viewBox=\"0 0 664 390\" xmlns=\"http://www.w3.org/2000/svg\">\n"
           "<title>Tiles of the ladder</title>\n<g id=\"gnuplot_canvas\" "
           "shape-rendering=\"crispEdges\" "
           "font-family=\"sans-serif\" font-size=\"12\" fill=\"#606060\">\n");
    for (int n = 0; n < (int)(sizeof steps / sizeof *steps); n++)
        wrong += draw_panel(n);
    printf("</g>\n</svg>\n");
    return wrong != 0;
}
