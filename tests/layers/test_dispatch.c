/* tests/layers/test_dispatch.c: from chapters/08-dispatch-proof.md. Edit the chapter, or edit here and run "make untangle". */
/* Every row arrives once, at the right expert, and returns to the right place. */
#include "dispatch_rig.h"

/* run dispatch cases */
static dls_status run_case(dispatch_groups *g, const dispatch_case *c)
{
    dispatch_rig r;
    DLS_TRY(dispatch_begin(&r, c, g));
    DLS_TRY(dispatch_go(&r));
    DLS_TRY(dispatch_expect_arrived(&r));
    DLS_TRY(dispatch_return(&r));
    DLS_TRY(dispatch_expect_back(&r));
    dispatch_end(&r);
    return DLS_OK;
}

typedef struct dispatch_layout { int ep, etp, experts, chosen; } dispatch_layout;

static dls_status run_patterns(int rank, void *arg)
{
    const dispatch_layout *l = arg;
    dispatch_groups g;
    dls_comm *world;
    (void)rank;
    DLS_TRY(test_world(NULL, &world));
    DLS_TRY(dispatch_open(&g, l->ep, l->etp, world));
    dispatch_case c = {.ep = l->ep, .etp = l->etp, .experts = l->experts,
                       .chosen = l->chosen, .tokens = 7, .columns = 5};
    for (int i = 0; i < 3 * DISPATCH_PATTERNS; i++) {
        static const dls_dtype types[] = {DLS_F32, DLS_F64, DLS_BF16};
        c.pattern = (dispatch_pattern)(i / 3);
        c.wire = (dls_row_type)(i % 3);
        c.dtype = types[(i + i / 3) % 3];
        DLS_TRY(run_case(&g, &c));
    }
    dispatch_close(&g);
    dls_comm_destroy(world);
    return DLS_OK;
}

#define DISPATCH_TEST(ep, etp, experts, chosen)                              \
    Test(dispatch, brings_every_row_there_and_back_##ep##x##etp##_of_##experts) \
    {                                                                        \
        dispatch_layout l = {ep, etp, experts, chosen};                      \
        expect_ranks(ep * etp, run_patterns, &l);                            \
    }
DISPATCH_TEST(1, 1, 5, 2)
DISPATCH_TEST(2, 1, 2, 1)
DISPATCH_TEST(2, 1, 6, 3)
DISPATCH_TEST(3, 1, 9, 2)
DISPATCH_TEST(4, 1, 12, 8)
DISPATCH_TEST(5, 1, 5, 5)
DISPATCH_TEST(6, 1, 6, 1)
DISPATCH_TEST(7, 1, 14, 2)
DISPATCH_TEST(8, 1, 8, 2)
DISPATCH_TEST(1, 2, 3, 2)
DISPATCH_TEST(2, 2, 4, 2)
DISPATCH_TEST(3, 2, 6, 2)
DISPATCH_TEST(1, 3, 4, 1)
DISPATCH_TEST(4, 2, 8, 2)
