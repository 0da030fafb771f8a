/* tests/parallel/test_coroutine.c: from chapters/08-dualpipe-runtime-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Coroutines: who runs when, what they return, and that a stack is used again. */
#include <criterion/criterion.h>
#include <string.h>

#include "parallel/pipeline/coroutine.h"

static char said[64];

static void say(char c)
{
    size_t n = strlen(said);
    said[n] = c;
    said[n + 1] = 0;
}

/* test turns of coroutines */
typedef struct speaker { char word; int times; } speaker;

static dls_status speak(void *arg)
{
    const speaker *s = arg;
    volatile char deep[1 << 20];    // a stack that could not hold this would crash
    for (int i = 0; i < s->times; i++) {
        deep[i << 10] = s->word;
        DLS_TRY(dls_coroutine_yield());
        say(deep[i << 10]);
    }
    return DLS_OK;
}

Test(coroutine, two_take_turns_and_keep_their_places)
{
    speaker words[2] = {{'a', 3}, {'b', 1}};
    dls_coroutine *c[2];
    for (int k = 0; k < 2; k++) {
        cr_assert_eq(dls_coroutine_create(&c[k]), DLS_OK);
        cr_assert_eq(dls_coroutine_start(c[k], speak, &words[k]), DLS_OK);
        cr_assert(dls_coroutine_alive(c[k]));
    }
    for (int i = 0; i < 8; i++)
        dls_coroutine_resume(c[i % 2], DLS_OK);
    cr_assert_str_eq(said, "abaa");
    for (int k = 0; k < 2; k++) {
        cr_assert_not(dls_coroutine_alive(c[k]));
        cr_assert_eq(dls_coroutine_result(c[k]), DLS_OK);
        dls_coroutine_free(c[k]);
    }
}

static dls_status outer(void *arg)
{
    dls_coroutine *inside = arg;
    say('(');
    dls_coroutine_resume(inside, DLS_OK);
    DLS_TRY(dls_coroutine_yield());
    dls_coroutine_resume(inside, DLS_OK);
    say(')');
    return DLS_OK;
}

Test(coroutine, one_may_resume_another)
{
    speaker word = {'x', 1};
    dls_coroutine *in, *out;
    cr_assert_eq(dls_coroutine_create(&in), DLS_OK);
    cr_assert_eq(dls_coroutine_create(&out), DLS_OK);
    cr_assert_eq(dls_coroutine_start(in, speak, &word), DLS_OK);
    cr_assert_eq(dls_coroutine_start(out, outer, in), DLS_OK);
    dls_coroutine_resume(out, DLS_OK);
    cr_assert_str_eq(said, "(");
    dls_coroutine_resume(out, DLS_OK);
    cr_assert_str_eq(said, "(x)");
    cr_assert_not(dls_coroutine_alive(out));
    dls_coroutine_free(in);
    dls_coroutine_free(out);
}

/* test failures of coroutines */
static dls_status fail(void *arg)
{
    (void)arg;
    DLS_TRY(dls_coroutine_yield());
    return DLS_FAIL(DLS_ERR_DEVICE, "it broke");
}

Test(coroutine, a_failure_is_the_result_and_ends_it)
{
    dls_coroutine *c;
    cr_assert_eq(dls_coroutine_create(&c), DLS_OK);
    cr_assert_eq(dls_coroutine_start(c, fail, NULL), DLS_OK);
    cr_assert_eq(dls_coroutine_start(c, fail, NULL), DLS_ERR_STATE);
    dls_coroutine_resume(c, DLS_OK);
    cr_assert(dls_coroutine_alive(c));
    dls_coroutine_resume(c, DLS_OK);
    cr_assert_not(dls_coroutine_alive(c));
    cr_assert_eq(dls_coroutine_result(c), DLS_ERR_DEVICE);
    cr_assert_str_eq(dls_status_message(), "it broke");
    dls_coroutine_free(c);
}

Test(coroutine, what_it_is_resumed_with_comes_out_of_yield)
{
    speaker word = {'n', 5};
    dls_coroutine *c;
    cr_assert_eq(dls_coroutine_create(&c), DLS_OK);
    for (int again = 0; again < 2; again++) {
        cr_assert_eq(dls_coroutine_start(c, speak, &word), DLS_OK);
        dls_coroutine_resume(c, DLS_OK);
        dls_coroutine_resume(c, DLS_ERR_COMM);
        cr_assert_not(dls_coroutine_alive(c));
        cr_assert_eq(dls_coroutine_result(c), DLS_ERR_COMM);
    }
    cr_assert_str_eq(said, "");
    cr_assert_eq(dls_coroutine_yield(), DLS_OK);    // outside of any
    dls_coroutine_free(c);
}
