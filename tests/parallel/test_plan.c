/* tests/parallel/test_plan.c: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* The bucket plan: covers everything, from the end, at the right sizes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "parallel/data/plan.h"

/* make test parameters */
static void make_params(dls_param *params, const size_t *counts, int n)
{
    size_t offset = 0;
    memset(params, 0, (size_t)n * sizeof *params);
    for (int i = 0; i < n; i++) {
        snprintf(params[i].name, sizeof params[i].name, "p%d", i);
        params[i].offset = offset;
        params[i].count = counts[i];
        offset += counts[i];
    }
}

/* test the bucket plan */
Test(parallel, buckets_fill_from_the_end)
{
    const size_t counts[] = {100, 7, 30, 30, 5, 60, 2, 9};
    dls_param params[8];
    dls_bucket b[8];
    int n;
    make_params(params, counts, 8);
    cr_assert_eq(dls_bucket_plan(params, 8, 4, 40, 240, b, &n), DLS_OK);
    // from the end: 9+2 >= 10 elements; then 60+... >= 60; 5+30+30 >= 60; 7+100
    cr_assert_eq(n, 4);
    cr_assert(b[0].param == 6 && b[0].params == 2 && b[0].first == 232 &&
              b[0].count == 11);
    cr_assert(b[1].param == 5 && b[1].params == 1 && b[1].first == 172 &&
              b[1].count == 60);
    cr_assert(b[2].param == 2 && b[2].params == 3 && b[2].first == 107 &&
              b[2].count == 65);
    cr_assert(b[3].param == 0 && b[3].params == 2 && b[3].first == 0 &&
              b[3].count == 107);
}

Test(parallel, buckets_cover_every_gradient_once)
{
    size_t counts[40], end = 0;
    dls_param params[40];
    dls_bucket b[40];
    int n;
    for (int i = 0; i < 40; i++)
        end += counts[i] = (size_t)(i * 37 % 23) + 1;
    make_params(params, counts, 40);
    for (size_t bytes = 1; bytes < 3000; bytes += 61) {
        size_t stop = end;
        cr_assert_eq(dls_bucket_plan(params, 40, 8, bytes / 3, bytes, b, &n), DLS_OK);
        for (int i = 0; i < n; i++) {
            cr_assert_eq(b[i].first + b[i].count, stop);
            cr_assert(i == 0 || i == n - 1 || b[i].count * 8 >= bytes);
            stop = b[i].first;
        }
        cr_assert_eq(stop, 0);
    }
}

Test(parallel, plans_that_differ_have_different_hashes)
{
    const size_t counts[] = {10, 20, 30};
    dls_param params[3];
    dls_bucket b[3];
    int n;
    make_params(params, counts, 3);
    dls_bucket_plan(params, 3, 4, 1, 100, b, &n);
    uint64_t hash = dls_bucket_hash(params, 3, DLS_F32, b, n, NULL);
    cr_assert_eq(hash, dls_bucket_hash(params, 3, DLS_F32, b, n, NULL));
    cr_assert_neq(hash, dls_bucket_hash(params, 3, DLS_F64, b, n, NULL));
    strcpy(params[1].name, "other");
    cr_assert_neq(hash, dls_bucket_hash(params, 3, DLS_F32, b, n, NULL));
    strcpy(params[1].name, "p1");
    dls_bucket_plan(params, 3, 4, 1, 50, b, &n);
    cr_assert_neq(hash, dls_bucket_hash(params, 3, DLS_F32, b, n, NULL));
    params[1].offset = 9;
    cr_assert_eq(dls_bucket_plan(params, 3, 4, 1, 100, b, &n), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "parameter p1 begins at element 9, before the "
                                           "end of p0");
}
