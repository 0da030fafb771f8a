/* code/model/hf_names.c: from chapters/09-transformer-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * Which stored tensor is which part of which parameter. Two tables, and the arithmetic of
 * packed rows.
 */
#include <stdio.h>
#include <string.h>

#include "model/hf_internal.h"

/* tabulate the names */
typedef struct renaming {
    const char *ours, *theirs;  /* without "block.3." and their prefix */
    int transposed;
} renaming;

static const renaming gpt2_names[] = {
    {"ln1", "ln_1", 0}, {"attention.qkv", "attn.c_attn", 1},
    {"attention.proj", "attn.c_proj", 1}, {"ln2", "ln_2", 0},
    {"mlp.fc", "mlp.c_fc", 1}, {"mlp.proj", "mlp.c_proj", 1},
    {"wte", "transformer.wte", 0}, {"wpe", "transformer.wpe", 0},
    {"ln_f", "transformer.ln_f", 0}, {"head", "lm_head", 0}, {NULL, NULL, 0}};

static const renaming llama_names[] = {
    {"ln1", "input_layernorm", 0},
    {"attention.qkv", "self_attn.q_proj|self_attn.k_proj|self_attn.v_proj", 0},
    {"attention.proj", "self_attn.o_proj", 0}, {"ln2", "post_attention_layernorm", 0},
    {"mlp.fc", "mlp.gate_proj|mlp.up_proj", 0}, {"mlp.proj", "mlp.down_proj", 0},
    {"wte", "model.embed_tokens", 0}, {"ln_f", "model.norm", 0},
    {"head", "lm_head", 0}, {NULL, NULL, 0}};

static const renaming mixtral_names[] = {
    {"mlp.router", "block_sparse_moe.gate", 0},
    {"mlp.expert.#.fc", "block_sparse_moe.experts.#.w1|block_sparse_moe.experts.#.w3", 0},
    {"mlp.expert.#.proj", "block_sparse_moe.experts.#.w2", 0}, {NULL, NULL, 0}};

static const renaming deepseek_names[] = {
    {"mlp.router", "mlp.gate", 0},
    {"mlp.expert.#.fc", "mlp.experts.#.gate_proj|mlp.experts.#.up_proj", 0},
    {"mlp.expert.#.proj", "mlp.experts.#.down_proj", 0},
    {"mlp.shared.fc", "mlp.shared_experts.gate_proj|mlp.shared_experts.up_proj", 0},
    {"mlp.shared.proj", "mlp.shared_experts.down_proj", 0}, {NULL, NULL, 0}};

/* The row of a name in a family's tables; NULL: it has none. */
static const renaming *renaming_of(int family, const char *name)
{
    const renaming *tables[] = {
        family == DLS_HF_GPT2 ? gpt2_names : llama_names,
        family == DLS_HF_MIXTRAL ? mixtral_names
            : family == DLS_HF_DEEPSEEK ? deepseek_names : NULL};
    for (int i = 0; i < 2; i++)
        for (const renaming *r = tables[i]; r && r->ours; r++)
            if (strcmp(r->ours, name) == 0)
                return r;
    return NULL;
}

/* take a name apart */
typedef struct parts {
    int block, expert;
    char middle[DLS_PARAM_NAME];
    const char *end;
} parts;

static int take_apart(const char *name, parts *p)
{
    int skipped = 0;
    p->block = -1;
    if (sscanf(name, "block.%d.%n", &p->block, &skipped) == 1)
        name += skipped;
    const char *dot = strrchr(name, '.');
    if (!dot)
        return 0;
    p->end = dot + 1;
    int length = (int)(dot - name);
    snprintf(p->middle, sizeof p->middle, "%.*s", length, name);
    if (sscanf(name, "mlp.expert.%d.%n", &p->expert, &skipped) == 1)
        snprintf(p->middle, sizeof p->middle, "mlp.expert.#.%.*s", length - skipped,
                 name + skipped);
    return 1;
}

/* divide the rows */
/* The rows of part `i` of a parameter with `parts` parts. */
static size_t share(const dls_transformer_config *c, size_t rows, int parts, int i)
{
    size_t q = (size_t)c->heads * c->head_size, k = (size_t)c->kv_heads * c->head_size;
    return parts == 3 ? (i == 0 ? q : k) : rows / parts;
}

/* place the parts */
typedef struct placing {
    const dls_transformer_config *config;
    int family;
    dls_hf_tensor *list;
    size_t n;
} placing;

static void place(placing *w, const parts *p, const char *middle, int length,
                  const dls_hf_tensor *where)
{
    const char *layers = w->family == DLS_HF_GPT2 ? "transformer.h" : "model.layers";
    dls_hf_tensor *t = &w->list[w->n++];
    int before = (int)strcspn(middle, "#"), after = length - before - 1;
    *t = *where;
    if (after >= 0)
        snprintf(t->name, sizeof t->name, "%s.%d.%.*s%d%.*s.%s", layers, p->block, before,
                 middle, p->expert, after, middle + before + 1, p->end);
    else if (p->block >= 0)
        snprintf(t->name, sizeof t->name, "%s.%d.%.*s.%s", layers, p->block, length,
                 middle, p->end);
    else
        snprintf(t->name, sizeof t->name, "%.*s.%s", length, middle, p->end);
    t->shape[0] = t->transposed ? t->columns : t->rows;
    t->shape[1] = t->transposed ? t->rows : t->columns;
}

/* place a parameter */
static dls_status place_parameter(placing *w, const dls_params *set, int index)
{
    const dls_param *q = &set->items[index];
    parts p;
    const renaming *r = take_apart(q->name, &p) ? renaming_of(w->family, p.middle) : NULL;
    int n = 1;
    if (!r)
        return DLS_FAIL(DLS_ERR_INPUT, "parameter %s has no name in this layout",
                        q->name);
    for (const char *c = r->theirs; (c = strchr(c, '|')); c++)
        n++;
    const char *name = r->theirs;
    dls_hf_tensor t = {.param = index, .ndim = q->ndim,
                       .columns = q->ndim == 2 ? q->shape[1] : 1,
                       .transposed = r->transposed && q->ndim == 2};
    for (int i = 0; i < n; i++, t.row += t.rows) {
        int length = (int)strcspn(name, "|");
        t.rows = share(w->config, q->shape[0], n, i);
        place(w, &p, name, length, &t);
        name += length + 1;
    }
    return DLS_OK;
}

/* list the stored tensors */
static int by_name(const void *a, const void *b)
{
    return strcmp(((const dls_hf_tensor *)a)->name, ((const dls_hf_tensor *)b)->name);
}

dls_status dls_hf_tensors(const dls_transformer_config *c, const dls_params *set,
                          dls_hf_tensor **out, size_t *n)
{
    placing w = {.config = c, .family = (int)dls_hf_family_of(c)};
    dls_status s = DLS_OK;
    if (w.family == DLS_HF_NONE)
        return DLS_FAIL(DLS_ERR_INPUT, "this model is neither a gpt2 nor a llama");
    if (c->sharding.tensor > 1)
        return DLS_FAIL(DLS_ERR_STATE, "this is one of %d parts of a model; expected a "
                        "whole one", c->sharding.tensor);
    if (c->sharding.expert > 1 || c->sharding.expert_tensor > 1)
        return DLS_FAIL(DLS_ERR_STATE, "this is a model with some of its experts; "
                        "expected a whole one");
    w.list = calloc(3 * (size_t)set->n, sizeof *w.list);
    if (!w.list)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a list of %d tensors", set->n);
    for (int i = 0; i < set->n; i++)
        DLS_TRY_GOTO(s, place_parameter(&w, set, i), fail);
    qsort(w.list, w.n, sizeof *w.list, by_name);
    *out = w.list;
    *n = w.n;
    return DLS_OK;
fail:
    free(w.list);
    return s;
}
