/* tests/parallel/test_gradients_owed.c: from chapters/07-together-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* What is counted and what is owed, over all ranks of a tensor axis. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "model/transformer.h"
#include "parallel/tensor/gradients.h"

/* count over all ranks */
static dls_params list_of(dls_transformer_config c, int t, int rank, int sequence)
{
    dls_params set;
    c.sharding = (dls_sharding){.tensor = t, .tensor_rank = rank, .sequence = sequence};
    cr_assert_eq(dls_transformer_list(&c, &set), DLS_OK, "%s", dls_status_message());
    return set;
}

/* times[i] += 1 for each element of the whole model that the rank counts. */
static void count_rank(const dls_params *whole, const dls_params *set, int rank,
                       unsigned char *times)
{
    dls_counter who = {.tensor_rank = rank};
    for (dls_stretch s = {0}; dls_counted_next(set->items, set->n, &who, NULL, 0, &s);)
        for (size_t e = s.first; e < s.first + s.count; e++)
            for (int i = 0; i < set->n; i++) {
                const dls_param *p = &set->items[i];
                if (e < p->offset || e >= p->offset + p->count)
                    continue;
                const dls_param *there = dls_params_find(whole, p->name);
                times[there->offset + dls_param_global(p, e - p->offset, NULL, NULL)]++;
            }
}

static void check_once(dls_transformer_config c, int t)
{
    dls_params whole = list_of(c, 1, 0, 0);
    unsigned char *times = calloc(whole.elements, 1);
    for (int r = 0; r < t; r++) {
        dls_params set = list_of(c, t, r, 1);
        count_rank(&whole, &set, r, times);
        dls_params_free(&set);
    }
    for (size_t i = 0; i < whole.elements; i++)
        cr_assert_eq(times[i], 1, "t %d: element %zu counts %d times", t, i, times[i]);
    free(times);
    dls_params_free(&whole);
}

Test(gradients_owed, each_element_counts_once_over_the_tensor_ranks)
{
    for (int t = 1; t <= 8; t *= 2) {
        check_once(dls_transformer_gpt2(67, 8, 2, 8, 16), t);
        check_once(dls_transformer_llama(65, 8, 2, 8, 2, 16, 24), t);
        check_once(dls_transformer_llama(64, 8, 1, 8, 1, 16, 24), t);
    }
}

static void check_most(dls_transformer_config c, int t)
{
    dls_params ranks[8] = {0};
    for (int r = 0; r < t; r++)
        ranks[r] = list_of(c, t, r, 1);
    for (int i = 0; i < ranks[0].n; i++) {
        size_t most = 0, first = dls_tensor_most(&ranks[0].items[i], t);
        for (int r = 0; r < t; r++) {
            const dls_param *p = &ranks[r].items[i];
            most = p->count > most ? p->count : most;
            cr_assert_eq(dls_tensor_most(p, t), first, "%s on rank %d", p->name, r);
        }
        cr_assert_eq(first, most, "%s: %zu, and %zu at most", ranks[0].items[i].name,
                     first, most);
    }
    for (int r = 0; r < t; r++)
        dls_params_free(&ranks[r]);
}

Test(gradients_owed, all_ranks_know_how_large_a_parameter_is_where_it_is_largest)
{
    for (int t = 1; t <= 8; t *= 2) {
        check_most(dls_transformer_gpt2(67, 8, 2, 8, 16), t);
        check_most(dls_transformer_llama(65, 8, 2, 8, 2, 16, 25), t);
    }
}

/* test what is owed */
/* Elements that are owed to a group, and those of partial or shared parameters. */
static size_t owed_to(const dls_params *set, int group)
{
    size_t sum = 0;
    for (dls_stretch s = {0}; dls_owed_next(set->items, set->n, &s);)
        sum += s.owed == group ? s.count : 0;
    return sum;
}

Test(gradients_owed, norms_owe_with_slices_and_shared_heads_always)
{
    dls_transformer_config gpt = dls_transformer_gpt2(67, 8, 2, 8, 16);
    dls_transformer_config llama = dls_transformer_llama(64, 8, 2, 8, 2, 16, 24);
    for (int sequence = 0; sequence < 2; sequence++) {
        dls_params a = list_of(gpt, 4, 1, sequence), b = list_of(llama, 4, 3, sequence);
        // a block: two norms of 16 and 16, two biases behind a sum; and the last norm
        cr_assert_eq(owed_to(&a, DLS_OWED_TENSOR),
                     sequence ? 2 * (2 * 32 + 2 * 16) + 32 : 0);
        cr_assert_eq(owed_to(&a, DLS_OWED_KV), 0);
        cr_assert_eq(owed_to(&b, DLS_OWED_TENSOR), sequence ? 2 * 2 * 16 + 16 : 0);
        // a head of keys and one of values, 2 rows of 16 each, in both blocks
        cr_assert_eq(owed_to(&b, DLS_OWED_KV), 2 * 2 * 2 * 16);
        dls_params_free(&a);
        dls_params_free(&b);
    }
}

Test(gradients_owed, one_device_owes_nothing_and_counts_all_at_once)
{
    dls_params set = list_of(dls_transformer_gpt2(67, 8, 2, 8, 16), 1, 0, 0);
    dls_counter who = {0};
    dls_stretch s = {0};
    cr_assert_eq(dls_owed_next(set.items, set.n, &s), 0);
    s = (dls_stretch){0};
    cr_assert_eq(dls_counted_next(set.items, set.n, &who, NULL, 1, &s), 1);
    cr_assert(s.first == 0 && s.count == set.elements);
    cr_assert_eq(dls_counted_next(set.items, set.n, &who, NULL, 1, &s), 0);
    set.items[3].frozen = 1;
    s = (dls_stretch){0};
    cr_assert_eq(dls_counted_next(set.items, set.n, &who, NULL, 1, &s), 1);
    cr_assert_eq(s.count, set.items[3].offset);
    dls_params_free(&set);
}
