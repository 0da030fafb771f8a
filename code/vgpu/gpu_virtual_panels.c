/* code/vgpu/gpu_virtual_panels.c: from chapters/A-virtual-gpu-blas-panels.md. Edit the chapter, or edit here and run "make untangle". */
/* Products of f32 and bf16 in panels, one thread to a panel.
 *
 *   by columns   D = | 0 | 1 | 2 | 3 |     every panel reads all of X
 *   by rows      D = 0 / 1 / 2 / 3         every panel reads all of W
 *
 * Where the cuts lie follows from the sizes alone, never from the number of threads, and
 * no sum is divided: the result has the same bits on one thread and on sixty-four. */
#include "vgpu/panels.h"

#include <omp.h>
#include <stdlib.h>
#include <unistd.h>

/* see a product row by row */
/* Makes one of the steps 1 where a size of 1 leaves it free; 0: both are large. */
static int settle(long long *row, long long *column, int rows, int columns)
{
    if (rows == 1)
        *row = *column == 1 ? columns : 1;
    else if (columns == 1)
        *column = *row == 1 ? rows : 1;
    return (*column == 1 && *row >= columns) || (*row == 1 && *column >= rows);
}

static int see(const dls_blas_product *p, int i, dls_panel *v)
{
    const dls_blas_matrix *d = &p->d;
    int turned = d->down == 1 && (d->right >= d->rows || d->columns == 1);
    const dls_blas_matrix *x = turned ? &p->b : &p->a, *w = turned ? &p->a : &p->b;
    *v = (dls_panel){
        .rows = turned ? d->columns : d->rows, .columns = turned ? d->rows : d->columns,
        .depth = p->a.columns, .x_row = turned ? x->right : x->down,
        .x_column = turned ? x->down : x->right, .w_row = turned ? w->right : w->down,
        .w_column = turned ? w->down : w->right, .d_row = turned ? d->right : d->down,
        .factors = p->a.type, .result = d->type, .alpha = p->alpha.f,
        .beta = p->beta.f, .x = dls_blas_matrix_at(x, i), .w = dls_blas_matrix_at(w, i),
        .d = dls_blas_matrix_at(d, i)};
    if (v->rows == 1)
        v->d_row = v->columns;
    return (turned || d->right == 1) && v->d_row >= v->columns &&
           settle(&v->x_row, &v->x_column, v->rows, v->depth) &&
           settle(&v->w_row, &v->w_column, v->depth, v->columns);
}

/* cut a product */
typedef struct cut { int by_columns, width, count; } cut;

enum { UNIT = 4 << 20, NARROW_UNIT = 1 << 17, LEAST = 192, LINE = 64 };

/* Of the machine, whether or not this process may use them. */
static int cores(void)
{
    static int known;
    if (known == 0)
        known = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return known > 0 ? known : 1;
}

static int at_most(int count, double limit)
{
    return count <= limit ? count : limit < 1 ? 1 : (int)limit;
}

static cut cut_of(const dls_panel *v, int whole_columns)
{
    int narrow = dls_panel_is_narrow(v), deep = v->w_row == 1 && v->depth > v->columns;
    int by_columns = narrow || whole_columns || (v->columns >= v->rows && !deep);
    int length = by_columns ? v->columns : v->rows;
    double work = (double)v->rows * v->columns * v->depth;
    int count = at_most(cores(), work / (narrow ? NARROW_UNIT : UNIT));
    count = at_most(count, (double)length / (narrow || deep ? LINE : LEAST));
    int width = ((length + count - 1) / count + LINE - 1) / LINE * LINE;
    return (cut){by_columns, width, (length + width - 1) / width};
}

static dls_panel part_of(const dls_panel *v, cut c, int i)
{
    size_t in = dls_blas_size(v->factors), out = dls_blas_size(v->result);
    long long from = (long long)i * c.width;
    int length = c.by_columns ? v->columns : v->rows;
    int size = length - from < c.width ? (int)(length - from) : c.width;
    dls_panel p = *v;
    *(c.by_columns ? &p.columns : &p.rows) = size;
    if (c.by_columns)
        p.w = (const char *)v->w + in * (size_t)(from * v->w_column);
    else
        p.x = (const char *)v->x + in * (size_t)(from * v->x_row);
    p.d = (char *)v->d + out * (size_t)(from * (c.by_columns ? 1 : v->d_row));
    return p;
}

/* follow a panel by the epilogue */
enum { BIAS = 4, BGRAD = 16, AUX = 128,
       FUSED = BIAS | BGRAD | 32 | 64 | AUX }; // bias, GELU and its derivative

static int can_follow(const dls_blas_product *p)
{
    unsigned e = p->epilogue;
    int plain = p->bias.type != CUDA_R_16F && p->aux.type != CUDA_R_16F;
    return e == 0 || ((e & ~(unsigned)FUSED) == 0 && plain && p->d.down == 1 &&
                      !(p->d.type == CUDA_R_16BF && p->beta.f != 0));
}

static void *element_at(const dls_blas_matrix *x, int batch, long long at)
{
    char *start = dls_blas_matrix_at(x, batch);
    return start ? start + at * (long long)dls_blas_size(x->type) : NULL;
}

/* Multiplies the panel whose first element is (row, column), and finishes it. */
static int multiply_and_finish(const dls_blas_product *p, int batch, dls_panel v,
                               int row, int column, float *space)
{
    dls_panel_end end = {
        .what = p->epilogue, .rows = v.rows, .columns = v.columns, .sum = v.d,
        .sum_row = v.d_row, .aux_row = p->aux.right, .d_row = v.d_row,
        .bias_type = p->bias.type, .aux_type = p->aux.type, .d_type = v.result,
        .d = v.d, .aux = element_at(&p->aux, batch, row * p->aux.right + column)};
    double total[end.what & BGRAD ? v.columns : 1];
    /* point to the bias and the sums */
    if (end.what & BIAS)
        end.bias = element_at(&p->bias, batch, column);
    if (v.result != CUDA_R_32F) {
        v.d = end.sum = space;
        v.d_row = end.sum_row = v.columns;
        v.result = CUDA_R_32F;
    }
    end.total = end.what & BGRAD ? total : NULL;
    int code = dls_panel_is_narrow(&v) ? dls_panel_multiply_narrow(&v)
                                       : dls_panel_multiply(&v);
    if (code != 1)
        return code;
    dls_panel_finish(&end);
    for (int c = 0; end.total && c < v.columns; c++)
        dls_blas_store(p->bias.type, dls_blas_matrix_at(&p->bias, batch), column + c,
                       total[c]);
    return 1;
}

/* multiply the panels */
static int multiply_part(const dls_blas_product *p, int batch, const dls_panel *v, cut c,
                         int i)
{
    dls_panel part = part_of(v, c, i);
    if (p == NULL || !p->epilogue)
        return dls_panel_is_narrow(&part) ? dls_panel_multiply_narrow(&part)
                                          : dls_panel_multiply(&part);
    float *space = NULL;
    if (part.result != CUDA_R_32F) {
        space = malloc(sizeof *space * (size_t)part.rows * (size_t)part.columns);
        if (space == NULL)
            return -1;
    }
    int from = i * c.width;
    int code = multiply_and_finish(p, batch, part, c.by_columns ? 0 : from,
                                   c.by_columns ? from : 0, space);
    free(space);
    return code;
}

/* p may be NULL: nothing follows. */
static int multiply_parts(const dls_blas_product *p, int batch, const dls_panel *v)
{
    cut c = cut_of(v, p != NULL && (p->epilogue & BGRAD) != 0);
    int worst = 1;
    #pragma omp parallel for schedule(dynamic) reduction(min : worst) if(c.count > 1)
    for (int i = 0; i < c.count; i++) {
        omp_set_num_threads(1); // for oneDNN: this thread has its part
        int code = multiply_part(p, batch, v, c, i);
        worst = code < worst ? code : worst;
    }
    return worst;
}

int dls_panels_multiply(const dls_panel *p) { return multiply_parts(NULL, 0, p); }

/* multiply in f32 where bf16 is missing */
/* A dense f32 copy of a bf16 matrix (rows, columns) with either step 1; NULL. */
static float *widened(const void *from, long long row, long long column, int rows,
                      int columns)
{
    int lines = column == 1 ? rows : columns, length = column == 1 ? columns : rows;
    long long step = column == 1 ? row : column;
    float *to = malloc(sizeof *to * (size_t)lines * (size_t)length);
    for (int i = 0; to && i < lines; i++)
        dls_panel_widen(to + (size_t)i * (size_t)length,
                        (const uint16_t *)from + i * step, (size_t)length);
    return to;
}

static int multiply_widened(const dls_blas_product *p, int batch, dls_panel v)
{
    float *x = widened(v.x, v.x_row, v.x_column, v.rows, v.depth);
    float *w = widened(v.w, v.w_row, v.w_column, v.depth, v.columns);
    int x_by_row = v.x_column == 1, w_by_row = v.w_column == 1;
    v.x_row = x_by_row ? v.depth : 1, v.x_column = x_by_row ? 1 : v.rows;
    v.w_row = w_by_row ? v.columns : 1, v.w_column = w_by_row ? 1 : v.depth;
    v.x = x, v.w = w, v.factors = CUDA_R_32F;
    int code = x && w ? multiply_parts(p, batch, &v) : -1;
    free(x);
    free(w);
    return code;
}

/* multiply by panels */
int dls_blas_multiply_panels(const dls_blas_product *p, int i)
{
    cudaDataType in = p->a.type, out = p->d.type;
    dls_panel v;
    int types = (in == CUDA_R_32F && out == CUDA_R_32F) ||
                (in == CUDA_R_16BF && (out == CUDA_R_16BF || out == CUDA_R_32F));
    if (p->work != DLS_BLAS_F32 || !types || p->tf32 || p->narrow != in ||
        !can_follow(p) || !see(p, i, &v))
        return 0;
    if (p->beta.f != 0 && dls_blas_matrix_at(&p->c, i) != v.d)
        return 0;
    int code = multiply_parts(p, i, &v);
    return code == 0 && in == CUDA_R_16BF ? multiply_widened(p, i, v) : code;
}
