/* code/comm/store_server.c: from chapters/04-data-parallelism-rendezvous.md. Edit the chapter, or edit here and run "make untangle". */
/* The server of a tcp store: one thread, one poll loop, one table.
 *
 *   reading a request -> applied -> answered -> reading
 *                   \-> key missing: waits for it, or for its time limit
 *
 * Strangers are expected: the port is open to the network. Who does not speak the
 * protocol is cut off with one line in the log; nobody else notices. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "comm/store_wire.h"

/* define the server */
enum { CALLERS = 1024, LINES = 20 }; // lines of complaint in the log

typedef struct caller {
    int fd;
    char who[INET6_ADDRSTRLEN + 8];
    unsigned char *in, *out;      // what has come; an answer under way, or NULL
    size_t got, room, needed;     // needed: of the request at the start of `in`
    size_t out_bytes, out_sent;
    int waits, served;            // for a key; 1: has had an answer
    double until;                 // when a wait ends
    dls_store_request request;    // points into `in`
} caller;

struct dls_store_server {
    int listener, wake[2], callers, complaints;
    pthread_t thread;
    dls_store_table *table;
    caller *caller[CALLERS];
};

/* let a caller go */
static void let_go(dls_store_server *s, int i)
{
    caller *c = s->caller[i];
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
    s->caller[i] = s->caller[--s->callers];
}

/* For DLS_TRY-like use in the reading functions: always -1. */
static int refuse(dls_store_server *s, const caller *c, const char *why)
{
    if (s->complaints++ < LINES)
        dls_log(DLS_LOG_WARN, "rendezvous: %s sent %s; connection closed", c->who, why);
    return -1;
}

/* answer a caller */
/* Sends what the socket takes; 0, or -1: the caller is gone. */
static int send_some(caller *c)
{
    ssize_t n = send(c->fd, c->out + c->out_sent, c->out_bytes - c->out_sent,
                     MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    c->out_sent += (size_t)n;
    if (c->out_sent < c->out_bytes)
        return 0;
    free(c->out);
    c->out = NULL;
    return 0;
}

static int answer(caller *c, uint32_t status, int64_t number, const void *value,
                  size_t bytes)
{
    dls_store_reply head = {DLS_STORE_MAGIC, status, number, (uint32_t)bytes, 0};
    c->out_bytes = sizeof head + bytes;
    c->out_sent = 0;
    c->out = malloc(c->out_bytes);
    if (!c->out)
        return -1;
    memcpy(c->out, &head, sizeof head);
    if (bytes)
        memcpy(c->out + sizeof head, value, bytes);
    /* forget the request */
    c->got -= c->needed;
    memmove(c->in, c->in + c->needed, c->got);
    c->needed = 0;
    c->waits = 0;
    c->served = 1;
    return send_some(c);
}

/* serve a request */
/* 0, or -1: to be let go. *changed: others may go on. */
static int serve(dls_store_server *s, caller *c, int *changed)
{
    dls_store_answer a;
    dls_status status = dls_store_apply(s->table, &c->request, &a);
    if (status != DLS_OK)
        return answer(c, DLS_STORE_REFUSED, 0, dls_status_message(),
                      strlen(dls_status_message()));
    *changed |= a.changed;
    if (a.ready)
        return answer(c, DLS_STORE_FINE, a.number, a.value, a.bytes);
    c->waits = 1;
    return dls_store_clock() < c->until ? 0 : answer(c, DLS_STORE_TIMED_OUT, 0, NULL, 0);
}

static void serve_those_who_wait(dls_store_server *s, int table_changed)
{
    for (int i = s->callers - 1; i >= 0; i--) {
        caller *c = s->caller[i];
        int ignored = 0;
        if (c->waits && (table_changed || dls_store_clock() >= c->until) &&
            serve(s, c, &ignored) != 0)
            let_go(s, i);
    }
}

/* read from a caller */
/* 1: a whole request; 0: not yet; -1: no request of ours. */
static int parse(dls_store_server *s, caller *c)
{
    dls_store_ask head;
    if (c->got < sizeof head)
        return c->got >= 4 && memcmp(c->in, "DLS1", 4) != 0
                   ? refuse(s, c, "no request of a store") : 0;
    memcpy(&head, c->in, sizeof head);
    if (head.magic != DLS_STORE_MAGIC)
        return refuse(s, c, "no request of a store");
    if (head.op == 0 || head.op >= DLS_STORE_OPS)
        return refuse(s, c, "an unknown request");
    if (head.key == 0 || head.key > DLS_STORE_KEY || head.bytes > DLS_STORE_VALUE ||
        head.expected > DLS_STORE_VALUE)
        return refuse(s, c, "a key or a value that is too long");
    c->needed = sizeof head + head.key + head.bytes + head.expected;
    if (c->got < c->needed)
        return 0;
    unsigned char *key = c->in + sizeof head;
    if (memchr(key, 0, head.key))
        return refuse(s, c, "a key with a zero byte");
    /* fill in the request */
    c->request = (dls_store_request){.op = head.op, .value = key + head.key,
                                     .bytes = head.bytes, .delta = head.delta,
                                     .expected = key + head.key + head.bytes,
                                     .expected_bytes = head.expected};
    memcpy(c->request.key, key, head.key);
    c->until = dls_store_clock() + 1e-3 * head.milliseconds;
    return 1;
}

static int make_room(caller *c)
{
    size_t wanted = c->needed > 512 ? c->needed : 512;
    if (c->got < c->room)
        return 0;
    wanted = wanted > c->room ? wanted : 2 * c->room; // more than one request
    unsigned char *in = realloc(c->in, wanted);
    if (!in)
        return -1;
    c->in = in;
    c->room = wanted;
    return 0;
}

/* 0, or -1: to be let go. */
static int read_some(dls_store_server *s, caller *c, int *changed)
{
    if (make_room(c) != 0)
        return -1;
    ssize_t n = recv(c->fd, c->in + c->got, c->room - c->got, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        return -1;
    c->got += n > 0 ? (size_t)n : 0;
    int whole = parse(s, c);
    if (whole <= 0)
        return whole;
    return c->got > c->needed ? refuse(s, c, "a request before the last one's answer")
                              : serve(s, c, changed);
}

/* take in a caller */
static void name_caller(caller *c, const struct sockaddr_storage *address, socklen_t size)
{
    char host[INET6_ADDRSTRLEN] = "?", port[8] = "?";
    getnameinfo((const struct sockaddr *)address, size, host, sizeof host, port,
                sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(c->who, sizeof c->who, "%s:%s", host, port);
}

static void take_in(dls_store_server *s)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    int fd = accept4(s->listener, (struct sockaddr *)&address, &size, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    for (int i = 0; i < s->callers && s->callers == CALLERS; i++)
        if (!s->caller[i]->served)
            let_go(s, i);
    caller *c = s->callers < CALLERS ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        close(fd);
        return;
    }
    c->fd = fd;
    name_caller(c, &address, size);
    s->caller[s->callers++] = c;
}

/* run the server */
static int milliseconds_to_sleep(const dls_store_server *s)
{
    double first = 1e9, now = dls_store_clock();
    for (int i = 0; i < s->callers; i++)
        if (s->caller[i]->waits && s->caller[i]->until < first)
            first = s->caller[i]->until;
    return first == 1e9 ? -1 : first <= now ? 0 : (int)(1e3 * (first - now)) + 1;
}

/* What a caller's socket is asked for: a caller has one request under way at a time. */
static short events_of(const caller *c)
{
    return c->out ? POLLOUT : c->waits ? POLLRDHUP : POLLIN;
}

static int handle(dls_store_server *s, caller *c, short events, int *changed)
{
    if (events & (POLLERR | POLLHUP | POLLNVAL | POLLRDHUP) && !(events & POLLIN))
        return -1;
    if (events & POLLOUT)
        return send_some(c);
    return events & POLLIN ? read_some(s, c, changed) : 0;
}

static void *run_server(void *arg)
{
    static struct pollfd polled[CALLERS + 2]; // a process serves one store
    dls_store_server *s = arg;
    for (;;) {
        int n = s->callers, changed = 0;
        polled[0] = (struct pollfd){.fd = s->wake[0], .events = POLLIN};
        polled[1] = (struct pollfd){.fd = s->listener, .events = POLLIN};
        for (int i = 0; i < n; i++)
            polled[i + 2] = (struct pollfd){.fd = s->caller[i]->fd,
                                            .events = events_of(s->caller[i])};
        if (poll(polled, (nfds_t)n + 2, milliseconds_to_sleep(s)) < 0 && errno != EINTR)
            return NULL;
        if (polled[0].revents)
            return NULL;
        for (int i = n - 1; i >= 0; i--) // let_go moves the last one into the gap
            if (polled[i + 2].revents &&
                handle(s, s->caller[i], polled[i + 2].revents, &changed) != 0)
                let_go(s, i);
        serve_those_who_wait(s, changed);
        if (polled[1].revents & POLLIN)
            take_in(s);
    }
}

/* start and stop the server */
static int is_loopback(const char *host)
{
    return strcmp(host, "127.0.0.1") == 0 || strcmp(host, "localhost") == 0 ||
           strcmp(host, "::1") == 0;
}

/* A listening socket, or -1 with errno. */
static int listen_at(const char *host, const char *port)
{
    struct addrinfo wish = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *found;
    int yes = 1, fd = -1, error = EADDRNOTAVAIL;
    if (getaddrinfo(is_loopback(host) ? host : NULL, port, &wish, &found) != 0)
        return errno = error, -1;
    for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 512) != 0) {
            error = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    errno = error;
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    char port[8] = "0";
    getsockname(fd, (struct sockaddr *)&address, &size);
    getnameinfo((struct sockaddr *)&address, size, NULL, 0, port, sizeof port,
                NI_NUMERICSERV);
    return atoi(port);
}

static int start_thread(dls_store_server *s)
{
    sigset_t all, before;
    sigfillset(&all); // signals are for the program's own threads
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&s->thread, NULL, run_server, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

dls_status dls_store_serve(const char *url, const char *host, const char *port,
                           int *chosen, dls_store_server **out)
{
    int fd = listen_at(host, port);
    if (fd < 0 && errno == EADDRINUSE)
        return DLS_FAIL(DLS_ERR_COMM, "%s: port %s is in use on this host, by another "
                        "job perhaps; choose another port", url, port);
    if (fd < 0)
        return DLS_FAIL(DLS_ERR_COMM, "%s: cannot listen there: %s", url,
                        strerror(errno));
    dls_store_server *s = calloc(1, sizeof *s);
    s = s ? s : (close(fd), NULL);
    if (!s || !(s->table = dls_store_table_create()) || pipe2(s->wake, O_CLOEXEC) != 0)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a store");
    s->listener = fd;
    *chosen = port_of(fd);
    if (start_thread(s) != 0)
        return DLS_FAIL(DLS_ERR_MEMORY, "no thread for a store");
    *out = s;
    return DLS_OK;
}

void dls_store_stop(dls_store_server *s)
{
    if (write(s->wake[1], "", 1) == 1)
        pthread_join(s->thread, NULL);
    while (s->callers)
        let_go(s, 0);
    close(s->listener);
    close(s->wake[0]);
    close(s->wake[1]);
    dls_store_table_destroy(s->table);
    free(s);
}
