/* tests/comm/test_store.c: from chapters/04-data-parallelism-rendezvous-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The stores: what the table does, from several processes, and strangers at the port. */
#include "comm/store.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "outcome.h"

/* make urls for tests */
static const char *file_url(void)
{
    static char url[] = "file:///tmp/dls-store-XXXXXX";
    close(mkstemp(url + 7));
    return url;
}

static dls_store *opened(const char *url, int serve)
{
    dls_store *store = NULL;
    expect_ok(dls_store_open(url, serve, 5, &store));
    return store;
}

static void expect_value(dls_store *store, const char *key, const char *expected)
{
    char value[100];
    size_t n;
    expect_ok(dls_store_get(store, key, value, sizeof value, &n, 1));
    cr_assert(n == strlen(expected) && memcmp(value, expected, n) == 0, "%s: %.*s", key,
              (int)n, value);
}

/* test each operation */
/* Two handles on one store: what one does, the other sees. */
static void use_every_operation(dls_store *a, dls_store *b)
{
    int there;
    int64_t n;
    char now[100];
    expect_ok(dls_store_check(a, "x", &there));
    cr_assert_eq(there, 0);
    expect_ok(dls_store_set(a, "x", "one", 3));
    expect_value(b, "x", "one");
    expect_ok(dls_store_set(b, "x", "", 0));
    expect_value(a, "x", "");
    expect_ok(dls_store_check(b, "x", &there));
    cr_assert_eq(there, 1);
    expect_ok(dls_store_add(a, "n", 41, &n));
    expect_ok(dls_store_add(b, "n", -50, &n));
    cr_assert_eq(n, -9);
    expect_value(a, "n", "-9");
    expect_ok(dls_store_compare_set(a, "c", "", "first", now, sizeof now));
    cr_assert_str_eq(now, "first");
    expect_ok(dls_store_compare_set(b, "c", "", "second", now, sizeof now));
    cr_assert_str_eq(now, "first");
    expect_ok(dls_store_compare_set(b, "c", "first", "second", now, sizeof now));
    cr_assert_str_eq(now, "second");
    expect_value(a, "c", "second");
    expect_ok(dls_store_delete(a, "c", &there));
    cr_assert_eq(there, 1);
    expect_ok(dls_store_delete(b, "c", &there));
    cr_assert_eq(there, 0);
}

Test(comm, store_over_tcp_does_every_operation)
{
    dls_store *a = opened("tcp://127.0.0.1:0", 1), *b = opened(dls_store_url(a), 0);
    use_every_operation(a, b);
    dls_store_close(b);
    dls_store_close(a);
}

Test(comm, store_in_a_file_does_every_operation)
{
    const char *url = file_url();
    dls_store *a = opened(url, 0), *b = opened(url, 0);
    use_every_operation(a, b);
    dls_store_close(b);
    dls_store_close(a);
    unlink(url + 7);
}

/* test limits of a store */
static void use_the_limits(dls_store *s)
{
    static char value[DLS_STORE_VALUE + 1], back[DLS_STORE_VALUE];
    char key[DLS_STORE_KEY + 2];
    size_t n = 0;
    int64_t sum;
    memset(key, 'k', sizeof key);
    key[DLS_STORE_KEY + 1] = 0;
    memset(value, 7, sizeof value);
    cr_assert_eq(dls_store_set(s, key, "", 0), DLS_ERR_INPUT);
    cr_assert_eq(dls_store_set(s, "", "", 0), DLS_ERR_INPUT);
    key[DLS_STORE_KEY] = 0;
    cr_assert_eq(dls_store_set(s, key, value, sizeof value), DLS_ERR_INPUT);
    expect_ok(dls_store_set(s, key, value, DLS_STORE_VALUE));
    expect_ok(dls_store_get(s, key, back, sizeof back, &n, 1));
    cr_assert(n == DLS_STORE_VALUE && memcmp(back, value, n) == 0);
    cr_assert_eq(dls_store_get(s, key, back, 10, &n, 1), DLS_ERR_INPUT);
    EXPECT_WORDS(dls_status_message(), "has 1048576 bytes, the buffer 10");
    /* numbers that are none, or too large */
    expect_ok(dls_store_set(s, "t", "12x", 3));
    cr_assert_eq(dls_store_add(s, "t", 1, &sum), DLS_ERR_INPUT);
    EXPECT_WORDS(dls_status_message(), "'t' holds '12x'", "not a number");
    expect_ok(dls_store_add(s, "big", INT64_MAX, &sum));
    cr_assert_eq(dls_store_add(s, "big", 1, &sum), DLS_ERR_INPUT);
    expect_ok(dls_store_add(s, "big", -1, &sum));
    cr_assert_eq(sum, INT64_MAX - 1);
}

Test(comm, store_keeps_its_limits)
{
    const char *url = file_url();
    dls_store *tcp = opened("tcp://127.0.0.1:0", 1), *file = opened(url, 0);
    use_the_limits(tcp);
    use_the_limits(file);
    dls_store_close(tcp);
    dls_store_close(file);
    unlink(url + 7);
}

/* test counting from processes */
static dls_status count_to_fifty(int index, void *url)
{
    dls_store *s;
    int64_t n;
    (void)index;
    DLS_TRY(dls_store_open(url, 0, 5, &s));
    for (int i = 0; i < 50; i++)
        DLS_TRY(dls_store_add(s, "count", 1, &n));
    dls_store_close(s);
    return DLS_OK;
}

static void count_from_processes(dls_store *s)
{
    char url[300];
    snprintf(url, sizeof url, "%s", dls_store_url(s));
    const outcome *o = outcomes_of(6, count_to_fifty, url);
    for (int i = 0; i < 6; i++)
        cr_assert_eq(o[i].status, DLS_OK, "%s", o[i].message);
    expect_value(s, "count", "300");
    dls_store_close(s);
}

Test(comm, store_counts_for_many_processes)
{
    const char *url = file_url();
    count_from_processes(opened("tcp://127.0.0.1:0", 1));
    count_from_processes(opened(url, 0));
    unlink(url + 7);
}

/* test waiting for a key */
/* Process 0 waits for what process 1 sets a little later. */
static dls_status wait_or_set(int index, void *url)
{
    dls_store *s;
    char value[8];
    size_t n;
    DLS_TRY(dls_store_open(url, 0, 5, &s));
    if (index == 0) {
        DLS_TRY(dls_store_get(s, "late", value, sizeof value, &n, 5));
        if (n != 4 || memcmp(value, "here", 4) != 0)
            return DLS_FAIL(DLS_ERR_STATE, "got %.*s", (int)n, value);
    } else {
        usleep(100000);
        DLS_TRY(dls_store_set(s, "late", "here", 4));
    }
    dls_store_close(s);
    return DLS_OK;
}

static void wait_for_a_key(dls_store *s)
{
    char url[300];
    snprintf(url, sizeof url, "%s", dls_store_url(s));
    const outcome *o = outcomes_of(2, wait_or_set, url);
    cr_assert_eq(o[0].status, DLS_OK, "%s", o[0].message);
    cr_assert_eq(dls_store_wait(s, "never", 0.1), DLS_ERR_COMM);
    EXPECT_WORDS(dls_status_message(), url, "nobody has set 'never' within 0.1 s");
    dls_store_close(s);
}

Test(comm, store_waits_for_a_key_and_gives_up)
{
    const char *url = file_url();
    wait_for_a_key(opened("tcp://127.0.0.1:0", 1));
    wait_for_a_key(opened(url, 0));
    unlink(url + 7);
}

/* test a torn file */
Test(comm, store_in_a_file_survives_a_torn_record)
{
    const char *url = file_url(), *path = url + 7;
    struct stat one, two;
    for (int cut = 1;; cut++) {
        int there;
        truncate(path, 0);
        dls_store *s = opened(url, 0);
        expect_ok(dls_store_set(s, "a", "first", 5));
        stat(path, &one);
        expect_ok(dls_store_set(s, "b", "second", 6));
        stat(path, &two);
        dls_store_close(s);
        if (two.st_size - cut <= one.st_size)
            break;
        truncate(path, two.st_size - cut);
        s = opened(url, 0);
        expect_value(s, "a", "first");
        expect_ok(dls_store_check(s, "b", &there));
        cr_assert_eq(there, 0);
        expect_ok(dls_store_set(s, "b", "again", 5));
        dls_store_close(s);
        s = opened(url, 0);
        expect_value(s, "b", "again");
        dls_store_close(s);
    }
    unlink(path);
}

Test(comm, store_leaves_a_strangers_file_alone)
{
    const char *url = file_url(), *path = url + 7;
    char text[32] = "";
    int fd = open(path, O_RDWR);
    cr_assert_eq(write(fd, "dear diary, today", 17), 17);
    dls_store *s = opened(url, 0);
    cr_assert_eq(dls_store_set(s, "a", "b", 1), DLS_ERR_INPUT);
    EXPECT_WORDS(dls_status_message(), "is not a store");
    cr_assert_eq(pread(fd, text, sizeof text, 0), 17);
    cr_assert_str_eq(text, "dear diary, today");
    dls_store_close(s);
    unlink(path);
}

/* test strangers at the port */
static int call(const dls_store *s)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    to.sin_port = htons((uint16_t)atoi(strrchr(dls_store_url(s), ':') + 1));
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    struct timeval limit = {5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

/* Sends the bytes; the server must hang up. */
static void expect_cut_off(dls_store *s, const void *bytes, size_t n)
{
    char byte;
    int64_t sum;
    int fd = call(s);
    cr_assert_eq(send(fd, bytes, n, MSG_NOSIGNAL), (ssize_t)n);
    ssize_t got = recv(fd, &byte, 1, 0);
    cr_assert(got == 0 || (got < 0 && errno == ECONNRESET), "%zd: %s", got,
              strerror(errno));
    close(fd);
    expect_ok(dls_store_add(s, "alive", 1, &sum));
}

Test(comm, store_cuts_off_strangers_and_goes_on)
{
    struct { uint32_t magic; uint8_t op, unused; uint16_t key; uint32_t bytes, expected;
             int64_t delta; uint32_t wait, unused_too; char text[8]; } r;
    dls_log_set_level(DLS_LOG_NONE); // what is logged is expected
    dls_store *s = opened("tcp://127.0.0.1:0", 1);
    int silent = call(s), half = call(s);
    memset(&r, 0, sizeof r);
    r.magic = 0x31534c44, r.op = 1, r.key = 1;
    cr_assert_eq(send(half, &r, 10, 0), 10);
    expect_cut_off(s, "GET / HTTP/1.1\r\n\r\n", 18);
    r.bytes = 0xffffffff;
    expect_cut_off(s, &r, 32);
    r.bytes = 0, r.key = 251;
    expect_cut_off(s, &r, 32);
    r.key = 0;
    expect_cut_off(s, &r, 32);
    r.key = 3, memcpy(r.text, "a\0b", 3);
    expect_cut_off(s, &r, 35);
    r.key = 1, r.op = 99;
    expect_cut_off(s, &r, 33);
    r.op = 1;
    expect_cut_off(s, &r, 35); // more than one request
    close(silent);
    close(half);
    expect_value(s, "alive", "7");
    dls_store_close(s);
}

Test(comm, store_lets_a_rank_in_past_a_silent_crowd)
{
    enum { CROWD = 1000 };
    int fds[CROWD], made = 0;
    dls_store *s = opened("tcp://127.0.0.1:0", 1);
    for (; made < CROWD; made++) {
        int fd = dup(0);
        if (fd < 0)
            break; // the process may not open so many
        close(fd);
        fds[made] = call(s);
    }
    dls_store *late = opened(dls_store_url(s), 0);
    expect_ok(dls_store_set(late, "in", "yes", 3));
    expect_value(s, "in", "yes");
    for (int i = 0; i < made; i++)
        close(fds[i]);
    dls_store_close(late);
    dls_store_close(s);
}

/* test a store that vanishes */
/* Process 0 keeps the store and is killed while process 1 waits for a key. */
static dls_status keep_or_wait(int index, void *port)
{
    dls_store *s;
    char url[64];
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", *(int *)port);
    DLS_TRY(dls_store_open(url, index == 0, 5, &s));
    if (index == 1)
        return dls_store_wait(s, "never", 60);
    usleep(300000);
    raise(SIGKILL);
    return DLS_OK;
}

/* A port that was free a moment ago. */
static int free_port(void)
{
    dls_store *s = opened("tcp://127.0.0.1:0", 1);
    int port = atoi(strrchr(dls_store_url(s), ':') + 1);
    dls_store_close(s);
    return port;
}

Test(comm, store_that_vanishes_is_reported)
{
    int port = free_port();
    const outcome *o = outcomes_of(2, keep_or_wait, &port);
    cr_assert_eq(o[1].status, DLS_ERR_COMM);
    EXPECT_WORDS(o[1].message, "the store at tcp://127.0.0.1:", "is gone: rank 0");
    cr_assert_lt(o[1].seconds, 30.0);
}

Test(comm, store_that_nobody_keeps_is_reported)
{
    dls_store *s;
    char url[64];
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", free_port());
    cr_assert_eq(dls_store_open(url, 0, 0.2, &s), DLS_ERR_COMM);
    EXPECT_WORDS(dls_status_message(), url, "nobody keeps a store there", "0.2 s");
    cr_assert_eq(dls_store_open("tcp://no.such.host.invalid:1", 0, 0.2, &s),
                 DLS_ERR_COMM);
    EXPECT_WORDS(dls_status_message(), "host 'no.such.host.invalid'");
    static const char *const bad[] = {"tcp://a", "tcp://:1", "tcp://a:x", "tcp://a:70000",
                                      "http://a:1", "file://relative", "", "tcp://a:"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(dls_store_open(bad[i], 0, 0.1, &s), DLS_ERR_INPUT, "%s", bad[i]);
}
