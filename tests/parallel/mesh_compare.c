/* tests/parallel/mesh_compare.c: from chapters/07-proof-layouts.md. Edit the chapter, or edit here and run "make untangle". */
/* A rank's piece of the state, held against the whole. */
#include "mesh_layout.h"

#include "vgpu/gpu.h"

/* fetch a piece */
static dls_status fetch(double *to, const char *from, size_t first, size_t count,
                        dls_dtype dtype)
{
    size_t size = dls_dtype_size(dtype);
    DLS_CUDA(cudaMemcpy(to, from + first * size, count * size, cudaMemcpyDefault));
    for (size_t i = count; dtype == DLS_F32 && i-- > 0;)
        to[i] = ((float *)to)[i];
    return DLS_OK;
}

/* compare numbers */
/* 1: equal as far as the form demands. `scale`: what is not an error at zero. */
static int same(const mesh_proof *p, double is, double should)
{
    if (mesh_proof_exact(p))
        return is == should;
    double most = p->form == MESH_REAL ? 1e-10 : 1e-5;
    return fabs(is - should) <= most * fabs(should) + most / 100;
}

static dls_status mark(const mesh_proof *p, int what, int step, size_t at, double is,
                       double should, const char *name, size_t index)
{
    static const char *const whats[] = {"gradient", "value", "loss", "load"};
    p->truth.seen[what][at] = (unsigned char)step;
    if (p->form == MESH_DRIFT)
        p->truth.shown[(step - 1) * p->truth.tokens + at] = is;
    if (p->form == MESH_DRIFT || same(p, is, should))
        return DLS_OK;
    return DLS_FAIL(DLS_ERR_STATE, "step %d: %s %s[%zu] is %.17g instead of %.17g", step,
                    whats[what], name, index, is, should);
}

/* compare a run */
/* `count` elements of one parameter, from `local` on; those lie in `host` from 0 on. */
static dls_status compare_run(const mesh_proof *p, const dls_param *whole,
                              const dls_param *part, int what, int step, size_t local,
                              size_t count, const double *host)
{
    const mesh_truth *t = &p->truth;
    const double *all = (what ? t->values : t->grads) + (step - 1) * t->elements;
    for (size_t i = 0, run; i < count; i += run) {
        size_t global = dls_param_global(part, local + i, &run, NULL);
        run = run < count - i ? run : count - i;
        EXPECT(run > 0 && global + run <= whole->count, "%s: %zu + %zu of %zu",
               part->name, global, run, whole->count);
        for (size_t k = 0; k < run; k++) {
            size_t at = whole->offset + global + k;
            DLS_TRY(mark(p, what, step, at, host[i + k], all[at], part->name,
                         global + k));
        }
    }
    return DLS_OK;
}

/* compare a part */
static dls_status compare_parameter(const mesh_proof *p, const dls_params *whole,
                                    const dls_params *part, int i, int what, int step,
                                    size_t first, size_t count, const void *array)
{
    const dls_param *a = &part->items[i], *of = dls_params_find(whole, a->name);
    size_t from = a->offset > first ? a->offset : first, end = first + count;
    size_t to = a->offset + a->count < end ? a->offset + a->count : end;
    EXPECT(of, "there is no parameter %s", a->name);
    if (from >= to)
        return DLS_OK;
    double *host = malloc((to - from) * sizeof *host);
    EXPECT(host, "no memory");
    dls_status s = fetch(host, array, from - first, to - from,
                         dls_dtype_accumulator(part->dtype));
    if (s == DLS_OK)
        s = compare_run(p, of, a, what, step, from - a->offset, to - from, host);
    free(host);
    return s;
}

dls_status mesh_compare(const mesh_proof *p, const dls_params *whole,
                        const dls_params *part, int step, size_t first, size_t count,
                        const void *grads, const void *values)
{
    for (int i = 0; i < part->n; i++) {
        if (grads)
            DLS_TRY(compare_parameter(p, whole, part, i, 0, step, first, count, grads));
        if (values)
            DLS_TRY(compare_parameter(p, whole, part, i, 1, step, first, count, values));
    }
    return DLS_OK;
}

/* compare losses and norm */
dls_status mesh_compare_losses(const mesh_proof *p, int step, int row, int T,
                               const int *positions, const void *device)
{
    const mesh_truth *t = &p->truth;
    double host[T];
    DLS_TRY(fetch(host, device, 0, (size_t)T, mesh_proof_dtype(p)));
    for (int i = 0; i < T; i++) {
        size_t at = (size_t)row * p->c.T + positions[i];
        DLS_TRY(mark(p, 2, step, at, host[i], t->losses[(step - 1) * t->tokens + at],
                     "of token", at));
    }
    return DLS_OK;
}

dls_status mesh_compare_load(const mesh_proof *p, int step, size_t at, double is)
{
    return mark(p, 3, step, at, is, p->truth.load[(step - 1) * p->truth.loads + at],
                "of experts", at);
}

dls_status mesh_compare_norm(const mesh_proof *p, int step, const double *device)
{
    double is, should = p->truth.norm[step - 1];
    DLS_CUDA(cudaMemcpy(&is, device, sizeof is, cudaMemcpyDeviceToHost));
    return same(p, is, should) ? DLS_OK
        : DLS_FAIL(DLS_ERR_STATE, "step %d: the norm is %.17g instead of %.17g", step, is,
                   should);
}

dls_status mesh_compare_seen(const mesh_proof *p, int step)
{
    const mesh_truth *t = &p->truth;
    static const char *const whats[] = {"gradient", "value", "loss", "load"};
    const size_t many[] = {t->elements, t->elements, t->tokens, t->loads};
    int from = mesh_proof_losses_only(p) ? 2 : 0, to = from ? 3 : 4;
    for (int what = from; what < to; what++)
        for (size_t i = 0; i < many[what]; i++)
            EXPECT(t->seen[what][i] == step, "step %d: nobody has %s %zu", step,
                   whats[what], i);
    return DLS_OK;
}
