/* code/parallel/tensor/activation_laws.c: from chapters/06-sequence-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The account of a block. A line has its paper's price in bytes per token and channel
 * (`sbh`) or per token pair and head (`squares`), and its kind gives our own width.
 */
#include "parallel/tensor/activation_laws.h"

#include "layers/tensor.h"

/* name the kinds of kept arrays */
enum kind { STREAM, MEAN, RSTD, NORM, QKV, LSE, SQUARES, ATTENTION, MASK, UP, ACTIVE };

typedef struct line {
    const char *what;
    enum kind kind;
    double sbh, squares;        /* the paper's price */
    int shared;                 /* 1: the products' cut divides its columns */
    int paper_drops, we_drop;   /* under selective recomputation */
    const char *why;
} line;

/* list the kept arrays */
static const line lines[DLS_KEPT_ARRAYS] = {
    {"input of the block", STREAM, 2, 0, 0, 0, 0, NULL},
    {"mean of norm 1", MEAN, 0, 0, 0, 0, 0, "saves a pass"},
    {"1 / deviation of norm 1", RSTD, 0, 0, 0, 0, 0, "saves a pass"},
    {"result of norm 1", NORM, 2, 0, 0, 0, 1, NULL},
    {"queries, keys, values", QKV, 6, 0, 1, 0, 0, NULL},
    {"softmax, mask, dropped", SQUARES, 0, 5, 1, 1, 0, "flash: none"},
    {"log-sum-exp", LSE, 0, 0, 1, 0, 0, "instead"},
    {"result of attention", ATTENTION, 2, 0, 1, 0, 0, NULL},
    {"mask of the first branch", MASK, 1, 0, 0, 0, 0, "drawn again"},
    {"stream between the halves", STREAM, 2, 0, 0, 0, 0, NULL},
    {"mean of norm 2", MEAN, 0, 0, 0, 0, 0, "saves a pass"},
    {"1 / deviation of norm 2", RSTD, 0, 0, 0, 0, 0, "saves a pass"},
    {"result of norm 2", NORM, 2, 0, 0, 0, 1, NULL},
    {"in front of the activation", UP, 8, 0, 1, 0, 0, NULL},
    {"behind the activation", ACTIVE, 8, 0, 1, 0, 1, NULL},
    {"mask of the second branch", MASK, 1, 0, 0, 0, 0, "drawn again"},
};

/* measure our array */
static size_t width_of(enum kind kind, const dls_transformer_config *c)
{
    const dls_sharding *cut = &c->sharding;
    size_t D = (size_t)c->head_size, F = dls_tensor_units(cut, c->hidden).count;
    size_t H = dls_tensor_units(cut, c->heads).count;
    size_t Hk = dls_tensor_units(cut, c->kv_heads).count;
    switch (kind) {
    case STREAM: case NORM: return (size_t)c->channels;
    case MEAN:      return c->norm == DLS_NORM_LAYER;
    case RSTD:      return 1;
    case QKV:       return (H + 2 * Hk) * D;
    case LSE:       return H;
    case ATTENTION: return H * D;
    case UP:        return c->mlp == DLS_MLP_SWIGLU ? 2 * F : F;
    case ACTIVE:    return F;
    case SQUARES: case MASK: break;
    }
    return 0;
}

/* fill the account */
static int is_kept(const line *l, dls_recompute recompute, int dropped)
{
    return recompute == DLS_RECOMPUTE_NONE || l == lines
        || (recompute == DLS_RECOMPUTE_SELECTIVE && !dropped);
}

static dls_kept entry(const line *l, const dls_transformer_config *c,
                      const dls_kept_case *at)
{
    int t = c->sharding.tensor > 1 ? c->sharding.tensor : 1;
    int sequence = c->sharding.sequence;
    int wide = l->kind == MEAN || l->kind == RSTD || l->kind == LSE;
    double N = (double)at->B * at->T;
    size_t rows = at->B * at->T / (!l->shared && sequence ? t : 1);
    dls_kept k = {.what = l->what, .why = l->why, .width = width_of(l->kind, c),
                  .size = dls_dtype_size(wide ? dls_dtype_accumulator(at->dtype)
                                              : at->dtype)};
    k.paper = (l->sbh * N * c->channels + l->squares * N * at->T * c->heads)
        / (l->shared || sequence ? t : 1);
    k.rows = k.width && is_kept(l, c->recompute, l->we_drop) ? rows : 0;
    k.paper = is_kept(l, c->recompute, l->paper_drops) ? k.paper : 0;
    k.bytes = (k.rows * k.width * k.size + 127) / 128 * 128;
    return k;
}

void dls_kept_by_block(const dls_transformer_config *c, const dls_kept_case *at,
                       dls_kept out[DLS_KEPT_ARRAYS])
{
    for (int i = 0; i < DLS_KEPT_ARRAYS; i++)
        out[i] = entry(&lines[i], c, at);
}

/* add up the account */
size_t dls_kept_bytes(const dls_transformer_config *c, const dls_kept_case *at)
{
    dls_kept k[DLS_KEPT_ARRAYS];
    size_t sum = 0;
    dls_kept_by_block(c, at, k);
    for (int i = 0; i < DLS_KEPT_ARRAYS; i++)
        sum += k[i].bytes;
    return sum;
}

double dls_kept_paper(const dls_transformer_config *c, const dls_kept_case *at)
{
    dls_kept k[DLS_KEPT_ARRAYS];
    double sum = 0;
    dls_kept_by_block(c, at, k);
    for (int i = 0; i < DLS_KEPT_ARRAYS; i++)
        sum += k[i].paper;
    return sum;
}

/* state the formulas of megatron */
double dls_law_activations(dls_recompute recompute, double t, int sequence, double s,
                           double b, double h, double a)
{
    double squares = recompute == DLS_RECOMPUTE_NONE ? 5 * a * s / h : 0;
    if (recompute == DLS_RECOMPUTE_FULL)
        return 2 * s * b * h / (sequence ? t : 1);
    return s * b * h * (10 / (sequence ? t : 1) + (24 + squares) / t);
}

dls_parameter_bytes dls_bytes_megatron(int type)
{
    static const dls_parameter_bytes bytes[DLS_MEGATRON_TYPES] = {
        {2, 2, 16}, {2, 4, 12}, {4, 4, 8}};
    return bytes[type];
}
