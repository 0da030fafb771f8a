/* tests/comm/test_bench.c: from chapters/04-data-parallelism-collectives-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* dls bench collectives: its numbers and its refusals. */
#include "../cli/program.h"

#include <string.h>

#include <criterion/criterion.h>

/* test the bench command */
#define BENCH "build/bin/dls run -n 8 -- bench collectives"

Test(cli, bench_prints_steps_bytes_and_times_of_collectives)
{
    outcome o = run_program(BENCH " --algorithm ring --from 8192 --to 8192 2>&1");
    cr_expect_eq(o.exit_code, 0);
    cr_expect(strstr(o.output, "ring        8192     14  14336  47.64  47.64"), "%s",
              o.output);
    cr_expect(strstr(o.output, "bus GB/s: times 2(n-1)/n"), "%s", o.output);
    outcome json = run_program(BENCH " --op all_to_all --algorithm all --type u8 "
                               "--from 80 --to 80 --json 2>&1");
    cr_expect(strstr(json.output, "\"algorithm\": \"bruck\"") &&
                  strstr(json.output, "\"algorithm\": \"pairwise\""), "%s", json.output);
}

Test(cli, bench_refuses_what_it_does_not_know)
{
    static const char *const wrong[][2] = {
        {" --op allreduce", "--op: expected all_reduce"},
        {" --algorithm rnig", "--algorithm: no rnig for all_reduce"},
        {" --type f31", "--type: expected f32"},
        {" --from 9 --to 8", "1 <= from <= to"}};
    for (int i = 0; i < 4; i++) {
        outcome o = run_program(BENCH "%s 2>&1", wrong[i][0]);
        cr_expect_eq(o.exit_code, 2, "%s: %d", wrong[i][0], o.exit_code);
        cr_expect(strstr(o.output, wrong[i][1]), "%s", o.output);
    }
    outcome alone = run_program("build/bin/dls bench collectives 2>&1");
    cr_expect(alone.exit_code == 2 && strstr(alone.output, "nobody to talk to"), "%s",
              alone.output);
}
