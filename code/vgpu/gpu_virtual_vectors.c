/* code/vgpu/gpu_virtual_vectors.c: from chapters/A-virtual-gpu-blas-vectors.md. Edit the chapter, or edit here and run "make untangle". */
/* Levels 1 and 2 of BLAS, and what is left of level 3: each is one operation that runs on
 * the host, with elements read and written as doubles.
 *
 * A result (a dot product, a norm, an index) goes to the host or the device, as the
 * pointer mode says. To the host the call has to wait for it, so it blocks. */
#include "vgpu/blas.h"

#include <math.h>
#include <stdlib.h>

#include "vgpu/observer.h"

/* describe a task */
typedef struct vector {
    void *p;
    int n;
    long long inc;
} vector;

typedef struct task {
    void (*run)(struct task *t);
    cudaDataType type;
    vector x, y;
    dls_blas_matrix a, b, c;
    double alpha, beta;
    const void *device_alpha, *device_beta; // NULL: the values above
    double value;                           // the result, of `type`, or an index
    void *result;
    int is_index;
    int upper, unit, left;                  // of a triangle
} task;

static vector of(const void *p, int n, long long inc)
{
    return (vector){(void *)(uintptr_t)p, n, inc};
}

static long long place(const vector *v, int i)
{
    return (v->inc < 0 ? (1 - v->n) * v->inc : 0) + i * v->inc;
}

static double get(const task *t, const vector *v, int i)
{
    return dls_blas_load(t->type, v->p, place(v, i));
}

static void put(const task *t, const vector *v, int i, double value)
{
    dls_blas_store(t->type, v->p, place(v, i), value);
}


static double at(const dls_blas_matrix *x, int i, int j)
{
    return dls_blas_load(x->type, x->base, i * x->down + j * x->right);
}

static void set(const dls_blas_matrix *x, int i, int j, double value)
{
    dls_blas_store(x->type, (void *)(uintptr_t)x->base, i * x->down + j * x->right,
                   value);
}

/* enqueue a task */
static int task_run(void *arg, double start, double *finish)
{
    (void)start;
    (void)finish;
    task *t = arg;
    if (t->device_alpha)
        t->alpha = dls_blas_load(t->type, t->device_alpha, 0);
    if (t->device_beta)
        t->beta = dls_blas_load(t->type, t->device_beta, 0);
    t->run(t);
    if (t->result && t->is_index)
        *(int *)t->result = (int)t->value;
    else if (t->result)
        dls_blas_store(t->type, t->result, 0, t->value);
    return 0;
}

static cublasStatus_t enqueue(cublasHandle_t h, const task *t, const char *name,
                              double flops, double elements)
{
    task *copy = malloc(sizeof *copy);
    if (copy == NULL)
        return CUBLAS_STATUS_ALLOC_FAILED;
    *copy = *t;
    dls_gpu_op op = {.name = name, .kind = DLS_GPU_COMPUTE, .flops = flops,
                     .work = t->result ? DLS_WORK_REDUCTION : DLS_WORK_ELEMENTWISE,
                     .bytes = elements * (double)dls_blas_size(t->type),
                     .run = task_run, .destroy = free};
    cublasStatus_t status = dls_blas_launch(h->device, h->stream, &op, copy);
    if (status == CUBLAS_STATUS_SUCCESS && t->result &&
        h->pointer_mode == CUBLAS_POINTER_MODE_HOST &&
        cudaStreamSynchronize(h->stream) != cudaSuccess)
        status = CUBLAS_STATUS_EXECUTION_FAILED;
    return status;
}

static int take_scalar(cublasHandle_t h, const task *t, const void *p, double *value,
                       const void **device)
{
    if (p == NULL)
        return 0;
    if (h->pointer_mode == CUBLAS_POINTER_MODE_HOST)
        *value = dls_blas_load(t->type, p, 0);
    else
        *device = p;
    return 1;
}

/* What the observer learns of a vector. */
static void tell(const task *t, int write, const vector *v)
{
    size_t size = dls_blas_size(t->type);
    long long step = llabs(v->inc);
    dls_vgpu_touched(write, v->p, size, size * (size_t)step, (size_t)v->n);
}

/* combine vectors */
static void run_axpy(task *t)
{
    tell(t, 0, &t->x);
    tell(t, 1, &t->y);
    for (int i = 0; i < t->x.n; i++)
        put(t, &t->y, i, t->alpha * get(t, &t->x, i) + get(t, &t->y, i));
}

static void run_scal(task *t)
{
    tell(t, 1, &t->x);
    for (int i = 0; i < t->x.n; i++)
        put(t, &t->x, i, t->alpha * get(t, &t->x, i));
}

static void run_copy(task *t)
{
    tell(t, 0, &t->x);
    tell(t, 1, &t->y);
    for (int i = 0; i < t->x.n; i++)
        put(t, &t->y, i, get(t, &t->x, i));
}


static cublasStatus_t combine(cublasHandle_t h, task t, const char *name, int needs_alpha,
                              const void *alpha, double flops, double elements)
{
    if (h == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (needs_alpha && !take_scalar(h, &t, alpha, &t.alpha, &t.device_alpha))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (t.x.n <= 0)
        return CUBLAS_STATUS_SUCCESS;
    return enqueue(h, &t, name, flops * t.x.n, elements * t.x.n);
}

#define COMBINE(letter, T, TYPE)                                                        \
    cublasStatus_t cublas##letter##axpy(cublasHandle_t h, int n, const T *alpha,        \
                                        const T *x, int incx, T *y, int incy)           \
    {                                                                                   \
        task t = {.run = run_axpy, .type = TYPE, .x = of(x, n, incx),                   \
                  .y = of(y, n, incy)};                                                 \
        return combine(h, t, "axpy", 1, alpha, 2, 3);                                   \
    }                                                                                   \
    cublasStatus_t cublas##letter##scal(cublasHandle_t h, int n, const T *alpha, T *x,  \
                                        int incx)                                       \
    {                                                                                   \
        task t = {.run = run_scal, .type = TYPE, .x = of(x, incx > 0 ? n : 0, incx)};   \
        return combine(h, t, "scal", 1, alpha, 1, 2);                                   \
    }                                                                                   \
    cublasStatus_t cublas##letter##copy(cublasHandle_t h, int n, const T *x, int incx,  \
                                        T *y, int incy)                                 \
    {                                                                                   \
        task t = {.run = run_copy, .type = TYPE, .x = of(x, n, incx),                   \
                  .y = of(y, n, incy)};                                                 \
        return combine(h, t, "copy", 0, NULL, 0, 2);                                    \
    }

COMBINE(S, float, CUDA_R_32F)
COMBINE(D, double, CUDA_R_64F)

/* reduce vectors */
static void run_dot(task *t)
{
    tell(t, 0, &t->x);
    tell(t, 0, &t->y);
    for (int i = 0; i < t->x.n; i++)
        t->value += get(t, &t->x, i) * get(t, &t->y, i);
}

static void run_asum(task *t)
{
    tell(t, 0, &t->x);
    for (int i = 0; i < t->x.n; i++)
        t->value += fabs(get(t, &t->x, i));
}

static void run_nrm2(task *t)
{
    double scale = 0, sum = 1;
    tell(t, 0, &t->x);
    for (int i = 0; i < t->x.n; i++) {
        double x = fabs(get(t, &t->x, i));
        if (x > scale) {
            sum = 1 + sum * (scale / x) * (scale / x);
            scale = x;
        } else if (x != 0) {
            sum += (x / scale) * (x / scale); // NaN comes this way, too
        }
    }
    t->value = isnan(sum) ? sum : scale * sqrt(sum);
}

static void find(task *t, int largest)
{
    double best = 0;
    tell(t, 0, &t->x);
    for (int i = 0; i < t->x.n; i++) {
        double x = fabs(get(t, &t->x, i));
        if (i == 0 || (largest ? x > best : x < best)) {
            best = x;
            t->value = i + 1;
        }
    }
}

static void run_amax(task *t) { find(t, 1); }
static void run_amin(task *t) { find(t, 0); }
static cublasStatus_t reduce(cublasHandle_t h, task t, const char *name, double flops)
{
    if (h == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (t.result == NULL)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (t.x.n < 0)
        t.x.n = 0;
    return enqueue(h, &t, name, flops * t.x.n, (t.y.p ? 2.0 : 1.0) * t.x.n);
}

#define REDUCE(letter, lower, T, TYPE)                                                  \
    cublasStatus_t cublas##letter##dot(cublasHandle_t h, int n, const T *x, int incx,   \
                                       const T *y, int incy, T *result)                 \
    {                                                                                   \
        task t = {.run = run_dot, .type = TYPE, .x = of(x, n, incx),                    \
                  .y = of(y, n, incy), .result = result};                               \
        return reduce(h, t, "dot", 2);                                                  \
    }                                                                                   \
    cublasStatus_t cublas##letter##nrm2(cublasHandle_t h, int n, const T *x, int incx,  \
                                        T *result)                                      \
    {                                                                                   \
        task t = {.run = run_nrm2, .type = TYPE, .x = of(x, incx > 0 ? n : 0, incx),    \
                  .result = result};                                                    \
        return reduce(h, t, "nrm2", 2);                                                 \
    }                                                                                   \
    cublasStatus_t cublas##letter##asum(cublasHandle_t h, int n, const T *x, int incx,  \
                                        T *result)                                      \
    {                                                                                   \
        task t = {.run = run_asum, .type = TYPE, .x = of(x, incx > 0 ? n : 0, incx),    \
                  .result = result};                                                    \
        return reduce(h, t, "asum", 1);                                                 \
    }
#define INDEX(name, T, TYPE, function)                                                  \
    cublasStatus_t cublas##name(cublasHandle_t h, int n, const T *x, int incx,          \
                                int *result)                                            \
    {                                                                                   \
        task t = {.run = function, .type = TYPE, .x = of(x, incx > 0 ? n : 0, incx),    \
                  .result = result, .is_index = 1};                                     \
        return reduce(h, t, #name, 1);                                                  \
    }

REDUCE(S, s, float, CUDA_R_32F)
REDUCE(D, d, double, CUDA_R_64F)
INDEX(Isamax, float, CUDA_R_32F, run_amax)
INDEX(Idamax, double, CUDA_R_64F, run_amax)
INDEX(Isamin, float, CUDA_R_32F, run_amin)
INDEX(Idamin, double, CUDA_R_64F, run_amin)

/* multiply matrices with vectors */
static void run_gemv(task *t)
{
    if (t->alpha != 0)
        dls_blas_tell(0, &t->a, 0);
    tell(t, 0, &t->x);
    tell(t, 1, &t->y);
    for (int i = 0; i < t->y.n; i++) {
        double sum = 0;
        for (int j = 0; j < t->x.n && t->alpha != 0; j++)
            sum += at(&t->a, i, j) * get(t, &t->x, j);
        put(t, &t->y, i, t->alpha * sum + (t->beta == 0 ? 0
                                           : t->beta * get(t, &t->y, i)));
    }
}

static void run_ger(task *t)
{
    tell(t, 0, &t->x);
    tell(t, 0, &t->y);
    dls_blas_tell(1, &t->a, 0);
    for (int j = 0; j < t->y.n; j++)
        for (int i = 0; i < t->x.n; i++)
            set(&t->a, i, j, at(&t->a, i, j) +
                             t->alpha * get(t, &t->x, i) * get(t, &t->y, j));
}

static int least(int rows) { return rows > 1 ? rows : 1; }

static cublasStatus_t with_matrix(cublasHandle_t h, task t, const char *name, int m,
                                  int n, int lda, const void *alpha, const void *beta)
{
    if (h == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (m < 0 || n < 0 || lda < least(m) || t.x.inc == 0 || t.y.inc == 0 ||
        !take_scalar(h, &t, alpha, &t.alpha, &t.device_alpha) ||
        (t.run == run_gemv && !take_scalar(h, &t, beta, &t.beta, &t.device_beta)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (m == 0 || n == 0)
        return CUBLAS_STATUS_SUCCESS;
    return enqueue(h, &t, name, 2.0 * m * n, (double)m * n * (t.run == run_ger ? 2 : 1) +
                   m + n);
}

#define WITH_MATRIX(letter, T, TYPE)                                                    \
    cublasStatus_t cublas##letter##gemv(cublasHandle_t h, cublasOperation_t trans,      \
        int m, int n, const T *alpha, const T *A, int lda, const T *x, int incx,        \
        const T *beta, T *y, int incy)                                                  \
    {                                                                                   \
        int turned = trans != CUBLAS_OP_N, rows = turned ? n : m;                       \
        int columns = turned ? m : n;                                                   \
        task t = {.run = run_gemv, .type = TYPE, .x = of(x, columns, incx),             \
                  .y = of(y, rows, incy)};                                              \
        t.a = dls_blas_columns(TYPE, turned, rows, columns, A, lda);                    \
        if (h && (unsigned)trans > CUBLAS_OP_C)                                         \
            return CUBLAS_STATUS_INVALID_VALUE;                                         \
        return with_matrix(h, t, "gemv", m, n, lda, alpha, beta);                       \
    }                                                                                   \
    cublasStatus_t cublas##letter##ger(cublasHandle_t h, int m, int n, const T *alpha,  \
        const T *x, int incx, const T *y, int incy, T *A, int lda)                      \
    {                                                                                   \
        task t = {.run = run_ger, .type = TYPE, .x = of(x, m, incx),                    \
                  .y = of(y, n, incy)};                                                 \
        t.a = dls_blas_columns(TYPE, 0, m, n, A, lda);                                  \
        return with_matrix(h, t, "ger", m, n, lda, alpha, NULL);                        \
    }

WITH_MATRIX(S, float, CUDA_R_32F)
WITH_MATRIX(D, double, CUDA_R_64F)

/* solve with a triangle */
static void solve_column(const task *t, int j)
{
    int n = t->b.rows;
    for (int step = 0; step < n; step++) {
        int i = t->upper ? n - 1 - step : step;
        double sum = t->alpha * at(&t->b, i, j);
        for (int k = t->upper ? i + 1 : 0; k < (t->upper ? n : i); k++)
            sum -= at(&t->a, i, k) * at(&t->b, k, j);
        set(&t->b, i, j, t->unit ? sum : sum / at(&t->a, i, i));
    }
}

static void run_trsm(task *t)
{
    dls_blas_tell(1, &t->b, 0);
    for (int j = 0; j < t->b.columns && t->alpha != 0; j++)
        solve_column(t, j);
    for (int j = 0; j < t->b.columns && t->alpha == 0; j++)
        for (int i = 0; i < t->b.rows; i++)
            set(&t->b, i, j, 0);
}

static cublasStatus_t solve(cublasHandle_t h, task t, cublasSideMode_t side,
                            cublasFillMode_t uplo, cublasOperation_t trans,
                            cublasDiagType_t diag, int m, int n, const void *alpha,
                            int lda, int ldb)
{
    int is_left = side == CUBLAS_SIDE_LEFT, order = is_left ? m : n;
    if (h == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if ((unsigned)side > 1 || (unsigned)uplo > 1 || (unsigned)trans > CUBLAS_OP_C ||
        (unsigned)diag > 1 || m < 0 || n < 0 || lda < least(order) || ldb < least(m) ||
        !take_scalar(h, &t, alpha, &t.alpha, &t.device_alpha))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (m == 0 || n == 0)
        return CUBLAS_STATUS_SUCCESS;
    int turned = (trans != CUBLAS_OP_N) != !is_left;
    t.a = dls_blas_columns(t.type, turned, order, order, t.a.base, lda);
    t.b = dls_blas_columns(t.type, !is_left, is_left ? m : n, is_left ? n : m, t.b.base,
                           ldb);
    t.upper = (uplo == CUBLAS_FILL_MODE_UPPER) != turned;
    t.unit = diag == CUBLAS_DIAG_UNIT;
    return enqueue(h, &t, "trsm", (double)order * m * n,
                   0.5 * order * order + 2.0 * m * n);
}

#define SOLVE(letter, T, TYPE)                                                          \
    cublasStatus_t cublas##letter##trsm(cublasHandle_t h, cublasSideMode_t side,        \
        cublasFillMode_t uplo, cublasOperation_t trans, cublasDiagType_t diag, int m,   \
        int n, const T *alpha, const T *A, int lda, T *B, int ldb)                      \
    {                                                                                   \
        task t = {.run = run_trsm, .type = TYPE, .a.base = A, .b.base = B};             \
        return solve(h, t, side, uplo, trans, diag, m, n, alpha, lda, ldb);             \
    }

SOLVE(S, float, CUDA_R_32F)
SOLVE(D, double, CUDA_R_64F)

/* add and scale matrices */
static void run_geam(task *t)
{
    if (t->alpha != 0)
        dls_blas_tell(0, &t->a, 0);
    if (t->beta != 0)
        dls_blas_tell(0, &t->b, 0);
    dls_blas_tell(1, &t->c, 0);
    for (int j = 0; j < t->c.columns; j++)
        for (int i = 0; i < t->c.rows; i++) {
            double a = t->alpha == 0 ? 0 : t->alpha * at(&t->a, i, j);
            double b = t->beta == 0 ? 0 : t->beta * at(&t->b, i, j);
            set(&t->c, i, j, a + b);
        }
}

/* In place is fine when nothing moves. */
static int overlaps_wrongly(const void *x, const void *C, cublasOperation_t op, int ld,
                            int ldc)
{
    return x == C && (op != CUBLAS_OP_N || ld != ldc);
}


static cublasStatus_t add(cublasHandle_t h, task t, cublasOperation_t ta,
                          cublasOperation_t tb, int m, int n, const void *alpha, int lda,
                          const void *beta, int ldb, int ldc)
{
    int na = ta == CUBLAS_OP_N, nb = tb == CUBLAS_OP_N;
    if (h == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if ((unsigned)ta > CUBLAS_OP_C || (unsigned)tb > CUBLAS_OP_C || m < 0 || n < 0 ||
        lda < least(na ? m : n) || ldb < least(nb ? m : n) || ldc < least(m) ||
        !take_scalar(h, &t, alpha, &t.alpha, &t.device_alpha) ||
        !take_scalar(h, &t, beta, &t.beta, &t.device_beta) ||
        overlaps_wrongly(t.a.base, t.c.base, ta, lda, ldc) ||
        overlaps_wrongly(t.b.base, t.c.base, tb, ldb, ldc))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (m == 0 || n == 0)
        return CUBLAS_STATUS_SUCCESS;
    t.a = dls_blas_columns(t.type, !na, m, n, t.a.base, lda);
    t.b = dls_blas_columns(t.type, !nb, m, n, t.b.base, ldb);
    t.c = dls_blas_columns(t.type, 0, m, n, t.c.base, ldc);
    return enqueue(h, &t, "geam", 3.0 * m * n, 3.0 * m * n);
}

static void run_dgmm(task *t)
{
    dls_blas_tell(0, &t->a, 0);
    tell(t, 0, &t->x);
    dls_blas_tell(1, &t->c, 0);
    for (int j = 0; j < t->c.columns; j++)
        for (int i = 0; i < t->c.rows; i++)
            set(&t->c, i, j, at(&t->a, i, j) * get(t, &t->x, t->left ? i : j));
}

static cublasStatus_t scale(cublasHandle_t h, task t, cublasSideMode_t side, int m, int n,
                            int lda, int ldc)
{
    if (h == NULL)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if ((unsigned)side > 1 || m < 0 || n < 0 || lda < least(m) || ldc < least(m))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (m == 0 || n == 0)
        return CUBLAS_STATUS_SUCCESS;
    t.left = side == CUBLAS_SIDE_LEFT;
    t.x.n = t.left ? m : n;
    t.a = dls_blas_columns(t.type, 0, m, n, t.a.base, lda);
    t.c = dls_blas_columns(t.type, 0, m, n, t.c.base, ldc);
    return enqueue(h, &t, "dgmm", (double)m * n, 2.0 * m * n + t.x.n);
}

#define ADD_AND_SCALE(letter, T, TYPE)                                                  \
    cublasStatus_t cublas##letter##geam(cublasHandle_t h, cublasOperation_t ta,         \
        cublasOperation_t tb, int m, int n, const T *alpha, const T *A, int lda,        \
        const T *beta, const T *B, int ldb, T *C, int ldc)                              \
    {                                                                                   \
        task t = {.run = run_geam, .type = TYPE, .a.base = A, .b.base = B, .c.base = C}; \
        return add(h, t, ta, tb, m, n, alpha, lda, beta, ldb, ldc);                     \
    }                                                                                   \
    cublasStatus_t cublas##letter##dgmm(cublasHandle_t h, cublasSideMode_t side, int m, \
        int n, const T *A, int lda, const T *x, int incx, T *C, int ldc)                \
    {                                                                                   \
        task t = {.run = run_dgmm, .type = TYPE, .x = of(x, 0, incx), .a.base = A,      \
                  .c.base = C};                                                         \
        return scale(h, t, side, m, n, lda, ldc);                                       \
    }

ADD_AND_SCALE(S, float, CUDA_R_32F)
ADD_AND_SCALE(D, double, CUDA_R_64F)
