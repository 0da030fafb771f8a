/* code/comm/steps_exchange.c: from chapters/04-data-parallelism-collectives.md. Edit the chapter, or edit here and run "make untangle". */
/* Recursive doubling and halving, for any number of ranks. Pure functions; see
 * algorithms.h.
 *
 * With p the largest power of two up to n, the first 2(n-p) ranks form pairs. The even
 * one of a pair hands its data to the odd one and waits; p virtual ranks go on, in the
 * order of the real ones; at the end the even ones get their results. */
#include "comm/algorithms.h"

/* fold the remainder */
typedef struct fold {
    int p, levels, rest; // p = 2^levels; pairs
    int active, v;       // this rank goes on, as virtual rank v
} fold;

static fold fold_of(const dls_shape *shape)
{
    fold f = {.p = 1};
    while (2 * f.p <= shape->world) {
        f.p *= 2;
        f.levels++;
    }
    f.rest = shape->world - f.p;
    f.active = shape->rank >= 2 * f.rest || shape->rank % 2 == 1;
    f.v = shape->rank < 2 * f.rest ? shape->rank / 2 : shape->rank - f.rest;
    return f;
}

static int is_paired(const fold *f, const dls_shape *shape)
{
    return shape->rank < 2 * f->rest;
}

/* The rank behind a virtual rank. */
static int real(const fold *f, int v)
{
    return v < f->rest ? 2 * v + 1 : v + f->rest;
}

/* The steps of an even rank: give, and later take. */
static int wait_outside(const dls_shape *shape, int k, dls_step *step)
{
    if (k == 0)
        dls_step_send(step, shape->rank + 1, DLS_OUT, 0, shape->count);
    if (k == 1)
        dls_step_receive(step, shape->rank + 1, DLS_OUT, 0, shape->count);
    return k < 2;
}

/* The odd rank's counterparts. */
static void take_in(const dls_shape *shape, dls_step *step)
{
    dls_step_combine(step, shape->rank - 1, DLS_OUT, 0, shape->count,
                     DLS_OUT)->how = DLS_OWN_LAST;
}

static void give_out(const dls_shape *shape, dls_step *step)
{
    dls_step_send(step, shape->rank - 1, DLS_OUT, 0, shape->count);
}

/* go around the exchanges */
/* Before and after the `own` exchanges: 1: step k is there; -1: no more; 0: it is the
 * exchange *k, numbered from 0. */
static int fold_step(const fold *f, const dls_shape *shape, int own, int *k,
                     dls_step *step)
{
    dls_step_clear(step);
    if (!f->active)
        return wait_outside(shape, *k, step) ? 1 : -1;
    if (is_paired(f, shape) && (*k)-- == 0)
        take_in(shape, step);
    else if (is_paired(f, shape) && *k == own)
        give_out(shape, step);
    else
        return *k < own ? 0 : -1;
    return 1;
}

/* double recursively */
size_t dls_doubling_scratch(const dls_shape *shape) { return shape->count; }

int dls_doubling_all_reduce(const dls_shape *shape, int k, dls_step *step)
{
    fold f = fold_of(shape);
    int around = fold_step(&f, shape, f.levels, &k, step);
    if (around)
        return around > 0;
    /* exchange the whole vector */
    int there = (f.levels - k) % 2, partner = f.v ^ 1 << k; // 1: it is in scratch now
    dls_place from = there ? DLS_SCRATCH : DLS_OUT, to = there ? DLS_OUT : DLS_SCRATCH;
    if (k == 0 && there)
        dls_step_copy(step, DLS_SCRATCH, 0, DLS_OUT, 0, shape->count);
    dls_step_send(step, real(&f, partner), from, 0, shape->count);
    dls_move *in = dls_step_combine(step, real(&f, partner), to, 0, shape->count, from);
    in->how = partner < f.v ? DLS_OWN_LAST : DLS_OWN_FIRST;
    in->finish = k == f.levels - 1;
    return 1;
}

/* halve and double */
/* The parts that virtual rank v keeps after `level` exchanges: [*low, *high) of p. */
static void kept(const fold *f, int v, int level, int *low, int *high)
{
    *low = 0;
    *high = f->p;
    for (int j = 0; j < level; j++) {
        int middle = (*low + *high) / 2;
        if (v >> j & 1)
            *low = middle;
        else
            *high = middle;
    }
}

/* The same as a range of elements. */
static void range(const dls_shape *shape, const fold *f, int v, int level, size_t *first,
                  size_t *count)
{
    int low, high;
    size_t last, size;
    kept(f, v, level, &low, &high);
    dls_part(shape->count, f->p, low, first, &size);
    dls_part(shape->count, f->p, high - 1, &last, &size);
    *count = last + size - *first;
}

int dls_halving_all_reduce(const dls_shape *shape, int k, dls_step *step)
{
    fold f = fold_of(shape);
    size_t first, count;
    int around = fold_step(&f, shape, 2 * f.levels, &k, step);
    if (around)
        return around > 0;
    /* exchange a half range */
    int gathers = k >= f.levels, level = gathers ? 2 * f.levels - 1 - k : k;
    int partner = f.v ^ 1 << level;
    range(shape, &f, gathers ? f.v : partner, level + 1, &first, &count);
    dls_step_send(step, real(&f, partner), DLS_OUT, first, count);
    range(shape, &f, gathers ? partner : f.v, level + 1, &first, &count);
    if (gathers)
        dls_step_receive(step, real(&f, partner), DLS_OUT, first, count);
    else
        dls_step_combine(step, real(&f, partner), DLS_OUT, first, count,
                         DLS_OUT)->finish = level == f.levels - 1;
    return 1;
}

/* scatter by halving */
size_t dls_halving_scratch(const dls_shape *shape)
{
    return shape->count * (size_t)shape->world;
}

/* The blocks of virtual ranks [low, high) after `level` exchanges, as elements. */
static void blocks(const dls_shape *shape, const fold *f, int v, int level, size_t *first,
                   size_t *count)
{
    int size = f->p >> level, low = v / size * size, high = low + size;
    int from = low < f->rest ? 2 * low : low + f->rest;
    int to = high < f->rest ? 2 * high : high + f->rest;
    *first = (size_t)from * shape->count;
    *count = (size_t)(to - from) * shape->count;
}

static int wait_for_a_block(const dls_shape *shape, int k, dls_step *step)
{
    if (k == 0)
        dls_step_send(step, shape->rank + 1, DLS_IN, 0,
                      shape->count * (size_t)shape->world);
    if (k == 1)
        dls_step_receive(step, shape->rank + 1, DLS_OUT, 0, shape->count);
    return k < 2;
}

int dls_halving_reduce_scatter(const dls_shape *shape, int k, dls_step *step)
{
    fold f = fold_of(shape);
    size_t c = shape->count, first, count, own = (size_t)shape->rank * c;
    int paired = is_paired(&f, shape);
    dls_step_clear(step);
    if (!f.active)
        return wait_for_a_block(shape, k, step);
    if (paired && k-- == 0) {
        dls_step_combine(step, shape->rank - 1, DLS_SCRATCH, 0, c * (size_t)shape->world,
                         DLS_IN)->how = DLS_OWN_LAST;
        return 1;
    }
    /* hand out the block */
    if (k == f.levels) {
        dls_step_copy(step, DLS_OUT, 0, DLS_SCRATCH, own, c);
        if (paired)
            dls_step_send(step, shape->rank - 1, DLS_SCRATCH, own - c, c);
        return 1;
    }
    if (k > f.levels)
        return 0;
    /* exchange halves of the blocks */
    int partner = f.v ^ f.p >> (k + 1);
    dls_place place = k == 0 && !paired ? DLS_IN : DLS_SCRATCH;
    blocks(shape, &f, partner, k + 1, &first, &count);
    dls_step_send(step, real(&f, partner), place, first, count);
    blocks(shape, &f, f.v, k + 1, &first, &count);
    dls_step_combine(step, real(&f, partner), DLS_SCRATCH, first, count, place)->finish =
        k == f.levels - 1;
    return 1;
}
