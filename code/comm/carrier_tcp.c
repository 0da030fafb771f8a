/* code/comm/carrier_tcp.c: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* The carrier of frames over TCP.
 *
 *   stream: | bytes of the frame (4) | frame | bytes | frame | ...
 *
 * Sockets never block; what they do not take waits in a buffer per peer. */
#include "comm/carrier_tcp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/store_private.h"

/* define the sockets */
enum { IN = 4 * (DLS_FRAME + 64), PEERS = 64 };
enum { HELLO = 0x6f6c6c65 };

typedef struct peer {
    int fd;                     // -1: none, or lost
    char *out, *in;             // bytes that wait to be sent; that have come
    size_t out_first, out_end, out_room, in_count;
} peer;

typedef struct tcp { dls_carrier base; peer peers[PEERS]; } tcp;

typedef struct hello { uint32_t magic, from, to, world; } hello;

static void lose(peer *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
    p->out_first = p->out_end = 0;
}

/* push into a socket */
static void flush_out(peer *p)
{
    while (p->fd >= 0 && p->out_first < p->out_end) {
        ssize_t n = send(p->fd, p->out + p->out_first, p->out_end - p->out_first,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0)
            lose(p);
        else
            p->out_first += (size_t)n;
    }
    p->out_first = p->out_end = 0;
}

static int tcp_push(dls_carrier *c, int to, const void *data, size_t bytes)
{
    peer *p = &((tcp *)c)->peers[to];
    uint32_t size = (uint32_t)bytes;
    if (p->fd < 0)
        return -1;
    if (p->out_first > 0) {
        memmove(p->out, p->out + p->out_first, p->out_end - p->out_first);
        p->out_end -= p->out_first;
        p->out_first = 0;
    }
    if (p->out_end + 4 + bytes > p->out_room) {
        size_t room = 2 * (p->out_end + 4 + bytes);
        char *more = realloc(p->out, room);
        if (!more)
            return -1;
        p->out = more;
        p->out_room = room;
    }
    memcpy(p->out + p->out_end, &size, 4);
    memcpy(p->out + p->out_end + 4, data, bytes);
    p->out_end += 4 + bytes;
    flush_out(p);
    return 0;
}

static size_t tcp_backlog(dls_carrier *c, int to)
{
    const peer *p = &((tcp *)c)->peers[to];
    return p->out_end - p->out_first;
}

/* read from a socket */
static int take_frames(peer *p, int from, dls_deliver *deliver, void *to)
{
    size_t at = 0;
    int came = 0;
    uint32_t size;
    while (p->in_count - at >= 4) {
        memcpy(&size, p->in + at, 4);
        if (size > DLS_FRAME + 64) {
            lose(p);
            return came;
        }
        if (p->in_count - at - 4 < size)
            break;
        deliver(to, from, p->in + at + 4, size);
        at += 4 + size;
        came++;
    }
    p->in_count -= at;
    memmove(p->in, p->in + at, p->in_count);
    return came;
}

static int read_some(peer *p, int from, dls_deliver *deliver, void *to)
{
    int came = 0;
    while (p->fd >= 0) {
        ssize_t n = recv(p->fd, p->in + p->in_count, IN - p->in_count, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n <= 0)
            lose(p);
        else
            p->in_count += (size_t)n;
        came += take_frames(p, from, deliver, to);
    }
    return came;
}

/* poll the sockets */
static int tcp_poll(dls_carrier *c, double seconds, dls_deliver *deliver, void *to)
{
    tcp *t = (tcp *)c;
    struct pollfd polled[PEERS];
    int came = 0, n = 0;
    for (int r = 0; r < c->world; r++) {
        flush_out(&t->peers[r]);
        came += read_some(&t->peers[r], r, deliver, to);
        if (t->peers[r].fd >= 0)
            polled[n++] = (struct pollfd){
                .fd = t->peers[r].fd,
                .events = (short)(POLLIN | (tcp_backlog(c, r) ? POLLOUT : 0))};
    }
    if (came || seconds <= 0)
        return came;
    if (poll(polled, (nfds_t)n, (int)(1e3 * seconds) + 1) > 0)
        return tcp_poll(c, 0, deliver, to);
    return 0;
}

static int tcp_lost(dls_carrier *c, int rank)
{
    return rank != c->rank && ((tcp *)c)->peers[rank].fd < 0;
}

static void tcp_close(dls_carrier *c)
{
    tcp *t = (tcp *)c;
    for (int r = 0; r < c->world; r++) {
        lose(&t->peers[r]);
        free(t->peers[r].out);
        free(t->peers[r].in);
    }
    free(t);
}

/* find our address */
/* The address from which this host reaches `host`; that of a network if there is none. */
static void find_address(const char *host, char out[64])
{
    struct addrinfo wish = {.ai_socktype = SOCK_DGRAM}, *found = NULL;
    struct sockaddr_storage mine;
    socklen_t size = sizeof mine;
    snprintf(out, 64, "127.0.0.1");
    if (getaddrinfo(host, "9", &wish, &found) != 0)
        return;
    int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    /* for a datagram, connecting sends nothing: it only chooses a route */
    if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0 &&
        getsockname(fd, (struct sockaddr *)&mine, &size) == 0)
        getnameinfo((struct sockaddr *)&mine, size, out, 64, NULL, 0, NI_NUMERICHOST);
    if (fd >= 0)
        close(fd);
    freeaddrinfo(found);
}

/* The host part of tcp://HOST:PORT; of a file store, an address far away will do. */
static void host_of(const char *url, char out[128])
{
    const char *from = url + 6, *colon = strrchr(url, ':');
    int bracket = *from == '[';
    if (strncmp(url, "tcp://", 6) != 0)
        snprintf(out, 128, "192.0.2.1");
    else
        snprintf(out, 128, "%.*s", (int)(colon - from) - 2 * bracket, from + bracket);
}

/* call and be called */
static int listen_here(const char *address, char port[8])
{
    struct addrinfo wish = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
    struct addrinfo *a = NULL;
    struct sockaddr_storage mine;
    socklen_t size = sizeof mine;
    if (getaddrinfo(address, "0", &wish, &a) != 0)
        return -1;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (bind(fd, a->ai_addr, a->ai_addrlen) || listen(fd, PEERS) ||
                    getsockname(fd, (struct sockaddr *)&mine, &size) ||
                    getnameinfo((struct sockaddr *)&mine, size, NULL, 0, port, 8,
                                NI_NUMERICSERV))) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(a);
    return fd;
}

static dls_status call_rank(dls_store *store, tcp *t, int to, double seconds)
{
    char key[32], text[80], *space;
    size_t bytes;
    struct addrinfo wish = {.ai_socktype = SOCK_STREAM}, *a = NULL;
    hello h = {HELLO, (uint32_t)t->base.rank, (uint32_t)to, (uint32_t)t->base.world};
    snprintf(key, sizeof key, "address/%d", to);
    DLS_TRY(dls_store_get(store, key, text, sizeof text - 1, &bytes, seconds));
    text[bytes] = 0;
    space = strchr(text, ' ');
    if (!space || (*space = 0, getaddrinfo(text, space + 1, &wish, &a) != 0))
        return DLS_FAIL(DLS_ERR_COMM, "rank %d gave the address '%s'", to, text);
    int fd = dls_store_connect(a, dls_store_clock() + seconds);
    int failed = fd < 0 || send(fd, &h, sizeof h, MSG_NOSIGNAL) != (ssize_t)sizeof h;
    freeaddrinfo(a);
    t->peers[to].fd = fd;
    if (failed)
        return DLS_FAIL(DLS_ERR_COMM, "rank %d cannot reach rank %d at %s port %s: %s",
                        t->base.rank, to, text, space + 1, strerror(errno));
    return DLS_OK;
}

/* Takes a call; a stranger's is closed. */
static void answer_call(tcp *t, int listener)
{
    hello h = {0};
    struct timeval limit = {1, 0};
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ssize_t n = recv(fd, &h, sizeof h, MSG_WAITALL);
    if (n == (ssize_t)sizeof h && h.magic == HELLO && h.to == (uint32_t)t->base.rank &&
        h.world == (uint32_t)t->base.world && h.from > h.to && h.from < h.world &&
        t->peers[h.from].fd < 0)
        t->peers[h.from].fd = fd;
    else
        close(fd);
}

static dls_status await_calls(tcp *t, int listener, double until)
{
    for (int r = t->base.rank + 1; r < t->base.world;) {
        struct pollfd p = {.fd = listener, .events = POLLIN};
        double left = until - dls_store_clock();
        if (t->peers[r].fd >= 0) {
            r++;
            continue;
        }
        if (left <= 0)
            return DLS_FAIL(DLS_ERR_COMM, "rank %d waits in vain for a connection from "
                            "rank %d; can its host reach this one?", t->base.rank, r);
        if (poll(&p, 1, (int)(1e3 * left) + 1) > 0)
            answer_call(t, listener);
    }
    return DLS_OK;
}

/* connect all pairs */
static dls_status connect_all(dls_store *store, tcp *t, double seconds)
{
    char host[128], address[64], port[8], key[32], text[80];
    double until = dls_store_clock() + seconds;
    dls_status status = DLS_OK;
    host_of(dls_store_url(store), host);
    find_address(host, address);
    int listener = listen_here(address, port);
    if (listener < 0)
        return DLS_FAIL(DLS_ERR_COMM, "rank %d cannot listen at %s: %s", t->base.rank,
                        address, strerror(errno));
    snprintf(key, sizeof key, "address/%d", t->base.rank);
    snprintf(text, sizeof text, "%s %s", address, port);
    DLS_TRY_GOTO(status, dls_store_set(store, key, text, strlen(text)), done);
    for (int r = 0; r < t->base.rank; r++)
        DLS_TRY_GOTO(status, call_rank(store, t, r, until - dls_store_clock()), done);
    DLS_TRY_GOTO(status, await_calls(t, listener, until), done);
done:
    close(listener);
    return status;
}

dls_status dls_carrier_tcp(dls_store *store, int rank, int world, double seconds,
                           dls_carrier **out)
{
    int yes = 1;
    tcp *t = world <= PEERS ? calloc(1, sizeof *t) : NULL;
    if (!t)
        return DLS_FAIL(DLS_ERR_INPUT, "%d ranks over tcp: expected at most %d", world,
                        PEERS);
    t->base = (dls_carrier){rank, world, tcp_push, tcp_backlog, tcp_poll, tcp_lost,
                            tcp_close};
    for (int r = 0; r < world; r++)
        t->peers[r].fd = -1;
    dls_status status = connect_all(store, t, seconds);
    for (int r = 0; r < world && status == DLS_OK; r++) {
        setsockopt(t->peers[r].fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        if (!(t->peers[r].in = malloc(IN)))
            status = DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d connections", world);
    }
    if (status == DLS_OK)
        *out = &t->base;
    else
        tcp_close(&t->base);
    return status;
}
