/* tests/parallel/test_hidden.c: from chapters/08-dualpipe-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The share of an all-to-all that is hidden, on timelines made by hand. */
#include <criterion/criterion.h>

#include "hidden.h"

/* test the share that is hidden */
enum { COMPUTE = 1, EXCHANGE = 2, OTHER = 3 };

#define SPAN(on, of, from, to) {.stream = on, .kind = of, .start = from, .finish = to}
#define KERNEL(from, to) SPAN(COMPUTE, DLS_GPU_COMPUTE, from, to)
#define ROWS(from, to) SPAN(EXCHANGE, DLS_GPU_COMMUNICATION, from, to)

static const dls_trace_span *made_by_hand(int i)
{
    static const dls_trace_span spans[] = {
        KERNEL(5, 12), ROWS(10, 20), KERNEL(15, 30), ROWS(30, 34),
        SPAN(COMPUTE, DLS_GPU_COPY, 30, 34), SPAN(OTHER, DLS_GPU_COMPUTE, 30, 34),
        ROWS(40, 44), KERNEL(41, 43)};
    return &spans[i];
}

static void expect_share(double from, double to, double all, double hidden)
{
    const timeline t = {made_by_hand, 8};
    share s = share_of(&t, EXCHANGE, COMPUTE, from, to);
    cr_assert(s.all == all && s.hidden == hidden, "%g of %g", s.hidden, s.all);
}

Test(hidden, is_what_kernels_of_the_compute_stream_cover)
{
    expect_share(0, 100, 18, 9);
    expect_share(10, 30, 10, 7);    // the window holds its start and not its end
    expect_share(30, 40, 4, 0);
    expect_share(11, 30, 0, 0);     // begun before
    expect_share(40, 41, 4, 2);     // goes on behind it
}
