/* tests/comm/test_steps.c: from chapters/04-data-parallelism-collectives-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Every algorithm as a pure function: all ranks played in one process. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "comm/collectives.h"

/* remember where elements come from */
typedef struct element {
    uint64_t from, expression; // bit r: rank r is in it; a hash
    uint32_t index, divided;   // in the input of those ranks; how often
} element;

static element combined(element a, element b, const char *name)
{
    cr_assert(a.from && b.from, "%s combines what was never set", name);
    cr_assert_eq(a.from & b.from, 0, "%s: a contribution counts twice", name);
    cr_assert_eq(a.index, b.index, "%s combines elements %u and %u", name, a.index,
                 b.index);
    cr_assert(!a.divided && !b.divided, "%s combines after dividing", name);
    element sum = {.from = a.from | b.from, .index = a.index};
    sum.expression = (a.expression * 0x9e3779b97f4a7c15u) ^ (b.expression >> 7) ^
                     (b.expression * 0x2545f4914f6cdd1du);
    return sum;
}

typedef struct letter { struct letter *next; size_t count; element data[]; } letter;

enum { MOST = 64 };

typedef struct rank {
    element *place[DLS_PLACES];
    size_t size[DLS_PLACES];
    int k, open, over;
    dls_step step;
} rank;

static rank ranks[MOST];
static letter *box[MOST][MOST], *last[MOST][MOST];

/* deliver messages */
static element *at(const rank *r, int place, size_t first, size_t count, const char *name)
{
    cr_assert(first + count <= r->size[place], "%s: [%zu, %zu) of %zu in place %d", name,
              first, first + count, r->size[place], place);
    return r->place[place] + first;
}

static int overlap(const element *a, size_t n, const element *b, size_t m)
{
    return n && m && a < b + m && b < a + n;
}

static void check_step(const rank *r, const char *name)
{
    const dls_step *s = &r->step;
    for (int i = 0; i < s->receives; i++) {
        const dls_move *in = &s->receive[i];
        element *into = at(r, in->place, in->first, in->count, name);
        cr_assert(in->place != DLS_IN, "%s writes into the input", name);
        for (int j = 0; j < s->sends; j++)
            cr_assert(!overlap(into, in->count, at(r, s->send[j].place, s->send[j].first,
                                                   s->send[j].count, name),
                               s->send[j].count), "%s receives where it sends", name);
        for (int j = 0; j < i; j++)
            cr_assert(!overlap(into, in->count,
                               r->place[s->receive[j].place] + s->receive[j].first,
                               s->receive[j].count) ||
                          (in->how && s->receive[j].how &&
                           in->first == s->receive[j].first),
                      "%s receives twice into one range", name);
    }
}


static void send(const rank *r, int me, const dls_move *m, const char *name)
{
    const element *from = at(r, m->place, m->first, m->count, name);
    letter *l = malloc(sizeof *l + m->count * sizeof(element));
    *l = (letter){NULL, m->count};
    memcpy(l->data, from, m->count * sizeof *from);
    for (size_t i = 0; i < m->count; i++)
        cr_assert(l->data[i].from, "%s sends what was never set", name);
    cr_assert(m->peer != me && m->peer >= 0);
    if (box[me][m->peer])
        last[me][m->peer]->next = l;
    else
        box[me][m->peer] = l;
    last[me][m->peer] = l;
}

static void receive(const rank *r, int me, const dls_move *m, const char *name)
{
    letter *l = box[m->peer][me];
    element *into = at(r, m->place, m->first, m->count, name);
    const element *own = at(r, m->own_place, m->own_first, m->how ? m->count : 0, name);
    box[m->peer][me] = l->next;
    cr_assert_eq(l->count, m->count, "%s: %zu elements sent, %zu expected", name,
                 l->count, m->count);
    for (size_t i = 0; i < m->count; i++) {
        into[i] = m->how == DLS_STORE ? l->data[i]
                  : m->how == DLS_OWN_FIRST ? combined(own[i], l->data[i], name)
                                            : combined(l->data[i], own[i], name);
        into[i].divided += m->finish;
    }
    free(l);
}

/* play an operation */
static int go_on(const dls_algorithm *a, dls_shape *shape, int me)
{
    rank *r = &ranks[me];
    shape->rank = me;
    if (!r->open) {
        if (!a->steps(shape, r->k, &r->step)) {
            r->over = 1;
            return 1;
        }
        for (int i = 0; i < r->step.copies; i++) {
            const dls_copy *c = &r->step.copy[i];
            memmove(at(r, c->to, c->to_first, c->count, a->name),
                    at(r, c->from, c->from_first, c->count, a->name),
                    c->count * sizeof(element));
        }
        check_step(r, a->name);
        for (int i = 0; i < r->step.sends; i++)
            send(r, me, &r->step.send[i], a->name);
        r->open = 1;
    }
    for (int i = 0; i < r->step.receives; i++)
        if (!box[r->step.receive[i].peer][me])
            return 0;
    for (int i = 0; i < r->step.receives; i++)
        receive(r, me, &r->step.receive[i], a->name);
    r->k++;
    r->open = 0;
    return 1;
}

static void play(const dls_algorithm *a, dls_shape shape)
{
    for (int moved = 1; moved;) {
        moved = 0;
        for (int r = 0; r < shape.world; r++)
            while (!ranks[r].over && go_on(a, &shape, r))
                moved = 1;
    }
    for (int r = 0; r < shape.world; r++) {
        cr_assert(ranks[r].over, "%s, %d ranks: rank %d waits in step %d", a->name,
                  shape.world, r, ranks[r].k);
        for (int s = 0; s < shape.world; s++)
            cr_assert(!box[r][s], "%s, %d ranks: rank %d sends too much", a->name,
                      shape.world, r);
    }
}

/* fill and check */
enum { IN_PLACE = 1 };

/* How many blocks of `count` a rank's input and output have. */
static void sizes(dls_message_kind kind, int n, int is_root, int *in, int *out)
{
    int gives = kind == DLS_MESSAGE_REDUCE_SCATTER || kind == DLS_MESSAGE_ALL_TO_ALL ||
                (kind == DLS_MESSAGE_SCATTER && is_root);
    int takes = kind == DLS_MESSAGE_ALL_GATHER || kind == DLS_MESSAGE_ALL_TO_ALL ||
                (kind == DLS_MESSAGE_GATHER && is_root);
    *in = gives ? n : kind == DLS_MESSAGE_SCATTER ? 0 : 1;
    *out = takes ? n : kind == DLS_MESSAGE_GATHER ? 0 : 1;
}

static int is_one_buffer(dls_message_kind kind)
{
    return kind == DLS_MESSAGE_ALL_REDUCE || kind == DLS_MESSAGE_BROADCAST ||
           kind == DLS_MESSAGE_REDUCE;
}

static void fill(const dls_algorithm *a, dls_shape shape, int how)
{
    for (int me = 0; me < shape.world; me++) {
        rank *r = &ranks[me];
        int in, out, is_root = me == shape.root, one = is_one_buffer(a->kind);
        size_t c = shape.count, mine = (size_t)me * c;
        shape.rank = me;
        sizes(a->kind, shape.world, is_root, &in, &out);
        *r = (rank){.size = {(size_t)in * c, (size_t)out * c,
                             a->scratch ? a->scratch(&shape) : 0}};
        for (int p = 0; p < DLS_PLACES; p++)
            r->place[p] = calloc(r->size[p] + 1, sizeof(element));
        if (one || (how == IN_PLACE && in <= out && in + out > 1))
            free(r->place[DLS_IN]),
                r->place[DLS_IN] = r->place[DLS_OUT] + (one ? 0 : mine);
        else if (how == IN_PLACE && in > out && out)
            free(r->place[DLS_OUT]), r->place[DLS_OUT] = r->place[DLS_IN] + mine;
        for (size_t i = 0; i < r->size[DLS_IN]; i++)
            r->place[DLS_IN][i] = (element){
                (uint64_t)1 << me, (uint64_t)(me + 1) * 77 + i, (uint32_t)i, 0};
    }
}

static element expected(const dls_algorithm *a, const dls_shape *shape, int me, size_t i)
{
    size_t c = shape->count, block = i / c, mine = (size_t)me * c;
    uint64_t all = shape->world == 64 ? ~(uint64_t)0 : ((uint64_t)1 << shape->world) - 1;
    switch (a->kind) {
    case DLS_MESSAGE_BROADCAST: return (element){(uint64_t)1 << shape->root, 0, i, 0};
    case DLS_MESSAGE_REDUCE_SCATTER: return (element){all, 0, (uint32_t)(mine + i), 1};
    case DLS_MESSAGE_ALL_GATHER:
    case DLS_MESSAGE_GATHER: return (element){(uint64_t)1 << block, 0, i % c, 0};
    case DLS_MESSAGE_SCATTER:
        return (element){(uint64_t)1 << shape->root, 0, (uint32_t)(mine + i), 0};
    case DLS_MESSAGE_ALL_TO_ALL:
        return (element){(uint64_t)1 << block, 0, (uint32_t)(mine + i % c), 0};
    default: return (element){all, 0, (uint32_t)i, 1};
    }
}

static void check(const dls_algorithm *a, const dls_shape *shape, int how)
{
    for (int me = 0; me < shape->world; me++) {
        const rank *r = &ranks[me];
        int counts = a->kind != DLS_MESSAGE_REDUCE || me == shape->root;
        for (size_t i = 0; counts && i < r->size[DLS_OUT]; i++) {
            element want = expected(a, shape, me, i), got = r->place[DLS_OUT][i];
            cr_assert(want.from == got.from && want.index == got.index &&
                          want.divided == got.divided,
                      "%s %d of %zu, %d ranks, root %d, rank %d, element %zu: from %lx, "
                      "index %u, divided %u", a->name, a->kind, shape->count,
                      shape->world, shape->root, me, i, got.from, got.index, got.divided);
            if (a->kind == DLS_MESSAGE_ALL_REDUCE)
                cr_assert_eq(got.expression, ranks[0].place[DLS_OUT][i].expression,
                             "%s, %d ranks: rank %d adds in another order", a->name,
                             shape->world, me);
        }
        if (!is_one_buffer(a->kind) && how != IN_PLACE)
            for (size_t i = 0; i < r->size[DLS_IN]; i++)
                cr_assert_eq(r->place[DLS_IN][i].expression, (uint64_t)(me + 1) * 77 + i,
                             "%s changes its input", a->name);
    }
}

static void clear(int n)
{
    for (int me = 0; me < n; me++) {
        rank *r = &ranks[me];
        element *in = r->place[DLS_IN], *out = r->place[DLS_OUT];
        int in_inside = in >= out && in <= out + r->size[DLS_OUT];
        int out_inside = !in_inside && out >= in && out <= in + r->size[DLS_IN];
        if (!in_inside)
            free(in);
        if (!out_inside)
            free(out);
        free(r->place[DLS_SCRATCH]);
    }
}

/* test every algorithm without processes */
static void try_shape(const dls_algorithm *a, dls_shape shape)
{
    int in_place = is_one_buffer(a->kind) || a->kind == DLS_MESSAGE_ALL_TO_ALL ? 0 : 1;
    if (a->fits && !a->fits(&shape))
        return;
    for (int how = 0; how <= in_place; how++) {
        fill(a, shape, how);
        play(a, shape);
        check(a, &shape, how);
        clear(shape.world);
    }
}

// It has an order for nodes, and works on any.
static int turns(const dls_algorithm *a) { return a->kind == DLS_MESSAGE_ALL_TO_ALL; }

static void try_world(const dls_algorithm *a, int n, const size_t *counts, int total)
{
    int rooted = a->kind == DLS_MESSAGE_BROADCAST || a->kind == DLS_MESSAGE_REDUCE ||
                 a->kind == DLS_MESSAGE_GATHER || a->kind == DLS_MESSAGE_SCATTER;
    for (int c = 0; c < total; c++)
        for (int root = 0; root < (rooted ? n : 1); root += n > 9 ? 5 : 1)
            for (size_t block = 2; block <= 6; block += 4) {
                dls_shape shape = {.world = n, .root = root, .count = counts[c],
                                   .block = block};
                for (shape.per_node = 0; shape.per_node < 4; shape.per_node++)
                    if (shape.per_node == 0 || ((a->fits || turns(a)) &&
                                                n % shape.per_node == 0))
                        try_shape(a, shape);
            }
}

Test(collectives, every_algorithm_moves_every_element_where_it_belongs)
{
    static const size_t counts[] = {0, 1, 2, 5, 9, 13, 24}, few[] = {1, 67};
    static const int large[] = {12, 16, 17, 33, 64};
    for (int i = 0; i < dls_algorithm_count; i++) {
        const dls_algorithm *a = &dls_algorithms[i];
        if (a->kind == DLS_MESSAGE_ALL_TO_ALL_V)
            continue;
        for (int n = 2; n <= 9; n++)
            try_world(a, n, counts, 7);
        for (int l = 0; l < 5; l++)
            try_world(a, large[l], few, 2);
    }
}
