/* code/layers/token_order.c: from chapters/06-context-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Orders of tokens; see token_order.h. */
#include "layers/token_order.h"

/* name the token orders */
const char *dls_token_order_name(dls_token_order order)
{
    static const char *const names[] = {"zigzag", "contiguous", "striped"};
    return (unsigned)order < DLS_TOKEN_ORDERS ? names[order] : "?";
}

/* cut a sequence */
int dls_token_cut(int T, int parts, int part)
{
    int longer = T % parts;
    return T / parts * part + (part < longer ? part : longer);
}

static int part_length(int T, int parts, int part)
{
    return dls_token_cut(T, parts, part + 1) - dls_token_cut(T, parts, part);
}

/* list the runs */
int dls_token_run(dls_token_order order, int T, int n, int rank, int local, int *position,
                  int *step)
{
    *step = order == DLS_TOKENS_STRIPED ? n : 1;
    if (order == DLS_TOKENS_STRIPED) {
        *position = rank + local * n;
        return *position < T ? (T - *position + n - 1) / n : 0;
    }
    int parts = order == DLS_TOKENS_ZIGZAG ? 2 * n : n;
    int first = part_length(T, parts, rank);
    /* find the part of a token */
    if (local < first) {
        *position = dls_token_cut(T, parts, rank) + local;
        return first - local;
    }
    int mirror = 2 * n - 1 - rank, rest = local - first;
    if (order != DLS_TOKENS_ZIGZAG || rest >= part_length(T, parts, mirror))
        return 0;
    *position = dls_token_cut(T, parts, mirror) + rest;
    return part_length(T, parts, mirror) - rest;
}

int dls_token_count(dls_token_order order, int T, int n, int rank)
{
    int count = 0, position, step;
    for (int run; (run = dls_token_run(order, T, n, rank, count, &position, &step)) > 0;)
        count += run;
    return count;
}

dls_status dls_token_positions(dls_token_order order, int T, int n, int rank,
                               int *positions)
{
    int local = 0, position, step;
    /* check an order */
    if ((unsigned)order >= DLS_TOKEN_ORDERS || T < 0 || n < 1 || rank < 0 || rank >= n)
        return DLS_FAIL(DLS_ERR_INPUT, "tokens: rank %d of %d has no part of %d tokens in "
                        "order %d", rank, n, T, (int)order);
    for (int run; (run = dls_token_run(order, T, n, rank, local, &position, &step)) > 0;)
        for (int i = 0; i < run; i++)
            positions[local++] = position + i * step;
    return DLS_OK;
}
