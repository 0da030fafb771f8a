/* tests/layers/dispatch_check.c: from chapters/08-dispatch-proof.md. Edit the chapter, or edit here and run "make untangle". */
/* Sending rows with origins, and looking at what came; see dispatch_rig.h. */
#include "dispatch_rig.h"

/* run a dispatch */
static void fill_sent(dispatch_rig *r)
{
    const dispatch_case *c = r->c;
    int counts[c->experts], row = 0;
    dispatch_counts(c, r->rank, counts);
    memcpy(r->counts, counts, sizeof counts);
    for (int e = 0; e < c->experts; e++)
        for (int i = 0; i < counts[e]; i++, row++)
            for (int k = 0; k < c->columns; k++)
                dispatch_set(c, r->sent, (size_t)row * c->columns + k,
                             dispatch_element(c, r->rank, e, i, k));
}

static void poison(dispatch_rig *r)
{
    for (size_t i = 0; i < (size_t)(r->d.room + 1) * r->c->columns; i++)
        dispatch_set(r->c, r->arrived, i, NAN);
    for (size_t i = 0; i < (size_t)(r->d.sent_room + 1) * r->c->columns; i++)
        dispatch_set(r->c, r->back, i, NAN);
}

dls_status dispatch_go(dispatch_rig *r)
{
    fill_sent(r);
    poison(r);
    DLS_TRY(dls_dispatch_count(&r->pass, &r->d, r->counts, NULL));
    if (r->spoil)
        r->spoil(r);
    DLS_TRY(dls_dispatch_rows(&r->pass, &r->d, r->arrived, r->sent));
    DLS_TRY(dls_dispatch_wait(&r->pass));
    return dls_ctx_sync(&r->ctx);
}

// What the expert makes of an element; of its shares 1, 2 ... the sum is all.
static double answer(int expert, double x) { return 3 * x + expert + 1; }

static void run_experts(dispatch_rig *r)
{
    const dispatch_case *c = r->c;
    const dls_routes *to = dls_dispatch_routes(&r->pass, &r->d);
    int first = r->axes->sharding.expert_rank * to->experts;
    for (int s = 0; s < to->segments; s++)
        for (int i = 0; i < to->segment[s].count * c->columns; i++) {
            size_t at = (size_t)to->segment[s].begin * c->columns + i;
            double y = answer(first + to->segment[s].expert,
                              dispatch_get(c, r->arrived, at));
            dispatch_set(c, r->arrived, at,
                         y * (r->axes->sharding.expert_tensor_rank + 1));
        }
}

dls_status dispatch_return(dispatch_rig *r)
{
    run_experts(r);
    DLS_TRY(dls_combine_rows(&r->pass, &r->d, r->back, r->arrived));
    DLS_TRY(dls_dispatch_wait(&r->pass));
    return dls_ctx_sync(&r->ctx);
}

/* look at what arrived */
static int world_rank(const dispatch_case *c, int source)
{
    return source % c->ep * c->etp + source / c->ep;
}

static dls_status expect_row(const dispatch_case *c, const void *x, int row, int rank,
                             int expert, int i, double (*made)(int, double), double of)
{
    for (int k = 0; k < c->columns; k++) {
        double want = dispatch_element(c, rank, expert, i, k);
        double got = dispatch_get(c, x, (size_t)row * c->columns + k);
        want = (made ? made(expert, want) : want) * of;
        EXPECT(got == want, "row %d column %d: %g, expected %g (number %d of rank %d for "
               "expert %d)", row, k, got, want, i, rank, expert);
    }
    return DLS_OK;
}

// Sources in order, for each the experts of this rank in order; and nothing behind.
dls_status dispatch_expect_arrived(const dispatch_rig *r)
{
    const dispatch_case *c = r->c;
    const dls_routes *to = dls_dispatch_routes(&r->pass, &r->d);
    int segment = 0, row = 0, first = r->axes->sharding.expert_rank * to->experts;
    for (int source = 0; source < to->sources; source++) {
        int counts[c->experts], rank = world_rank(c, source);
        dispatch_counts(c, rank, counts);
        EXPECT(!memcmp(counts, to->counts + source * c->experts, sizeof counts),
               "the counts of source %d are not known", source);
        /* look at the rows of a source */
        for (int j = 0; j < to->experts; j++) {
            int e = first + j;
            const dls_segment *s = &to->segment[segment];
            if (counts[e] == 0)
                continue;
            EXPECT(segment < to->segments && s->expert == j && s->begin == row &&
                   s->count == counts[e], "segment %d is another", segment);
            for (int i = 0; i < counts[e]; i++)
                DLS_TRY(expect_row(c, r->arrived, row++, rank, e, i, NULL, 1));
            segment++;
        }
    }
    EXPECT(segment == to->segments && row == to->arrived, "%d segments, %d rows; got %d, "
           "%d", segment, row, to->segments, to->arrived);
    EXPECT(isnan(dispatch_get(c, r->arrived, (size_t)row * c->columns)), "a row more");
    return DLS_OK;
}

dls_status dispatch_expect_back(const dispatch_rig *r)
{
    const dispatch_case *c = r->c;
    int counts[c->experts], row = 0;
    dispatch_counts(c, r->rank, counts);
    for (int e = 0; e < c->experts; e++)
        for (int i = 0; i < counts[e]; i++)
            DLS_TRY(expect_row(c, r->back, row++, r->rank, e, i, answer,
                               c->etp * (c->etp + 1) / 2));
    EXPECT(row == dls_dispatch_routes(&r->pass, &r->d)->sent, "%d rows sent", row);
    EXPECT(isnan(dispatch_get(c, r->back, (size_t)row * c->columns)), "a row too many");
    return DLS_OK;
}
