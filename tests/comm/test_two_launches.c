/* tests/comm/test_two_launches.c: from chapters/04-data-parallelism-rendezvous-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* dls, started twice by hand with variables that contradict each other. */
#include "../cli/program.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

/* start dls twice */
/* A socket that listens on a port of the system's choice, and answers nobody. */
static int listen_somewhere(int *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && !bind(fd, (struct sockaddr *)&at, size) && !listen(fd, 8) &&
              !getsockname(fd, (struct sockaddr *)&at, &size));
    *port = ntohs(at.sin_port);
    return fd;
}

static outcome start_two(const char *first, const char *second, int port)
{
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    outcome o = run_program(
        "dls() { env \"$@\" build/bin/dls bench collectives --algorithm ring --from 8 "
        "--to 8 2>&1; }; export MASTER_ADDR=127.0.0.1 MASTER_PORT=%d "
        "DLS_RENDEZVOUS_SECONDS=3; dls %s & dls %s; s=$?; wait $!; echo status $? $s",
        port, first, second);
    clock_gettime(CLOCK_MONOTONIC, &b);
    cr_expect_lt(b.tv_sec - a.tv_sec, 10, "%ld s", (long)(b.tv_sec - a.tv_sec));
    return o;
}

/* Both end with status 1, and say one line each, which begins with "error: ". */
static void expect_two_errors(const outcome *o, const char *words)
{
    int lines = 0;
    for (const char *at = o->output; (at = strstr(at, "error: ")) != NULL; at++)
        lines += at == o->output || at[-1] == '\n';
    cr_expect(lines == 2 && strstr(o->output, "status 1 1\n"), "%s", o->output);
    for (const char *at = o->output; (at = strchr(at, '\n')) != NULL; at++)
        lines--;
    cr_expect_eq(lines, -1, "two lines and the statuses: %s", o->output);
    cr_expect(strstr(o->output, words), "no \"%s\" in: %s", words, o->output);
}

/* test what two launches say */
Test(cli, two_launches_with_a_port_in_use)
{
    int port, fd = listen_somewhere(&port);
    char words[80];
    outcome o = start_two("RANK=0 WORLD_SIZE=2", "RANK=1 WORLD_SIZE=2", port);
    snprintf(words, sizeof words, "port %d is in use on this host", port);
    expect_two_errors(&o, words);
    close(fd);
}

Test(cli, two_launches_with_two_world_sizes)
{
    int port, fd = listen_somewhere(&port);
    close(fd);
    outcome o = start_two("RANK=0 WORLD_SIZE=2", "RANK=1 WORLD_SIZE=3", port);
    expect_two_errors(&o, "give all the same world size");
}

Test(cli, two_launches_that_fit_together)
{
    int port, fd = listen_somewhere(&port);
    close(fd);
    outcome o = start_two("RANK=0 WORLD_SIZE=2", "RANK=1 WORLD_SIZE=2", port);
    cr_expect(strstr(o.output, "status 0 0\n") && strstr(o.output, "6.80  6.80"), "%s",
              o.output);
}
