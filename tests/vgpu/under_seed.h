/* tests/vgpu/under_seed.h: from chapters/A-virtual-gpu-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* Runs a program under fifty seeds, each in a process of its own. */
#ifndef DLS_TESTS_VGPU_UNDER_SEED_H
#define DLS_TESTS_VGPU_UNDER_SEED_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vgpu/gpu.h"

/* run a program under a seed */
/* The result of a program, each time in a process of its own. */
static long under_seed(long (*program)(void), uint64_t seed)
{
    int ends[2], status;
    long result = 0;
    cr_assert_eq(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dls_gpu_options options = {.seed = seed, .world = 1};
        cr_assert_eq(dls_gpu_init(&options), 0);
        long r = program();
        _exit(write(ends[1], &r, sizeof r) == sizeof r ? 0 : 1);
    }
    close(ends[1]);
    cr_assert_eq(read(ends[0], &result, sizeof result), (ssize_t)sizeof result);
    close(ends[0]);
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "seed %d", (int)seed);
    return result;
}

static int wrong_seeds(long (*program)(void), long expected)
{
    int wrong = 0;
    for (uint64_t seed = 1; seed <= 50; seed++)
        wrong += under_seed(program, seed) != expected;
    return wrong;
}

#endif
