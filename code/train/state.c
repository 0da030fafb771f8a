/* code/train/state.c: from chapters/08-expert-mesh.md. Edit the chapter, or edit here and run "make untangle". */
/* The biases of routers, as a part of what is kept. */
#include "train/state.h"

#include <stdio.h>
#include <string.h>

#include "train/pipelined.h"

/* list what is kept */
/* 1: the parameter is a router's; name becomes that of its bias. */
static int is_router(const dls_param *p, char name[DLS_PARAM_NAME])
{
    static const char end[] = ".router.weight";
    size_t n = strlen(p->name), e = sizeof end - 1;
    if (n < e || strcmp(p->name + n - e, end) != 0)
        return 0;
    snprintf(name, DLS_PARAM_NAME, "%.*s.router.bias", (int)(n - e), p->name);
    return 1;
}

dls_status dls_state_list(const dls_transformer_config *c, dls_params *out)
{
    DLS_TRY(dls_transformer_list(c, out));
    int n = c->moe.bias_rate > 0 ? out->n : 0, index;
    for (int i = 0; i < n; i++) {
        dls_param bias = {.ndim = 1, .shape = {(size_t)c->moe.experts}, .frozen = 1};
        if (is_router(&out->items[i], bias.name))
            DLS_TRY(dls_params_add(out, &bias, &index));
    }
    return DLS_OK;
}

/* walk over the biases of a rank */
static dls_transformer *model_of(const dls_trainer *t, int i)
{
    if (t->pipelined)
        return dls_pipelined_model(t, i);
    return i == 0 ? t->model : NULL;
}

/* Biases of a model: as many numbers. */
static size_t numbers(const dls_transformer *m)
{
    return m->config.moe.bias_rate > 0
        ? (size_t)m->balance.layers * (size_t)m->balance.experts : 0;
}

/* slice the biases */
static dls_status add_model(const dls_trainer *t, const dls_transformer *m,
                            dls_slices *out, size_t at)
{
    char name[DLS_PARAM_NAME];
    size_t E = (size_t)m->balance.experts;
    for (int i = 0; i < m->params.n; i++) {
        if (!is_router(&m->params.items[i], name))
            continue;
        const dls_param *bias = dls_params_find(&t->whole, name);
        if (!bias)
            return DLS_FAIL(DLS_ERR_STATE, "the whole model has no %s", name);
        DLS_TRY(dls_slices_add_run(out, bias->offset, E, at));
        at += E;
    }
    return DLS_OK;
}

dls_status dls_state_slices(const dls_trainer *t, int saved, dls_slices *out,
                            size_t *elements)
{
    const dls_train_place *p = &t->place;
    int first = p->holder == 0 && p->tensor_rank == 0;
    dls_transformer *m;
    for (int i = 0; (m = model_of(t, i)); i++) {
        int counts = first && (!t->pipelined || dls_pipelined_counts(t, i));
        if (numbers(m) > 0 && (!saved || counts))
            DLS_TRY(add_model(t, m, out, *elements));
        *elements += numbers(m);
    }
    return DLS_OK;
}

/* move the biases */
static dls_status move(dls_trainer *t, char *host, int back)
{
    size_t size = dls_dtype_size(dls_dtype_accumulator(t->ctx.dtype));
    dls_transformer *m;
    DLS_TRY(dls_ctx_sync(&t->ctx));
    for (int i = 0; (m = model_of(t, i)); i++) {
        size_t bytes = numbers(m) * size;
        if (bytes > 0)
            DLS_CUDA(cudaMemcpy(back ? m->balance.bias : host,
                                back ? host : m->balance.bias, bytes, cudaMemcpyDefault));
        host += bytes;
    }
    return DLS_OK;
}

dls_status dls_state_fetch(dls_trainer *t, void *values)
{
    return move(t, values, 0);
}

dls_status dls_state_put(dls_trainer *t, const void *values)
{
    return move(t, (char *)values, 1);
}
