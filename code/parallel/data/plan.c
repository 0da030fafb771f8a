/* code/parallel/data/plan.c: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* Cutting the flat gradient buffer into buckets. */
#include "parallel/data/plan.h"

#include <string.h>

#include "base/hash.h"

/* check the order of parameters */
static dls_status check_order(const dls_param *params, int n)
{
    if (n < 1)
        return DLS_FAIL(DLS_ERR_INPUT,
                        "a model without parameters has no gradients to sum");
    for (int i = 1; i < n; i++)
        if (params[i].offset < params[i - 1].offset + params[i - 1].count)
            return DLS_FAIL(DLS_ERR_INPUT,
                            "parameter %s begins at element %zu, before the "
                            "end of %s", params[i].name, params[i].offset,
                            params[i - 1].name);
    return DLS_OK;
}

/* cut into buckets */
dls_status dls_bucket_plan(const dls_param *params, int n, size_t element_bytes,
                           size_t first_bytes, size_t bytes, dls_bucket *buckets,
                           int *count)
{
    DLS_TRY(check_order(params, n));
    *count = 0;
    for (int end = n; end > 0;) {
        if (params[end - 1].frozen) {
            end--;
            continue;
        }
        size_t limit = *count == 0 ? first_bytes : bytes, size = 0;
        size_t stop = params[end - 1].offset + params[end - 1].count;
        int begin = end;
        while (begin > 0 && !params[begin - 1].frozen &&
               params[begin - 1].expert == params[end - 1].expert &&
               (begin == end || size < limit)) {
            begin--;
            size = (stop - params[begin].offset) * element_bytes;
        }
        buckets[(*count)++] = (dls_bucket){params[begin].offset,
                                           stop - params[begin].offset,
                                           begin, end - begin};
        end = begin;
    }
    return *count > 0 ? DLS_OK
        : DLS_FAIL(DLS_ERR_INPUT, "all %d parameters are frozen", n);
}

/* hash the plan */
/* The ranks that sum a plan may have different experts, of one size. */
static uint64_t name_hash(const dls_param *p)
{
    return p->expert ? 1 : dls_hash64(p->name, strlen(p->name));
}

uint64_t dls_bucket_hash(const dls_param *params, int n, dls_dtype dtype,
                         const dls_bucket *buckets, int count, const int *order)
{
    uint64_t hash = (uint64_t)dtype;
    for (int i = 0; i < n; i++) {
        uint64_t all[] = {hash, params[i].offset, params[i].count,
                          (uint64_t)params[i].frozen, name_hash(&params[i])};
        hash = dls_hash64(all, sizeof all);
    }
    for (int i = 0; i < count; i++) {
        const dls_bucket *b = &buckets[order ? order[i] : i];
        uint64_t all[] = {hash, b->first, b->count};
        hash = dls_hash64(all, sizeof all);
    }
    return hash;
}
