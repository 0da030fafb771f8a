/* tests/tangle/test_run.c: from chapters/B-tangle-and-weave.md. Edit the chapter, or edit here and run "make untangle". */
/* tangle run: records, freshness, expectations, blocks that must not compile. */
#include "small.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

TestSuite(tangle_run, .init = small_begin, .fini = small_end);

#define RUN(attributes, body) BLOCK(".sh .run " attributes, body)
#define EXPECT(attributes, body) BLOCK(".text .expect " attributes, body)

/* test records */

Test(tangle_run, records_and_does_not_repeat)
{
    small_put("input", "1\n");
    small_book(RUN("#count needs=\"input\"", "echo ran >> log\ncat input\n")
               RUN("#slow-one .slow", "echo slow >> log\n"));
    EXPECT_EXIT("run", 0);
    EXPECT_SAID("1 run recorded");
    EXPECT_SAID("1 slow run without a fresh record");
    char *record = small_get("build/run/count.json");
    cr_assert(record);
    cr_expect(strstr(record, "\"output\": \"1\\n\"") && strstr(record, "\"exit\": 0"));
    cr_expect(strstr(record, "\"machine\"") && strstr(record, "\"chapter\""), "%s",
              record);
    EXPECT_EXIT("run", 0);
    EXPECT_FILE("log", "ran\n");
    small_put("input", "2\n");
    EXPECT_EXIT("run", 0);
    EXPECT_FILE("log", "ran\nran\n");
    EXPECT_EXIT("run --slow", 0);
    EXPECT_FILE("log", "ran\nran\nslow\n");
    EXPECT_EXIT("run --only count --force", 0);
    EXPECT_FILE("log", "ran\nran\nslow\nran\n");
    EXPECT_EXIT("run --only cuont", 2);
    EXPECT_SAID("did you mean \"count\"?");
}

Test(tangle_run, takes_a_committed_record)
{
    small_book(RUN("#count needs=\"\"", "echo ran >> log\necho 1\n")
                   EXPECT("of=count", "1\n"));
    EXPECT_EXIT("run", 0);
    cr_assert_eq(small_shell("mkdir -p figures && mv build/run figures/run"), 0);
    EXPECT_EXIT("run", 0);
    EXPECT_FILE("log", "ran\n");
    EXPECT_EXIT("list runs", 0);
    EXPECT_SAID("fresh");
    small_edit("chapters/01-one.md", "echo 1", "echo 1 #");
    EXPECT_EXIT("list runs", 0);
    EXPECT_SAID("stale");
}

Test(tangle_run, any_bytes_can_be_printed)
{
    small_book(RUN("#bytes needs=\"\"", "printf 'a\\0b\\377c\\n'\n"));
    EXPECT_EXIT("run", 0);
    char *record = small_get("build/run/bytes.json");
    cr_expect(record && strstr(record, "a\xef\xbf\xbd"
                                       "b\xef\xbf\xbd"
                                       "c"),
              "%s", record);
}
/* test runs that fail */

Test(tangle_run, failures_are_reported_at_the_block)
{
    small_book(RUN("#bad needs=\"\"", "echo before\nfalse\necho after\n"));
    EXPECT_EXIT("run", 1);
    EXPECT_SAID(
        "chapters/01-one.md:1:14: error: run \"bad\" ended with 1, not 0 [run-failed]");
    EXPECT_SAID("| before");
    EXPECT_NOT_SAID("| after");
    cr_expect(!small_exists("build/run/bad.json"));
    small_book(RUN("#bad needs=\"\" exit=3", "exit 3\n"));
    EXPECT_EXIT("run", 0);
    small_book(RUN("#bad needs=\"\" exit=3", "exit 4\n"));
    EXPECT_EXIT("run", 1);
    small_book(RUN("#bad needs=\"\"", "echo $undefined\n"));
    EXPECT_EXIT("run", 1);
    EXPECT_SAID("unbound variable");
    small_book(RUN("#bad needs=\"\"", "false | true\n"));
    EXPECT_EXIT("run", 1);
}

Test(tangle_run, what_hangs_is_ended)
{
    small_book(
        RUN("#hang timeout=1 needs=\"\"", "sleep 1000 & echo $! > pid; sleep 1000\n"));
    EXPECT_EXIT("run", 1);
    EXPECT_SAID("run \"hang\" took more than 1 s [timeout]");
    cr_expect_neq(small_shell("kill -0 $(cat pid) && ! grep -q '^State:.Z' "
                              "/proc/$(cat pid)/status"), 0, "its child still runs");
    small_book(RUN("#leave timeout=30 needs=\"\"", "sleep 1000 &\necho left\n"));
    EXPECT_EXIT("run", 0); // does not wait for what a run leaves in the background
}
/* test expectations */

static const struct {
    const char *attributes, *want, *got;
    int met;
} expectations[] = {
    {"", "a 1\n", "a 1", 1},
    {"", "a 1\n", "a  1", 0},
    {"", "a\nb\n", "a", 0},
    {"", "a\n", "a\nb", 0},
    {" tolerance=1e-2", "loss 2.00\n", "loss   2.01", 1},
    {" tolerance=1e-2", "loss 2.00\n", "loss 2.03", 0},
    {" tolerance=1e-2", "loss 2.00\n", "lost 2.00", 0},
    {" tolerance=1e-2", "x -1.5e3,\n", "x -1501,", 1},
    {" tolerance=1e-2", "x 1.5\n", "x -1.5", 0},
    {" tolerance=1e-2", "x 1\n", "x nan", 0},
    {" tolerance=1e-2", "conv2d\n", "conv3d", 0},
    {" tolerance=0", "x 0.5\n", "x 0.50", 1},
    {" .device", "took 3 ms on 2 cores\n", "took 12.5 ms on 64 cores", 1},
    {" .device", "took 3 ms\n", "took 3 s", 0},
    {" .device", "took 3 ms\n", "took 3 ms 4", 0},
};

Test(tangle_run, expectations)
{
    for (size_t i = 0; i < sizeof expectations / sizeof *expectations; i++) {
        char chapter[512], attributes[64];
        snprintf(attributes, sizeof attributes, "of=r%s", expectations[i].attributes);
        snprintf(chapter, sizeof chapter,
                 "```{.sh .run #r needs=\"\"}\nprintf '%%s\\n' '%s'\n```\n\n"
                 "```{.text .expect %s}\n%s```\n",
                 expectations[i].got, attributes, expectations[i].want);
        small_book(chapter);
        int status = small_tangle("run");
        cr_expect_eq(status, !expectations[i].met, "%s: want %s got %s: %s", attributes,
                     expectations[i].want, expectations[i].got, small_said);
        cr_expect(expectations[i].met || strstr(small_said, "[unmet-expectation]"));
        cr_assert_eq(small_shell("rm -rf build"), 0);
    }
}

Test(tangle_run, an_unmet_expectation_shows_its_line)
{
    small_book(RUN("#r needs=\"\"", "printf 'one\\ntwo\\n'\n")
                   EXPECT("of=r", "one\nthree\n"));
    for (int again = 0; again < 2; again++) { // the second time from the record
        EXPECT_EXIT("run", 1);
        EXPECT_SAID("chapters/01-one.md:7:1: error: run \"r\" printed something else "
                    "[unmet-expectation]");
        EXPECT_SAID("= - three\n      = + two\n");
    }
}
/* test blocks that must fail */

Test(tangle_run, blocks_that_must_not_compile)
{
    small_book(BLOCK(".c .fails match=\"undeclared\"", "int f(void) { return y; }\n"));
    EXPECT_EXIT("run", 0);
    small_book(BLOCK(".c .fails match=\"undeclared\"", "int f(void) { return 1; }\n"));
    EXPECT_EXIT("run", 1);
    EXPECT_SAID(
        "chapters/01-one.md:1:22: error: this block must fail to compile, and compiles "
        "[compiles]");
    small_book(BLOCK(".c .fails match=\"undeclared\"", "\nint f(void) { return }\n"));
    EXPECT_EXIT("run", 1);
    EXPECT_SAID("fails to compile, but without the message [other-message]");
    EXPECT_SAID("chapters/01-one.md:3:22: error");
    small_book(BLOCK(".cpp .fails match=\"not declared\"", "int f() { return y; }\n"));
    EXPECT_EXIT("run", 0);
}
