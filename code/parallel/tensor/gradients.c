/* code/parallel/tensor/gradients.c: from chapters/07-together.md. Edit the chapter, or edit here and run "make untangle". */
/* Walking over a parameter set in stretches that are treated alike. */
#include "parallel/tensor/gradients.h"

#include "comm/scratch.h"

/* find a part */
/* A parameter cut along its first dimension lies here piece after piece, and its pieces
 * may have different sharers; any other is one part. */
static int parts_of(const dls_param *p)
{
    return p->pieces > 1 && p->cut == 0 ? p->pieces : 1;
}

static void find_part(const dls_param *p, int part, size_t *first, size_t *count)
{
    size_t inner = 1;
    *first = p->offset;
    *count = p->count;
    if (parts_of(p) == 1)
        return;
    for (int i = 1; i < p->ndim; i++)
        inner *= p->shape[i];
    for (int k = 0; k < part; k++)
        *first += p->piece[k].count * inner;
    *count = p->piece[part].count * inner;
}

/* walk over a set in stretches */
typedef struct question {
    int (*kind)(const struct question *q, const dls_param *p, int part); // 0: left out
    dls_counter who;
    int learning;
    const dls_param *skip;
} question;

static int next(const question *q, const dls_param *params, int n, dls_stretch *s)
{
    for (s->count = 0, s->owed = 0; s->param < n; s->param++, s->part = 0) {
        const dls_param *p = &params[s->param];
        for (; s->part < parts_of(p); s->part++) {
            size_t first, count;
            int kind = q->kind(q, p, s->part);
            find_part(p, s->part, &first, &count);
            if (s->count && (kind != s->owed || first != s->first + s->count))
                return 1;
            if (kind && !s->count)
                *s = (dls_stretch){first, 0, kind, s->param, s->part};
            s->count += kind ? count : 0;
        }
    }
    return s->count > 0;
}

/* say what is owed */
static int owed(const question *q, const dls_param *p, int part)
{
    (void)q;
    if (p->frozen)
        return DLS_OWED_NOTHING;
    if (p->partial)
        return DLS_OWED_TENSOR;
    return p->pieces > 0 && p->piece[part].sharers > 1 ? DLS_OWED_KV : DLS_OWED_NOTHING;
}

int dls_owed_next(const dls_param *params, int n, dls_stretch *s)
{
    return next(&(question){.kind = owed, .learning = 1}, params, n, s);
}

/* say what counts */
static int counted(const question *q, const dls_param *p, int part)
{
    const dls_counter *who = &q->who;
    int copy = p->expert ? who->expert_copy : who->copy;
    int rank = p->expert ? who->expert_tensor_rank : who->tensor_rank;
    if (p == q->skip || (q->learning && p->frozen) || copy > 0)
        return 0;
    return p->pieces > 0 ? p->piece[part].sharer == 0 : rank == 0;
}

int dls_counted_next(const dls_param *params, int n, const dls_counter *who,
                     const dls_param *skip, int learning, dls_stretch *s)
{
    return next(&(question){counted, *who, learning, skip}, params, n, s);
}

/* finish the gradients */
dls_status dls_tensor_finish(const dls_axes *axes, const dls_param *params, int n,
                             int dtype, cudaStream_t stream)
{
    size_t size = dls_comm_type_size(dtype);
    dls_stretch s = {0};
    while (axes && dls_owed_next(params, n, &s)) {
        char *at = (char *)params->grad + (s.first - params->offset) * size;
        dls_comm *comm = s.owed == DLS_OWED_KV ? axes->kv : axes->tensor;
        if (comm)
            DLS_TRY(dls_comm_all_reduce(comm, at, s.count, dtype, DLS_SUM, stream));
    }
    return DLS_OK;
}

size_t dls_tensor_most(const dls_param *p, int t)
{
    if (p->pieces == 0 || p->pieces > 2 || p->piece[0].sharers > 1)
        return p->count;        // whole; or heads, which all ranks have equally many of
    size_t length = p->shape[p->cut] / p->pieces;
    return p->count / p->piece[0].count * (length / t + (length % t > 0));
}

dls_status dls_tensor_finish_scratch(const dls_axes *axes, const dls_param *params, int n,
                                     int dtype, size_t *tensor, size_t *kv)
{
    for (dls_stretch s = {0}; axes && dls_owed_next(params, n, &s);) {
        int copies = s.owed == DLS_OWED_KV;
        dls_comm *comm = copies ? axes->kv : axes->tensor;
        size_t bytes = 0, *most = copies ? kv : tensor;
        if (comm)
            DLS_TRY(dls_comm_scratch_bytes(comm, "all_reduce", s.count, dtype, &bytes));
        *most = bytes > *most ? bytes : *most;
    }
    return DLS_OK;
}
