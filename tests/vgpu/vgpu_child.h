/* tests/vgpu/vgpu_child.h: from chapters/A-virtual-gpu-sharing.md. Edit the chapter, or edit here and run "make untangle". */
/* Running a program once per seed, in processes of their own, and comparing its times. */
#ifndef DLS_TESTS_VGPU_CHILD_H
#define DLS_TESTS_VGPU_CHILD_H

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* run a program in a child */
static inline double in_child(double (*program)(uint64_t), uint64_t seed)
{
    int ends[2], status;
    double time = -1;
    cr_assert_eq(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        double t = program(seed);
        ssize_t written = write(ends[1], &t, sizeof t);
        _exit(written == sizeof t ? 0 : 1);
    }
    close(ends[1]);
    cr_assert_eq(read(ends[0], &time, sizeof time), (ssize_t)sizeof time);
    close(ends[0]);
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return time;
}
/* compare the times of seeds */

/* The program's result is the same, bit for bit, under seeds 1 to `seeds`. */
static inline void expect_one_time(double (*program)(uint64_t), int seeds)
{
    double expected = in_child(program, 1);
    cr_assert(expected > 0);
    for (uint64_t seed = 2; seed <= (uint64_t)seeds; seed++) {
        double time = in_child(program, seed);
        cr_assert_eq(memcmp(&time, &expected, sizeof time), 0,
                     "seed %d: %.17g, not %.17g", (int)seed, time, expected);
    }
}
#endif
