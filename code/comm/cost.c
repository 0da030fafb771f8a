/* code/comm/cost.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* The cost of an algorithm, by playing all ranks in one process. See cost.h. */
#include "comm/cost.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* keep messages between ranks */
typedef struct letter { double departure; int next; } letter;

typedef struct actor {
    dls_step step;
    int k, open, over;
    double now, free;
    uint64_t steps, bytes;
} actor;

typedef struct play {
    const dls_algorithm *algorithm;
    dls_shape shape;
    const dls_link *links;
    size_t bytes;       // of an element
    actor *actor;       // [world]
    int *first, *last;  // [world * world]: letters of a pair; -1: none
    letter *letter;
    int letters, room;
} play;

/* 0: no memory. */
static int post(play *p, int from, int to, double departure)
{
    int pair = from * p->shape.world + to;
    if (p->letters == p->room) {
        int room = p->room ? 2 * p->room : 256;
        letter *more = realloc(p->letter, (size_t)room * sizeof *more);
        if (!more)
            return 0;
        p->letter = more;
        p->room = room;
    }
    p->letter[p->letters] = (letter){departure, -1};
    if (p->first[pair] < 0)
        p->first[pair] = p->letters;
    else
        p->letter[p->last[pair]].next = p->letters;
    p->last[pair] = p->letters++;
    return 1;
}

/* let a rank take its step */
static int begin(play *p, int r)
{
    actor *a = &p->actor[r];
    double departure[DLS_COMM_RANKS];
    p->shape.rank = r;
    if (!p->algorithm->steps(&p->shape, a->k, &a->step))
        return a->over = 1;
    a->open = 1;
    a->free = dls_departures(p->links, p->shape.world, r, &a->step, p->bytes, a->now,
                             departure);
    for (int i = 0; i < a->step.sends; i++) {
        if (!post(p, r, a->step.send[i].peer, departure[i]))
            return -1;
        a->bytes += a->step.send[i].count * p->bytes;
    }
    return 1;
}


/* 1: rank r moved on; 0: it can not; -1: no memory. */
static int move_on(play *p, int r)
{
    actor *a = &p->actor[r];
    double departure[DLS_COMM_RANKS], arrival[DLS_COMM_RANKS];
    int n = p->shape.world;
    if (a->over)
        return 0;
    if (!a->open)
        return begin(p, r);
    for (int i = 0; i < a->step.receives; i++)
        if (p->first[a->step.receive[i].peer * n + r] < 0)
            return 0;
    for (int i = 0; i < a->step.receives; i++) {
        int *first = &p->first[a->step.receive[i].peer * n + r];
        departure[i] = p->letter[*first].departure;
        *first = p->letter[*first].next;
    }
    a->now = dls_arrivals(p->links, n, r, &a->step, p->bytes, a->now, departure, arrival);
    a->now = a->free > a->now ? a->free : a->now;
    a->steps += a->step.sends + a->step.receives > 0;
    a->k++;
    a->open = 0;
    return 1;
}

/* let all ranks go on */
static dls_status perform(play *p)
{
    int n = p->shape.world;
    for (int moved = 1; moved;) {
        moved = 0;
        for (int r = 0; r < n; r++)
            for (int rc; (rc = move_on(p, r)) != 0; moved = 1)
                if (rc < 0)
                    return DLS_FAIL(DLS_ERR_MEMORY, "no memory to simulate %d ranks", n);
    }
    for (int r = 0; r < n; r++)
        if (!p->actor[r].over)
            return DLS_FAIL(DLS_ERR_STATE, "the %s algorithm of %d ranks: rank %d waits "
                            "in step %d", p->algorithm->name, n, r, p->actor[r].k);
    for (int i = 0; i < n * n; i++)
        if (p->first[i] >= 0)
            return DLS_FAIL(DLS_ERR_STATE, "the %s algorithm of %d ranks: rank %d sends "
                            "what rank %d does not receive", p->algorithm->name, n, i / n,
                            i % n);
    return DLS_OK;
}

static void sum_up(const play *p, double *finish, dls_cost *out)
{
    *out = (dls_cost){0};
    for (int r = 0; r < p->shape.world; r++) {
        const actor *a = &p->actor[r];
        if (finish)
            finish[r] = a->now;
        out->seconds = a->now > out->seconds ? a->now : out->seconds;
        out->steps = a->steps > out->steps ? a->steps : out->steps;
        out->bytes = a->bytes > out->bytes ? a->bytes : out->bytes;
        out->all_bytes += a->bytes;
    }
}

dls_status dls_cost_of(const dls_algorithm *algorithm, const dls_shape *shape,
                       const dls_link *links, size_t bytes, double *finish,
                       dls_cost *out)
{
    size_t n = (size_t)shape->world;
    play p = {.algorithm = algorithm, .shape = *shape, .links = links, .bytes = bytes,
              .actor = calloc(n, sizeof(actor)), .first = malloc(n * n * sizeof(int)),
              .last = malloc(n * n * sizeof(int))};
    dls_status status = DLS_ERR_MEMORY;
    if (p.actor && p.first && p.last) {
        memset(p.first, -1, n * n * sizeof(int));
        status = perform(&p);
        sum_up(&p, finish, out);
    }
    free(p.actor);
    free(p.first);
    free(p.last);
    free(p.letter);
    return status;
}

/* choose the size of a piece */
enum { CHAIN_BLOCK = 128 << 10 }; // bytes

size_t dls_cost_block(const dls_algorithm *algorithm, const dls_shape *shape,
                      const dls_link *links, size_t bytes)
{
    double alpha = 1e-9, beta = 0, depth = ceil(log2(shape->world + 1.0));
    if (algorithm->steps != dls_double_tree_all_reduce)
        return CHAIN_BLOCK / bytes;
    for (int i = 0; i < shape->world * shape->world; i++) {
        alpha = links[i].alpha > alpha ? links[i].alpha : alpha;
        beta = links[i].beta > beta ? links[i].beta : beta;
    }
    double all = (double)(shape->count * bytes);
    double pieces = round(sqrt((2 * depth - 1) * beta * all / (2 * alpha)));
    size_t half = (shape->count + 1) / 2, count = pieces > 1 ? (size_t)pieces : 1;
    return half > count ? (half + count - 1) / count : 1;
}
