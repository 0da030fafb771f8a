/* code/train/slices.c: from chapters/07-together.md. Edit the chapter, or edit here and run "make untangle". */
/* Runs: elements that lie side by side in a rank's arrays and in the whole model. */
#include "train/slices.h"

#include <stdlib.h>

#include "parallel/tensor/gradients.h"
#include "train/pipelined.h"
#include "train/state.h"

/* add a run */
void dls_slices_free(dls_slices *s)
{
    free(s->items);
    *s = (dls_slices){0};
}

dls_status dls_slices_add_run(dls_slices *s, size_t first, size_t count, size_t at)
{
    dls_zero_slice *last = s->n ? &s->items[s->n - 1] : NULL;
    if (last && last->first + last->count == first && last->at + last->count == at) {
        last->count += count;
        return DLS_OK;
    }
    if (s->n == s->room) {
        int room = s->room ? 2 * s->room : 64;
        dls_zero_slice *more = realloc(s->items, (size_t)room * sizeof *more);
        if (!more)
            return DLS_FAIL(DLS_ERR_MEMORY, "no memory for %d slices", room);
        s->items = more;
        s->room = room;
    }
    s->items[s->n++] = (dls_zero_slice){first, count, at};
    return DLS_OK;
}

/* add a range of a set */
/* Elements from ... to - 1 of parameter p, of a set; the first of the set's is `at`. */
static dls_status add_part(dls_slices *s, const dls_params *whole, const dls_param *p,
                           size_t from, size_t to, size_t at)
{
    const dls_param *there = dls_params_find(whole, p->name);
    if (!there)
        return DLS_FAIL(DLS_ERR_STATE, "the whole model has no parameter %s", p->name);
    for (size_t local = from, run; local < to; local += run) {
        size_t global = dls_param_global(p, local, &run, NULL);
        run = run < to - local ? run : to - local;
        DLS_TRY(dls_slices_add_run(s, there->offset + global, run, at + p->offset + local));
    }
    return DLS_OK;
}

/* Elements from ... to - 1 of a set, which lie at `at` - from on in the arrays. */
static dls_status add_range(dls_slices *s, const dls_params *whole, const dls_params *set,
                            size_t from, size_t to, size_t at)
{
    for (int i = 0; i < set->n && from < to; i++) {
        const dls_param *p = &set->items[i];
        size_t end = p->offset + p->count;
        if (end <= from || p->offset >= to)
            continue;
        size_t a = from > p->offset ? from - p->offset : 0;
        DLS_TRY(add_part(s, whole, p, a, (to < end ? to : end) - p->offset, at - from));
    }
    return DLS_OK;
}

/* add a holding */
/* What is wanted of the window w of a holding. */
static dls_status add_window(dls_slices *s, const dls_params *whole, const dls_holding *h,
                             const dls_zero_slice *w)
{
    const dls_params *set = h->set;
    size_t end = w->first + w->count, at = h->at + w->at;
    if (!h->saved)
        return add_range(s, whole, set, w->first, end, at);
    for (dls_stretch k = {0}; dls_counted_next(set->items, set->n, &h->who, h->skip, 0,
                                               &k);) {
        size_t from = k.first > w->first ? k.first : w->first, to = k.first + k.count;
        to = to < end ? to : end;
        if (from < to)
            DLS_TRY(add_range(s, whole, set, from, to, at + from - w->first));
    }
    return DLS_OK;
}

dls_status dls_slices_add(dls_slices *s, const dls_params *whole, const dls_holding *h)
{
    int n = h->zero ? dls_zero_slices(h->zero) : 1;
    for (int i = 0; i < n; i++) {
        dls_zero_slice all = {0, h->set->elements, 0};
        dls_zero_slice w = h->zero ? dls_zero_slice_at(h->zero, i) : all;
        DLS_TRY(add_window(s, whole, h, &w));
    }
    return DLS_OK;
}

/* list the slices of a trainer */
size_t dls_trainer_elements(const dls_trainer *t)
{
    return t->pipelined ? dls_pipelined_elements(t)
        : t->zero ? dls_zero_elements(t->zero) : t->model->params.elements;
}

dls_counter dls_trainer_counter(const dls_trainer *t, const dls_zero *zero)
{
    const dls_train_place *p = &t->place;
    return (dls_counter){
        .tensor_rank = p->tensor_rank,
        .copy = zero ? dls_zero_copy(zero) : p->holder,
        .expert_tensor_rank = p->model.sharding.expert_tensor_rank,
        .expert_copy = zero ? dls_zero_copy(zero) : p->expert_holder};
}

dls_status dls_trainer_slices(const dls_trainer *t, int saved, dls_slices *out,
                              size_t *elements)
{
    if (t->pipelined) {
        DLS_TRY(dls_pipelined_slices(t, saved, out, elements));
        return dls_state_slices(t, saved, out, elements);
    }
    const dls_params *set = &t->model->params;
    dls_holding h = {.set = set, .zero = t->zero, .saved = saved,
                     .who = dls_trainer_counter(t, t->zero)};
    *elements = dls_trainer_elements(t);
    DLS_TRY(dls_slices_add(out, &t->whole, &h));
    return dls_state_slices(t, saved, out, elements);
}
