/* tests/parallel/test_pipeline_placement.c: from chapters/05-pipeline-evaluate-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Placements: by hand, and each the inverse of the other on a grid. */
#include <criterion/criterion.h>
#include <string.h>

#include "parallel/pipeline/schedule.h"

/* test placements */
Test(pipeline_placement, a_v_of_four_chunks_by_hand)
{
    static const int home[12] = {0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0};
    for (int s = 0; s < 12; s++)
        cr_assert_eq(dls_placement_rank(DLS_PLACE_V, 3, s, 7), home[s], "%d", s);
    cr_assert_eq(dls_placement_rank(DLS_PLACE_LOOP, 3, 7, 0), 1);
    cr_assert_eq(dls_placement_rank(DLS_PLACE_BOTH, 4, 1, 2), 1);
    cr_assert_eq(dls_placement_rank(DLS_PLACE_BOTH, 4, 1, 3), 2);
}

Test(pipeline_placement, there_and_back)
{
    for (int place = DLS_PLACE_LOOP; place <= DLS_PLACE_BOTH; place++)
        for (int p = 1; p <= 9; p++)
            for (int i = 0; i < 4; i++) {
                int chunks = place == DLS_PLACE_BOTH ? 1 : 5, seen[45] = {0};
                for (int k = 0; k < p * chunks; k++) {
                    int s = dls_placement_stage((dls_placement)place, p, k % p, k / p, i);
                    cr_assert(s >= 0 && s < p * chunks && !seen[s]++);
                    cr_assert_eq(dls_placement_rank((dls_placement)place, p, s, i),
                                 k % p);
                }
            }
}
