/* tests/parallel/test_tensor_products.c: from chapters/06-tensor-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Column- and row-parallel products: the chapter's numbers, then any numbers. */
#include "tensor_rig.h"

#include "base/rng.h"

/* give the example its numbers */
static const float W[4][4] = {{1, 2, 5, 6}, {3, 4, 7, 8}, {2, 0, 3, 1}, {-1, 4, 8, 2}};
static const float V[4][2] = {{1, 0}, {0, 1}, {1, 1}, {-1, 0}};

static float example(const dls_param *p, size_t i)
{
    return p->name[0] == 'W' ? W[i % 4][i / 4] : V[i % 4][i / 4];
}

static dls_status expect_row(const char *what, const float *got, const float *want, int n)
{
    for (int i = 0; i < n; i++)
        EXPECT(got[i] == want[i], "%s[%d] is %g instead of %g", what, i, got[i], want[i]);
    return DLS_OK;
}

static const dls_section four = {4, 1};

static dls_layer *by_columns(dls_build *b)
{
    return dls_column_linear(b, "W", 4, &four, 1, 0, 1);
}

/* test the example */
/* [1, 2, 0, 1] W = [6, 14, 27, 24], in two halves. */
static dls_status split_result(int rank, void *arg)
{
    static const float x[] = {1, 2, 0, 1}, y[2][2] = {{6, 14}, {27, 24}};
    static const float dx[] = {14, 22, 6, 13}, dw[] = {1, 2, 0, 1, 1, 2, 0, 1};
    tensor_rig rig;
    dls_comm *comm;
    (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(rig_begin(&rig, comm));
    DLS_TRY(rig_prepare(&rig, by_columns(&rig.build), 1, example));
    memcpy(rig.x, x, sizeof x);
    rig.dy[0] = rig.dy[1] = 1;
    DLS_TRY(rig_run(&rig));
    DLS_TRY(expect_row("y", rig.y, y[rank], 2));
    DLS_TRY(expect_row("dx", rig.dx, dx, 4));
    DLS_TRY(expect_row("dW", rig.params.items[0].grad, dw, 8));
    rig_end(&rig);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(tensor_parallel, the_example_by_columns) { expect_ranks(2, split_result, NULL); }

typedef struct example_case {
    const char *way;
    int columns, operations;    // forward and backward
    float y[4], dx[4];
} example_case;

static dls_layer *build_example(dls_build *b, const char *way)
{
    dls_layer *list[2];
    if (strcmp(way, "gathered") == 0) {
        list[0] = by_columns(b);
        list[1] = dls_gather_columns(b, 4);
    } else if (strcmp(way, "rows") == 0) {
        list[0] = dls_split_columns(b, 4);
        list[1] = dls_row_linear(b, "W", four, 4, 0, 1);
    } else {
        list[0] = by_columns(b);
        list[1] = dls_row_linear(b, "V", four, 2, 0, 1);
    }
    return dls_sequence(b, list, 2);
}

static dls_status run_example(int rank, void *arg)
{
    const example_case *c = arg;
    static const float x[] = {1, 2, 0, 1}, ones[] = {1, 1, 1, 1};
    tensor_rig rig;
    dls_comm *comm;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(rig_begin(&rig, comm));
    DLS_TRY(rig_prepare(&rig, build_example(&rig.build, c->way), 1, example));
    memcpy(rig.x, x, sizeof x);
    memcpy(rig.dy, ones, sizeof ones);
    DLS_TRY(rig_run(&rig));
    DLS_TRY(expect_row("y", rig.y, c->y, c->columns));
    DLS_TRY(expect_row("dx", rig.dx, c->dx, 4));
    EXPECT((int)dls_comm_stats(comm).operations == c->operations, "%d operations",
           (int)dls_comm_stats(comm).operations);
    rig_end(&rig);
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(tensor_parallel, the_example_in_three_ways)
{
    example_case all[] = {{"gathered", 4, 2, {6, 14, 27, 24}, {14, 22, 6, 13}},
                          {"rows", 4, 2, {6, 14, 27, 24}, {14, 22, 6, 13}},
                          {"pair", 2, 2, {9, 41}, {7, 13, 7, 17}}};
    for (int t = 2; t <= 4; t++)
        for (int i = 0; i < 3; i++)
            expect_ranks(t, run_example, &all[i]);
}

/* test any products */
static float small(uint64_t stream, size_t i)
{
    return (float)(dls_rng_u32(3, stream, i) % 7) - 3;
}

static float any_value(const dls_param *p, size_t i)
{
    return small((uint64_t)p->name[0] + (p->ndim == 1 ? 1000 : 0), i);
}

enum { ROWS = 3, IN = 4, HIDDEN = 5, OUT = 6 };

/* 0: columns, gathered; 1: split, rows; 2: columns then rows. */
static dls_layer *build_any(dls_build *b, int way, int whole)
{
    const dls_section hidden = {HIDDEN, 1};
    dls_layer *list[2];
    int n = 0;
    if (way == 1 && !whole)
        list[n++] = dls_split_columns(b, HIDDEN);
    if (way != 1)
        list[n++] = dls_column_linear(b, "W", IN, &hidden, 1, 1, 1);
    if (way == 0 && !whole)
        list[n++] = dls_gather_columns(b, HIDDEN);
    if (way != 0)
        list[n++] = dls_row_linear(b, "V", hidden, OUT, 1, 1);
    return dls_sequence(b, list, n);
}

static dls_status compare_rigs(const tensor_rig *cut, const tensor_rig *whole)
{
    DLS_TRY(expect_row("y", cut->y, whole->y, ROWS * cut->layer->out));
    DLS_TRY(expect_row("dx", cut->dx, whole->dx, ROWS * cut->layer->in));
    for (int k = 0; k < cut->params.n; k++) {
        const dls_param *p = &cut->params.items[k];
        const float *got = p->grad, *want = whole->params.items[k].grad;
        for (size_t i = 0; i < p->count; i++) {
            float right = want[dls_param_global(p, i, NULL, NULL)];
            EXPECT(got[i] == right, "%s[%zu]: %g instead of %g", p->name, i, got[i],
                   right);
        }
    }
    return DLS_OK;
}

static dls_status run_any(int rank, void *arg)
{
    tensor_rig rig[2];
    dls_comm *comm;
    (void)rank;
    DLS_TRY(test_world(NULL, &comm));
    for (int whole = 0; whole < 2; whole++) {
        tensor_rig *r = &rig[whole];
        DLS_TRY(rig_begin(r, whole ? NULL : comm));
        DLS_TRY(rig_prepare(r, build_any(&r->build, *(int *)arg, whole), ROWS,
                            any_value));
        for (int i = 0; i < RIG_ROWS * RIG_COLUMNS; i++) {
            r->x[i] = small(1, (size_t)i);
            r->dy[i] = small(2, (size_t)i);
        }
        DLS_TRY(rig_run(r));
    }
    DLS_TRY(compare_rigs(&rig[0], &rig[1]));
    rig_end(&rig[0]);
    rig_end(&rig[1]);
    dls_comm_destroy(comm);
    return DLS_OK;
}

static void prove(int way)
{
    for (int t = 1; t <= 5; t++)
        expect_ranks(t, run_any, &way);
}

Test(tensor_parallel, any_columns) { prove(0); }
Test(tensor_parallel, any_rows) { prove(1); }
Test(tensor_parallel, any_pair) { prove(2); }
