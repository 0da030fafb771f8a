/* tests/comm/test_algorithms.c: from chapters/04-data-parallelism-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The ring and the chain as pure functions: all ranks simulated in one process. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

#include "comm/algorithms.h"

enum { MOST = 33, LONGEST = 70 };
static uint64_t vectors[MOST][LONGEST], before[MOST][LONGEST];

/* play one step of all ranks */
/* Rank r's step k meets its left neighbour's step of the same number. */
static void play(dls_steps *algorithm, int n, size_t count, int k)
{
    memcpy(before, vectors, sizeof before);
    for (int r = 0; r < n; r++) {
        dls_shape here = {.rank = r, .world = n, .count = count};
        dls_shape left = {.rank = (r + n - 1) % n, .world = n, .count = count};
        dls_step mine, theirs;
        cr_assert(algorithm(&here, k, &mine) && algorithm(&left, k, &theirs));
        cr_assert(mine.receives == 1 && theirs.sends == 1 && theirs.send[0].peer == r);
        const dls_move *to = &mine.receive[0], *from = &theirs.send[0];
        cr_assert_eq(to->peer, left.rank);
        cr_assert_eq(to->first, from->first, "n %d step %d", n, k);
        cr_assert_eq(to->count, from->count, "n %d step %d", n, k);
        for (size_t i = to->first; i < to->first + to->count; i++) {
            uint64_t arrives = before[left.rank][i];
            if (to->how)
                cr_assert_eq(vectors[r][i] & arrives, 0, "a contribution counts twice");
            vectors[r][i] = to->how ? vectors[r][i] | arrives : arrives;
        }
    }
}

/* test the ring without processes */
Test(comm, ring_collects_every_contribution_once)
{
    for (int n = 2; n <= MOST; n++)
        for (size_t count = 0; count <= LONGEST; count += 1 + count / 3) {
            dls_step step;
            dls_shape shape = {.rank = 0, .world = n, .count = count};
            for (int r = 0; r < n; r++)
                for (size_t i = 0; i < count; i++)
                    vectors[r][i] = (uint64_t)1 << r;
            int k = 0;
            for (; dls_ring_all_reduce(&shape, k, &step); k++)
                play(dls_ring_all_reduce, n, count, k);
            cr_assert_eq(k, 2 * (n - 1));
            for (int r = 0; r < n; r++)
                for (size_t i = 0; i < count; i++)
                    cr_assert_eq(vectors[r][i], ((uint64_t)1 << n) - 1);
        }
}

/* test the chain without processes */
Test(comm, chain_passes_on_every_block_in_order)
{
    for (int n = 2; n <= 9; n++)
        for (int r = 0; r < n; r++) {
            dls_shape shape = {.rank = r, .world = n, .root = 2 % n, .count = 50,
                               .block = 7};
            int distance = (r - shape.root + n) % n;
            size_t received = distance == 0 ? 50 : 0, sent = 0;
            dls_step step;
            for (int k = 0; dls_chain_broadcast(&shape, k, &step); k++) {
                if (step.sends)
                    cr_assert(step.send[0].first == sent &&
                              sent + step.send[0].count <= received);
                if (step.receives)
                    cr_assert(step.receive[0].first == received && !step.receive[0].how);
                sent += step.sends ? step.send[0].count : 0;
                received += step.receives ? step.receive[0].count : 0;
            }
            cr_assert_eq(received, 50);
            cr_assert_eq(sent, distance == n - 1 ? 0 : 50);
        }
}

Test(comm, parts_cover_a_count)
{
    for (int n = 1; n < 12; n++)
        for (size_t count = 0; count < 40; count++) {
            size_t next = 0, first, size;
            for (int i = 0; i < n; i++, next = first + size) {
                dls_part(count, n, i, &first, &size);
                cr_assert_eq(first, next);
                cr_assert(size == count / n || size == count / n + 1);
            }
            cr_assert_eq(next, count);
        }
}

/* test the parts */
Test(comm, an_average_is_divided_once)
{
    for (int n = 2; n <= 9; n++)
        for (int r = 0, divided = 0; r < n; r++, divided = 0) {
            dls_shape shape = {.rank = r, .world = n, .count = 1000};
            dls_step step;
            for (int k = 0; dls_ring_all_reduce(&shape, k, &step); k++)
                divided += step.receive[0].finish && step.receive[0].how;
            cr_assert_eq(divided, 1);
        }
}
