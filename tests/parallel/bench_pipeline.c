/* tests/parallel/bench_pipeline.c: from chapters/05-pipeline-command.md. Edit the chapter, or edit here and run "make untangle". */
/* Nanoseconds per action of each step, for schedules of growing size. */
#include <stdio.h>
#include <time.h>

#include "parallel/pipeline/check.h"
#include "parallel/pipeline/evaluate.h"
#include "parallel/pipeline/lower.h"

/* time a step */
static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double lap(double *since, size_t actions)
{
    double now = seconds(), ns = 1e9 * (now - *since) / (double)actions;
    *since = now;
    return ns;
}

/* time a schedule */
static dls_status time_schedule(int m)
{
    dls_schedule_options o = dls_schedule_defaults("interleaved", 64, m);
    dls_schedule s, lowered;
    dls_evaluation e;
    size_t n = 2 * 64 * 4 * (size_t)m;
    o.chunks = 4;
    double since = seconds(), ns[4];
    DLS_TRY(dls_schedule_make(&o, &s));
    ns[0] = lap(&since, n);
    DLS_TRY(dls_schedule_check(&s, NULL));
    ns[1] = lap(&since, n);
    DLS_TRY(dls_evaluate(&s, &e));
    ns[2] = lap(&since, n);
    DLS_TRY(dls_lower(&s, 0, &lowered));
    ns[3] = lap(&since, n);
    printf("%-9zu %7.1f %7.1f %9.1f %6.1f\n", n, ns[0], ns[1], ns[2], ns[3]);
    dls_schedule_free(&lowered);
    dls_evaluation_free(&e);
    dls_schedule_free(&s);
    return DLS_OK;
}

int main(void)
{
    printf("interleaved, 64 ranks, 4 chunks; nanoseconds per action\n"
           "actions      make   check  evaluate  lower\n");
    for (int m = 64; m <= 1024; m *= 2)
        if (time_schedule(m) != DLS_OK) {
            fprintf(stderr, "%s\n", dls_status_message());
            return 1;
        }
    return 0;
}
