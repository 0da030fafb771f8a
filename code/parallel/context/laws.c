/* code/parallel/context/laws.c: from chapters/06-context-parallelism-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* The laws of context parallelism; see laws.h. */
#include "parallel/context/laws.h"

double dls_context_law_efficiency(dls_token_order order, int n)
{
    return order == DLS_TOKENS_CONTIGUOUS ? n / (2.0 * n - 1) : 1;
}

double dls_context_law_sent(const dls_sharding *by, const dls_context_sizes *s,
                            int backward)
{
    int n = by->context > 1 ? by->context : 1;
    int u = by->way == DLS_CONTEXT_ULYSSES ? n : by->ulysses > 1 ? by->ulysses : 1;
    /* add the bytes of both dimensions */
    double q = (double)s->heads / u, kv = s->kv_heads < u ? 1 : (double)s->kv_heads / u;
    double rows = s->tokens / n, group = rows * u, both = 2 * kv * s->head_size;
    double heads = (u - 1) * rows * (2 * q + 2 * kv) * s->head_size * s->element;
    double ring = (n / u - 1) * group * both * s->element;
    if (backward)
        ring += (n / u - 1) * group * both * s->accumulator;
    return (u > 1 ? heads : 0) + ring;
}
