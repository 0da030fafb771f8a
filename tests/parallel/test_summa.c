/* tests/parallel/test_summa.c: from chapters/06-tensor-2d-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The three products of a linear layer on a grid, against plain loops; an MLP against one
 * device; bytes and memory against the formulas. */
#include "../comm/world.h"

#include "base/rng.h"
#include "kernels/bias.h"
#include "kernels/gelu.h"
#include "layers/param.h"
#include "parallel/tensor/laws_2d.h"
#include "parallel/tensor/mlp_1d.h"
#include "parallel/tensor/mlp_2d.h"
#include "tensor/memory.h"

/* fill blocks for a test */
typedef struct grid_case {
    int q, d, M, K, N, whole;   /* whole: small integers */
    dls_dtype dtype;
    int turned;                 /* of an MLP's second layer */
} grid_case;

/* Element (i, j) of matrix number `which`. */
static double element(const grid_case *c, int which, int i, int j)
{
    uint32_t x = dls_rng_u32(11, (uint64_t)which, (uint64_t)i << 20 | (uint64_t)j);
    return c->whole ? (double)(x % 15) - 7 : (double)x / 4294967296.0 - 0.5;
}

/* A block, or where it lies in the whole. */
typedef struct block { int row, rows, column, columns; } block;

static block block_of(const dls_grid *g, int first, int M, int N)
{
    return (block){first + dls_cut_at(M, g->q, g->row), dls_cut_size(M, g->q, g->row),
                   dls_cut_at(N, g->q, g->column), dls_cut_size(N, g->q, g->column)};
}

static void set(void *p, size_t i, dls_dtype dtype, double x)
{
    if (dtype == DLS_F64)
        ((double *)p)[i] = x;
    else
        ((float *)p)[i] = (float)x;
}

static double get(const void *p, size_t i, dls_dtype dtype)
{
    return dtype == DLS_F64 ? ((const double *)p)[i] : ((const float *)p)[i];
}

static dls_status take_block(const grid_case *c, block b, void **p)
{
    size_t n = (size_t)b.rows * (size_t)b.columns;
    return dls_flat_buffer(p, n * dls_dtype_size(c->dtype) + 1, DLS_MEM_OTHER);
}

static dls_status make_block(const grid_case *c, int which, block b, void **p)
{
    DLS_TRY(take_block(c, b, p));
    for (int i = 0; i < b.rows; i++)
        for (int j = 0; j < b.columns; j++)
            set(*p, (size_t)i * (size_t)b.columns + (size_t)j, c->dtype,
                element(c, which, b.row + i, b.column + j));
    return DLS_OK;
}

/* Expects a block to be what `want` says of each element. */
static dls_status same_block(const grid_case *c, const char *what, block b, const void *p,
                             double (*want)(const grid_case *c, int i, int j))
{
    for (int i = 0; i < b.rows; i++)
        for (int j = 0; j < b.columns; j++) {
            double is = get(p, (size_t)i * (size_t)b.columns + (size_t)j, c->dtype);
            double x = want(c, b.row + i, b.column + j);
            EXPECT(c->whole ? is == x : fabs(is - x) <= 1e-10 * fabs(x) + 1e-13,
                   "%d x %d x %d, %s[%d][%d]: %.17g instead of %.17g", c->q, c->q, c->d,
                   what, b.row + i, b.column + j, is, x);
        }
    return DLS_OK;
}

/* test the products of a grid */
static double want_y(const grid_case *c, int i, int j)
{
    double sum = 0;
    for (int k = 0; k < c->K; k++)
        sum += element(c, 0, i, k) * element(c, 1, k, j);
    return sum;
}

static double want_dx(const grid_case *c, int i, int k)
{
    double sum = 0;
    for (int j = 0; j < c->N; j++)
        sum += element(c, 2, i, j) * element(c, 1, k, j);
    return sum;
}

static double want_dw(const grid_case *c, int k, int j)
{
    double sum = element(c, 3, k, j) * c->d;    /* every layer began with it */
    for (int i = 0; i < c->M; i++)
        sum += 2 * element(c, 0, i, k) * element(c, 2, i, j);
    return sum;
}

static dls_status products(dls_ctx *ctx, const dls_grid *g, const grid_case *c)
{
    int first = dls_cut_at(c->M, c->d, g->layer);
    int M = dls_cut_size(c->M, c->d, g->layer);
    block x = block_of(g, first, M, c->K), w = block_of(g, 0, c->K, c->N);
    block y = block_of(g, first, M, c->N);
    void *X, *W, *dY, *Y, *dX, *dW, *room;
    DLS_TRY(make_block(c, 0, x, &X));
    DLS_TRY(make_block(c, 1, w, &W));
    DLS_TRY(make_block(c, 2, y, &dY));
    DLS_TRY(make_block(c, 3, w, &dW));
    DLS_TRY(take_block(c, y, &Y));
    DLS_TRY(take_block(c, x, &dX));
    DLS_TRY(dls_flat_buffer(&room, dls_summa_room(g, M, c->K, c->N, c->dtype) + 1,
                            DLS_MEM_OTHER));
    dls_summa s = {ctx, g, M, c->K, c->N, room};
    DLS_TRY(dls_summa_forward(&s, Y, X, W));
    DLS_TRY(dls_summa_input(&s, dX, dY, W));
    DLS_TRY(dls_summa_weight(&s, dW, X, dY));
    DLS_TRY(dls_summa_weight(&s, dW, X, dY));
    DLS_TRY(dls_grid_sum_depth(g, dW, (size_t)w.rows * (size_t)w.columns, (int)c->dtype,
                               ctx->stream));
    DLS_TRY(dls_ctx_sync(ctx));
    DLS_TRY(same_block(c, "Y", y, Y, want_y));
    DLS_TRY(same_block(c, "dX", x, dX, want_dx));
    return same_block(c, "dW", w, dW, want_dw);
}

static dls_status run_products(int rank, void *arg)
{
    static const int sizes[][3] = {{7, 5, 11}, {2, 9, 3}, {1, 1, 1}, {5, 1, 2},
                                   {12, 6, 4}};
    grid_case c = *(const grid_case *)arg;
    dls_comm *comm;
    dls_grid g;
    dls_ctx ctx[2];
    (void)rank;
    DLS_TRY(test_world(test_cluster(1, 9), &comm));
    DLS_TRY(dls_grid_open(&g, comm, c.q, c.d));
    DLS_TRY(dls_ctx_create(&ctx[0], 0, DLS_F64));
    DLS_TRY(dls_ctx_create(&ctx[1], 0, DLS_F32));
    for (int i = 0; i < 10; i++) {
        c.M = sizes[i / 2][0], c.K = sizes[i / 2][1], c.N = sizes[i / 2][2];
        c.whole = i % 2;
        c.dtype = ctx[c.whole].dtype;
        DLS_TRY(products(&ctx[c.whole], &g, &c));
    }
    dls_grid_close(&g);
    dls_ctx_destroy(&ctx[0]);
    dls_ctx_destroy(&ctx[1]);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(summa, products_equal_their_definition)
{
    static const int grids[][2] = {{1, 1}, {2, 1}, {3, 1}, {2, 2}, {1, 3}};
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        grid_case c = {.q = grids[i][0], .d = grids[i][1]};
        expect_ranks(c.q * c.q * c.d, run_products, &c);
    }
}

/* test an mlp on a grid */
typedef struct mlp_truth {
    dls_ctx ctx;
    int M, h, f;
    void *x, *dy, *w[2], *b[2], *dw[2], *db[2], *u, *a, *da, *y, *dx;
} mlp_truth;

static dls_status whole_matrix(const grid_case *c, int which, int M, int N, void **p)
{
    return make_block(c, which, (block){0, M, 0, N}, p);
}

static dls_status truth_forward(mlp_truth *t)
{
    DLS_TRY(dls_gemm(&t->ctx, 0, 0, t->M, t->f, t->h, 1, t->x, t->w[0], 0, t->u));
    DLS_TRY(dls_bias_add(&t->ctx, t->u, t->b[0], t->M, t->f));
    DLS_TRY(dls_gelu_forward(&t->ctx, t->a, t->u, (size_t)t->M * (size_t)t->f));
    DLS_TRY(dls_gemm(&t->ctx, 0, 0, t->M, t->h, t->f, 1, t->a, t->w[1], 0, t->y));
    return dls_bias_add(&t->ctx, t->y, t->b[1], t->M, t->h);
}

static dls_status truth_backward(mlp_truth *t)
{
    size_t inner = (size_t)t->M * (size_t)t->f;
    DLS_TRY(dls_gemm(&t->ctx, 0, 1, t->M, t->f, t->h, 1, t->dy, t->w[1], 0, t->da));
    DLS_TRY(dls_gemm(&t->ctx, 1, 0, t->f, t->h, t->M, 1, t->a, t->dy, 1, t->dw[1]));
    DLS_TRY(dls_bias_backward(&t->ctx, t->db[1], t->dy, t->M, t->h));
    DLS_TRY(dls_gelu_backward(&t->ctx, t->da, t->da, t->u, inner));
    DLS_TRY(dls_gemm(&t->ctx, 0, 1, t->M, t->h, t->f, 1, t->da, t->w[0], 0, t->dx));
    DLS_TRY(dls_gemm(&t->ctx, 1, 0, t->h, t->f, t->M, 1, t->x, t->da, 1, t->dw[0]));
    return dls_bias_backward(&t->ctx, t->db[0], t->da, t->M, t->f);
}

static dls_status zeros(const grid_case *c, int M, int N, void **p)
{
    DLS_TRY(take_block(c, (block){0, M, 0, N}, p));
    memset(*p, 0, (size_t)M * (size_t)N * dls_dtype_size(c->dtype));
    return DLS_OK;
}

static dls_status make_truth(const grid_case *c, mlp_truth *t)
{
    int M = c->M, h = c->K, f = c->N;
    *t = (mlp_truth){.M = M, .h = h, .f = f};
    DLS_TRY(dls_ctx_create(&t->ctx, 0, c->dtype));
    DLS_TRY(whole_matrix(c, 0, M, h, &t->x));
    DLS_TRY(whole_matrix(c, 1, M, h, &t->dy));
    DLS_TRY(whole_matrix(c, 2, h, f, &t->w[0]));
    DLS_TRY(whole_matrix(c, 3, 1, f, &t->b[0]));
    DLS_TRY(whole_matrix(c, 4, f, h, &t->w[1]));
    DLS_TRY(whole_matrix(c, 5, 1, h, &t->b[1]));
    DLS_TRY(zeros(c, h, f, &t->dw[0]));
    DLS_TRY(zeros(c, 1, f, &t->db[0]));
    DLS_TRY(zeros(c, f, h, &t->dw[1]));
    DLS_TRY(zeros(c, 1, h, &t->db[1]));
    DLS_TRY(zeros(c, M, f, &t->u));
    DLS_TRY(zeros(c, M, f, &t->a));
    DLS_TRY(zeros(c, M, f, &t->da));
    DLS_TRY(zeros(c, M, h, &t->y));
    DLS_TRY(zeros(c, M, h, &t->dx));
    for (int i = 0; i < 2; i++) {
        DLS_TRY(truth_forward(t));
        DLS_TRY(truth_backward(t));
    }
    return dls_ctx_sync(&t->ctx);
}

/* A block of a matrix with N columns on one device; turned: of its transpose. */
static dls_status same_part(const grid_case *c, const char *what, block b, const void *p,
                            const void *truth, int N, int turned)
{
    for (int i = 0; i < b.rows; i++)
        for (int j = 0; j < b.columns; j++) {
            double is = get(p, (size_t)i * (size_t)b.columns + (size_t)j, c->dtype);
            int row = turned ? b.column + j : b.row + i;
            int column = turned ? b.row + i : b.column + j;
            double x = get(truth, (size_t)row * (size_t)N + (size_t)column, c->dtype);
            EXPECT(fabs(is - x) <= 1e-10 * fabs(x) + 1e-13, "%d x %d x %d, %s[%d][%d]: "
                   "%.17g instead of %.17g", c->q, c->q, c->d, what, b.row + i,
                   b.column + j, is, x);
        }
    return DLS_OK;
}

/* Elements of a rank's block of matrix `which`, or of its transpose. */
static void fill(const grid_case *c, int which, block b, void *p, int turned)
{
    for (int i = 0; i < b.rows; i++)
        for (int j = 0; j < b.columns; j++)
            set(p, (size_t)i * (size_t)b.columns + (size_t)j, c->dtype,
                turned ? element(c, which, b.column + j, b.row + i)
                       : element(c, which, b.row + i, b.column + j));
}

static block bias_part(const dls_grid *g, int N)
{
    return (block){0, 1, dls_cut_at(N, g->q, g->column),
                   dls_cut_size(N, g->q, g->column)};
}

static block proj_block(const grid_case *c, const dls_grid *g)
{
    return c->turned ? block_of(g, 0, c->K, c->N) : block_of(g, 0, c->N, c->K);
}

static dls_status compare_mlp(const grid_case *c, const dls_grid *g, const dls_mlp_2d *m,
                              const mlp_truth *t)
{
    block fc = block_of(g, 0, t->h, t->f);
    DLS_TRY(same_part(c, "dW1", fc, m->fc.dweight, t->dw[0], t->f, 0));
    DLS_TRY(same_part(c, "db1", bias_part(g, t->f), m->fc.dbias, t->db[0], t->f, 0));
    DLS_TRY(same_part(c, "dW2", proj_block(c, g), m->proj.dweight, t->dw[1], t->h,
                      c->turned));
    return same_part(c, "db2", bias_part(g, t->h), m->proj.dbias, t->db[1], t->h, 0);
}

static dls_status run_mlp(dls_ctx *ctx, dls_grid *g, const grid_case *c)
{
    mlp_truth t;
    dls_mlp_2d m;
    void *x, *y, *dy, *dx;
    DLS_TRY(make_truth(c, &t));
    DLS_TRY(dls_mlp_2d_open(&m, ctx, g, c->M, t.h, t.f, c->turned));
    block rows = block_of(g, dls_cut_at(c->M, c->d, g->layer), m.M, t.h);
    fill(c, 2, block_of(g, 0, t.h, t.f), m.fc.weight, 0);
    fill(c, 3, bias_part(g, t.f), m.fc.bias, 0);
    fill(c, 4, proj_block(c, g), m.proj.weight, c->turned);
    fill(c, 5, bias_part(g, t.h), m.proj.bias, 0);
    DLS_TRY(make_block(c, 0, rows, &x));
    DLS_TRY(make_block(c, 1, rows, &dy));
    DLS_TRY(take_block(c, rows, &y));
    DLS_TRY(take_block(c, rows, &dx));
    for (int i = 0; i < 2; i++) {
        DLS_TRY(dls_mlp_2d_forward(&m, y, x));
        DLS_TRY(dls_mlp_2d_backward(&m, dx, dy, x));
    }
    DLS_TRY(dls_mlp_2d_finish(&m));
    DLS_TRY(dls_ctx_sync(ctx));
    DLS_TRY(same_part(c, "Y", rows, y, t.y, t.h, 0));
    DLS_TRY(same_part(c, "dX", rows, dx, t.dx, t.h, 0));
    DLS_TRY(compare_mlp(c, g, &m, &t));
    dls_mlp_2d_close(&m);
    dls_ctx_destroy(&t.ctx);
    return DLS_OK;
}

static dls_status run_mlps(int rank, void *arg)
{
    static const int sizes[][3] = {{7, 5, 11}, {12, 8, 32}, {3, 2, 5}};
    grid_case c = *(const grid_case *)arg;
    dls_comm *comm;
    dls_grid g;
    dls_ctx ctx;
    (void)rank;
    DLS_TRY(test_world(test_cluster(1, 9), &comm));
    DLS_TRY(dls_grid_open(&g, comm, c.q, c.d));
    DLS_TRY(dls_ctx_create(&ctx, 0, c.dtype = DLS_F64));
    for (int i = 0; i < 6; i++) {
        c.M = sizes[i / 2][0], c.K = sizes[i / 2][1], c.N = sizes[i / 2][2];
        c.turned = i % 2;
        DLS_TRY(run_mlp(&ctx, &g, &c));
    }
    dls_grid_close(&g);
    dls_ctx_destroy(&ctx);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(summa, an_mlp_equals_one_device)
{
    static const int grids[][2] = {{1, 1}, {2, 1}, {3, 1}, {2, 2}};
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        grid_case c = {.q = grids[i][0], .d = grids[i][1]};
        expect_ranks(c.q * c.q * c.d, run_mlps, &c);
    }
}

/* test an mlp in one dimension */
static dls_status compare_line(const grid_case *c, const dls_mlp_1d *m, int first,
                               const mlp_truth *t)
{
    size_t size = dls_dtype_size(c->dtype);
    block w1 = {0, t->h, first, m->f}, b1 = {0, 1, first, m->f};
    block w2 = {first, m->f, 0, t->h}, b2 = {0, 1, 0, t->h};
    DLS_TRY(same_part(c, "dW1", w1, m->grads, t->dw[0], t->f, 0));
    DLS_TRY(same_part(c, "db1", b1, m->grads + m->at[1] * size, t->db[0], t->f, 0));
    DLS_TRY(same_part(c, "dW2", w2, m->grads + m->at[2] * size, t->dw[1], t->h, 0));
    return same_part(c, "db2", b2, m->grads + m->at[3] * size, t->db[1], t->h, 0);
}

static dls_status run_line(dls_ctx *ctx, dls_comm *comm, const grid_case *c)
{
    int p = dls_comm_size(comm), first = dls_cut_at(c->N, p, dls_comm_rank(comm));
    size_t size = dls_dtype_size(c->dtype);
    block rows = {0, c->M, 0, c->K};
    mlp_truth t;
    dls_mlp_1d m;
    void *x, *y, *dy, *dx;
    DLS_TRY(make_truth(c, &t));
    DLS_TRY(dls_mlp_1d_open(&m, ctx, comm, t.M, t.h, t.f));
    fill(c, 2, (block){0, t.h, first, m.f}, m.values, 0);
    fill(c, 3, (block){0, 1, first, m.f}, m.values + m.at[1] * size, 0);
    fill(c, 4, (block){first, m.f, 0, t.h}, m.values + m.at[2] * size, 0);
    fill(c, 5, (block){0, 1, 0, t.h}, m.values + m.at[3] * size, 0);
    DLS_TRY(make_block(c, 0, rows, &x));
    DLS_TRY(make_block(c, 1, rows, &dy));
    DLS_TRY(take_block(c, rows, &y));
    DLS_TRY(take_block(c, rows, &dx));
    for (int i = 0; i < 2; i++) {
        DLS_TRY(dls_mlp_1d_forward(&m, y, x));
        DLS_TRY(dls_mlp_1d_backward(&m, dx, dy, x));
    }
    DLS_TRY(dls_ctx_sync(ctx));
    DLS_TRY(same_part(c, "Y", rows, y, t.y, t.h, 0));
    DLS_TRY(same_part(c, "dX", rows, dx, t.dx, t.h, 0));
    DLS_TRY(compare_line(c, &m, first, &t));
    dls_mlp_1d_close(&m);
    dls_ctx_destroy(&t.ctx);
    return DLS_OK;
}

static dls_status run_lines(int rank, void *arg)
{
    grid_case cases[] = {{1, 1, 7, 5, 11, 0, DLS_F64, 0}, {1, 1, 4, 8, 2, 0, DLS_F64, 0}};
    dls_comm *comm;
    dls_ctx ctx;
    (void)rank, (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(dls_ctx_create(&ctx, 0, DLS_F64));
    for (int i = 0; i < 2; i++)
        DLS_TRY(run_line(&ctx, comm, &cases[i]));
    dls_ctx_destroy(&ctx);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(summa, the_contender_equals_one_device)
{
    for (int p = 1; p <= 3; p++)
        expect_ranks(p, run_lines, NULL);
}

/* weigh an mlp on a grid */
static uint64_t sent_by(const dls_grid *g)
{
    dls_comm *groups[] = {g->in_row, g->in_column, g->in_depth};
    uint64_t sum = 0;
    for (int i = 0; i < 3; i++)
        sum += groups[i] ? dls_comm_stats(groups[i]).wire_bytes : 0;
    return sum;
}

static dls_status pass_once(dls_ctx *ctx, dls_mlp_2d *m, int h)
{
    block b = {0, dls_cut_size(m->M, m->grid->q, m->grid->row), 0,
               dls_cut_size(h, m->grid->q, m->grid->column)};
    grid_case c = {.dtype = DLS_F64};       /* room enough for every type */
    void *x, *y;
    DLS_TRY(zeros(&c, b.rows, b.columns, &x));
    DLS_TRY(zeros(&c, b.rows, b.columns, &y));
    DLS_TRY(dls_mlp_2d_forward(m, y, x));
    DLS_TRY(dls_mlp_2d_backward(m, y, x, x));
    DLS_TRY(dls_mlp_2d_finish(m));
    return dls_ctx_sync(ctx);
}

static dls_status weigh(int rank, void *arg)
{
    const grid_case *c = arg;
    int p = c->q * c->q * c->d;
    dls_comm *comm;
    dls_gpu_memory before, is;
    dls_grid g;
    dls_ctx ctx;
    dls_mlp_2d m;
    (void)rank;
    setenv("DLS_ALGORITHM", "all_reduce:ring", 1);
    DLS_TRY(test_world(test_cluster(1, 9), &comm));
    DLS_TRY(dls_grid_open(&g, comm, c->q, c->d));
    DLS_TRY(dls_ctx_create(&ctx, 0, c->dtype));
    DLS_TRY(dls_gpu_memory_stats(0, &before));
    DLS_TRY(dls_mlp_2d_open(&m, &ctx, &g, c->M, c->K, c->N, c->turned));
    DLS_TRY(dls_gpu_memory_stats(0, &is));
    memset(m.values, 0, m.elements * dls_dtype_size(c->dtype));
    DLS_TRY(pass_once(&ctx, &m, c->K));
    uint64_t mine = sent_by(&g), all[p];
    double sum = 0, narrow = (double)dls_dtype_size(c->dtype);
    DLS_TRY(dls_comm_all_gather_host(comm, &mine, sizeof mine, all));
    for (int i = 0; i < p; i++)
        sum += (double)all[i];
    dls_mlp_law law = dls_mlp_law_2d(c->M, c->K, c->N, c->q, c->d, c->turned);
    double want = p * (law.narrow * narrow + law.wide * (narrow < 4 ? 4 : narrow));
    EXPECT(fabs(sum - want) < 0.5, "%d x %d x %d: %.0f bytes sent, the law says %.1f",
           c->q, c->q, c->d, sum, want);
    double weights = (double)(is.current[DLS_MEM_PARAMETERS]
                              - before.current[DLS_MEM_PARAMETERS] - 1) / narrow;
    double kept = (double)dls_cut_size(m.M, g.q, g.row)
        * (dls_cut_size(c->K, g.q, g.column) + 2 * dls_cut_size(c->N, g.q, g.column));
    int even = c->M % (c->q * c->d) == 0 && c->K % c->q == 0 && c->N % c->q == 0;
    EXPECT(!even || (weights == law.weights && kept == law.activations),
           "%d x %d x %d: %g weights, not %g; %g kept, not %g", c->q, c->q, c->d, weights,
           law.weights, kept, law.activations);
    dls_mlp_2d_close(&m);
    dls_grid_close(&g);
    dls_ctx_destroy(&ctx);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(summa, bytes_and_memory_are_the_formulas)
{
    grid_case cases[] = {
        {2, 1, 8, 6, 24, 0, DLS_F32, 0}, {2, 1, 7, 5, 11, 0, DLS_BF16, 1},
        {3, 1, 9, 6, 12, 0, DLS_BF16, 1}, {3, 1, 10, 7, 5, 0, DLS_F64, 0},
        {2, 2, 8, 4, 16, 0, DLS_BF16, 0}, {2, 2, 9, 5, 3, 0, DLS_F32, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_ranks(cases[i].q * cases[i].q * cases[i].d, weigh, &cases[i]);
}

Test(summa, formulas_give_the_table)
{
    static const double want[][5] = {{4, 3, 3.75, 6, 1.5}, {16, 3.75, 2.8125, 4.5, 1.125},
                                     {64, 3.9375, 1.640625, 2.625, 0.65625}};
    double h = 1024, M = 1 << 30;       /* so large that weights and biases vanish */
    for (int i = 0; i < 3; i++) {
        int q = 2 << i;
        dls_mlp_law one = dls_mlp_law_1d(M, h, 4 * h, q * q);
        dls_mlp_law two = dls_mlp_law_2d(M, h, 4 * h, q, 1, 0);
        dls_mlp_law turned = dls_mlp_law_2d(M, h, 4 * h, q, 1, 1);
        dls_mlp_law none = dls_mlp_law_2d(0, h, 4 * h, q, 1, 0);
        cr_assert_eq(want[i][0], q * q);
        cr_assert_float_eq(one.narrow / (M * h), want[i][1], 1e-12);
        cr_assert_float_eq((two.narrow - none.narrow) / (M * h), want[i][2], 1e-12);
        cr_assert_float_eq((turned.narrow - none.narrow) / (M * h), want[i][4], 1e-12);
        cr_assert_float_eq((none.narrow + none.wide) / (h * h), want[i][3], 0.02);
        cr_assert_eq(two.activations * q * q, 9 * M * h);
    }
}

/* refuse a grid */
static dls_status refuse(int rank, void *arg)
{
    static const int bad[][2] = {{2, 1}, {1, 2}, {0, 6}, {1, 0}, {-1, 6}, {3, 2}};
    dls_comm *comm;
    dls_grid g;
    (void)rank, (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        EXPECT(dls_grid_open(&g, comm, bad[i][0], bad[i][1]) == DLS_ERR_INPUT
               && strstr(dls_status_message(), "expected q q d = 6 ranks"), "%d x %d: %s",
               bad[i][0], bad[i][1], dls_status_message());
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(summa, other_numbers_of_ranks_are_refused)
{
    expect_ranks(6, refuse, NULL);
}
