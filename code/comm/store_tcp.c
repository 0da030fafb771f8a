/* code/comm/store_tcp.c: from chapters/04-data-parallelism-rendezvous.md. Edit the chapter, or edit here and run "make untangle". */
/* The client of a tcp store, and rank 0's, which brings the server along. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/store_wire.h"

/* define a tcp store */
typedef struct tcp_store {
    dls_store base;
    int fd;
    dls_store_server *server; // rank 0's
    char *value;              // of the last answer
    char failure[400];        // what went wrong; ""
} tcp_store;

enum { LATE_SECONDS = 5 };    // what the server may take beyond the caller's limit

/* move bytes before a deadline */
static dls_status wait_for(const tcp_store *t, short events, double until)
{
    struct pollfd p = {.fd = t->fd, .events = events};
    for (;;) {
        double left = until - dls_store_clock();
        int n = left > 0 ? poll(&p, 1, (int)(1e3 * left) + 1) : 0;
        if (n > 0)
            return DLS_OK;
        if (n == 0)
            return DLS_FAIL(DLS_ERR_COMM, "the store at %s does not answer; is rank 0 "
                            "stopped?", t->base.url);
        if (errno != EINTR)
            return DLS_FAIL(DLS_ERR_IO, "poll: %s", strerror(errno));
    }
}

static dls_status move(const tcp_store *t, int out, void *data, size_t bytes,
                       double until)
{
    for (size_t done = 0; done < bytes;) {
        DLS_TRY(wait_for(t, out ? POLLOUT : POLLIN, until));
        char *at = (char *)data + done;
        ssize_t n = out ? send(t->fd, at, bytes - done, MSG_NOSIGNAL | MSG_DONTWAIT)
                        : recv(t->fd, at, bytes - done, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return DLS_FAIL(DLS_ERR_COMM, "the store at %s is gone: rank 0, which keeps "
                            "it, has ended", t->base.url);
        done += n > 0 ? (size_t)n : 0;
    }
    return DLS_OK;
}

/* ask over tcp */
static dls_status send_request(const tcp_store *t, const dls_store_request *r,
                               double seconds, double until)
{
    size_t key = strlen(r->key);
    dls_store_ask head = {.magic = DLS_STORE_MAGIC, .op = (uint8_t)r->op,
                          .key = (uint16_t)key, .bytes = (uint32_t)r->bytes,
                          .expected = (uint32_t)r->expected_bytes, .delta = r->delta,
                          .milliseconds = (uint32_t)(1e3 * seconds)};
    DLS_TRY(move(t, 1, &head, sizeof head, until));
    DLS_TRY(move(t, 1, (void *)r->key, key, until));
    DLS_TRY(move(t, 1, (void *)r->value, r->bytes, until));
    return move(t, 1, (void *)r->expected, r->expected_bytes, until);
}

static dls_status read_reply(tcp_store *t, dls_store_reply *head, double until)
{
    DLS_TRY(move(t, 0, head, sizeof *head, until));
    if (head->magic != DLS_STORE_MAGIC || head->bytes > DLS_STORE_VALUE)
        return DLS_FAIL(DLS_ERR_COMM, "what listens at %s is no store of ours; another "
                        "program has this port", t->base.url);
    free(t->value);
    t->value = malloc(head->bytes + 1);
    if (!t->value)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for an answer of the store");
    t->value[head->bytes] = 0;
    return move(t, 0, t->value, head->bytes, until);
}

static dls_status ask_tcp(dls_store *store, const dls_store_request *r, double seconds,
                          dls_store_answer *answer)
{
    tcp_store *t = (tcp_store *)store;
    dls_store_reply head;
    double until = dls_store_clock() + seconds + LATE_SECONDS;
    if (t->failure[0])
        return DLS_FAIL(DLS_ERR_COMM, "%s", t->failure);
    dls_status status = send_request(t, r, seconds, until);
    if (status == DLS_OK)
        status = read_reply(t, &head, until);
    if (status != DLS_OK) {
        snprintf(t->failure, sizeof t->failure, "%s", dls_status_message());
        return status;
    }
    if (head.status == DLS_STORE_TIMED_OUT)
        return DLS_FAIL(DLS_ERR_COMM, "%s: nobody has set '%s' within %g s", store->url,
                        r->key, seconds);
    if (head.status != DLS_STORE_FINE)
        return DLS_FAIL(DLS_ERR_INPUT, "%s", t->value);
    *answer = (dls_store_answer){.ready = 1, .number = head.number, .value = t->value,
                                 .bytes = head.bytes};
    return DLS_OK;
}

/* connect to the server */
static int milliseconds_until(double time)
{
    double left = time - dls_store_clock();
    return left > 0 ? (int)(1e3 * left) + 1 : 0; // less than 0: for ever
}

int dls_store_connect(const struct addrinfo *a, double until)
{
    int yes = 1, error = 0;
    socklen_t size = sizeof error;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        error = errno;
        if (error == EINPROGRESS)
            error = poll(&p, 1, milliseconds_until(until)) > 0
                        ? getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size), error
                        : ETIMEDOUT;
    }
    if (error) {
        close(fd);
        errno = error;
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

static dls_status connect_to(tcp_store *t, const char *host, const char *port,
                             double seconds)
{
    struct addrinfo wish = {.ai_socktype = SOCK_STREAM}, *found;
    double until = dls_store_clock() + seconds;
    int why = 0, unknown = getaddrinfo(host, port, &wish, &found);
    if (unknown)
        return DLS_FAIL(DLS_ERR_COMM, "%s: host '%s': %s", t->base.url, host,
                        gai_strerror(unknown));
    do {
        for (struct addrinfo *a = found; a && t->fd < 0; a = a->ai_next)
            if ((t->fd = dls_store_connect(a, until)) < 0)
                why = errno;
        if (t->fd < 0)
            usleep(20000);
    } while (t->fd < 0 && dls_store_clock() < until);
    freeaddrinfo(found);
    if (t->fd < 0)
        return DLS_FAIL(DLS_ERR_COMM, "%s: nobody keeps a store there (tried for %g s: "
                        "%s); is rank 0 running, and is this its host?", t->base.url,
                        seconds, strerror(why));
    return DLS_OK;
}

/* open and close a tcp store */
static void close_tcp(dls_store *store)
{
    tcp_store *t = (tcp_store *)store;
    if (t->fd >= 0)
        close(t->fd);
    if (t->server)
        dls_store_stop(t->server);
    free(t->value);
    free(t);
}

dls_status dls_store_tcp_open(const char *url, const char *host, const char *port,
                              int serve, double seconds, dls_store **out)
{
    char number[16];
    int chosen = atoi(port), bare = !strchr(host, ':');
    dls_status status = DLS_OK;
    tcp_store *t = calloc(1, sizeof *t);
    if (!t)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a store");
    t->base = (dls_store){.ask = ask_tcp, .close = close_tcp, .keeps = serve};
    t->fd = -1;
    snprintf(t->base.url, sizeof t->base.url, "%s", url);
    if (serve)
        DLS_TRY_GOTO(status, dls_store_serve(url, host, port, &chosen, &t->server), fail);
    snprintf(number, sizeof number, "%d", chosen);
    snprintf(t->base.url, sizeof t->base.url, bare ? "tcp://%.128s:%d"
                                                   : "tcp://[%.128s]:%d", host, chosen);
    DLS_TRY_GOTO(status, connect_to(t, host, number, seconds), fail);
    *out = &t->base;
    return DLS_OK;
fail:
    close_tcp(&t->base);
    return status;
}
