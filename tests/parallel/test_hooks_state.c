/* tests/parallel/test_hooks_state.c: from chapters/04-data-parallelism-hooks-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* What hooks owe, when the number of ranks changes. */
#include "hook_rig.h"

#include <unistd.h>

#include "base/file.h"

/* leave a world of hooks */
typedef struct move { dls_ddp_options options; int from; char root[64]; } move;

static dls_status leave(int rank, void *arg)
{
    const move *m = arg;
    rig r = {.integers = 1};
    char path[128];
    DLS_TRY(rig_open(&r, &m->options));
    for (int step = 0; step < 3; step++)
        DLS_TRY(rig_step(&r, step));
    dls_hook *h = dls_ddp_hook(r.ddp);
    size_t bytes = dls_hook_state_bytes(h);
    char *state = malloc(bytes);
    DLS_TRY(dls_hook_fetch(h, state));
    snprintf(path, sizeof path, "%s/state-%d", m->root, rank);
    DLS_TRY(dls_file_write(path, state, bytes));
    for (int i = 0; i < RIG_ELEMENTS; i++)
        r.sum[i] -= r.delivered[i];
    snprintf(path, sizeof path, "%s/owed", m->root);
    if (rank == 0)
        DLS_TRY(dls_file_write(path, r.sum, RIG_ELEMENTS * sizeof *r.sum));
    free(state);
    rig_close(&r);
    return DLS_OK;
}

/* enter another world of hooks */
static dls_status take_over(const move *m, dls_hook *h)
{
    char path[128], *states[8] = {NULL};
    size_t bytes[8];
    for (int i = 0; i < m->from; i++) {
        snprintf(path, sizeof path, "%s/state-%d", m->root, i);
        DLS_TRY(dls_file_read(path, &states[i], &bytes[i]));
    }
    dls_status s = dls_hook_put(h, (const char *const *)states, bytes, m->from);
    bytes[0]--;
    EXPECT(dls_hook_put(h, (const char *const *)states, bytes, m->from) == DLS_ERR_INPUT,
           "a state that was cut is taken");
    for (int i = 0; i < m->from; i++)
        free(states[i]);
    return s;
}

static dls_status enter(int rank, void *arg)
{
    static double owed[RIG_ELEMENTS];
    const move *m = arg;
    rig r = {.integers = 1};
    char path[128], *was;
    size_t size;
    (void)rank;
    DLS_TRY(rig_open(&r, &m->options));
    DLS_TRY(take_over(m, dls_ddp_hook(r.ddp)));
    DLS_TRY(rig_owed(&r, owed));
    snprintf(path, sizeof path, "%s/owed", m->root);
    DLS_TRY(dls_file_read(path, &was, &size));
    for (int i = 0; i < RIG_ELEMENTS; i++)
        EXPECT(fabs(owed[i] - ((double *)was)[i]) < 1e-11, "element %d: %.17g owed, "
               "%.17g before", i, owed[i], ((double *)was)[i]);
    free(was);
    rig_close(&r);
    return DLS_OK;
}

/* test the change of worlds */
static void move_to_others(dls_hook_options hook)
{
    move m = {.options = {.bucket_bytes = 17000, .first_bucket_bytes = 1, .hook = hook},
              .from = 3, .root = "/tmp/dls-hooks-XXXXXX"};
    char command[80];
    cr_assert_not_null(mkdtemp(m.root));
    expect_ranks(3, leave, &m);
    for (int n = 1; n <= 5; n++)
        if (n != 3)
            expect_ranks(n, enter, &m);
    snprintf(command, sizeof command, "rm -r %s", m.root);
    cr_assert_eq(system(command), 0);
}

Test(hooks, what_top_k_owes_survives_a_change_of_worlds)
{
    move_to_others((dls_hook_options){.choice = DLS_HOOK_TOP_K, .keep = 0.03});
}

Test(hooks, what_powersgd_owes_survives_a_change_of_worlds)
{
    move_to_others((dls_hook_options){.choice = DLS_HOOK_POWERSGD, .rank = 3});
}

Test(hooks, what_one_bit_adam_owes_survives_a_change_of_worlds)
{
    move_to_others((dls_hook_options){.choice = DLS_HOOK_ONE_BIT_ADAM, .warmup = 1});
}
