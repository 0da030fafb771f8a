/* code/model/config.c: from chapters/09-transformer-model-families.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * The configuration: two families, the rules of what fits together, reading, counting.
 */
#include "model/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/layernorm.h"
#include "model/moe_config.h"

/* fill in a family */
dls_transformer_config dls_transformer_gpt2(int vocabulary, int context, int layers,
                                            int heads, int channels)
{
    return (dls_transformer_config){
        .vocabulary = vocabulary, .context = context, .layers = layers,
        .heads = heads, .kv_heads = heads, .channels = channels,
        .head_size = heads > 0 ? channels / heads : 0, .hidden = 4 * channels,
        .norm_epsilon = 1e-5, .rope.theta = 10000, .qkv_bias = 1, .proj_bias = 1,
        .mlp_bias = 1, .tied_head = 1};
}

dls_transformer_config dls_transformer_llama(int vocabulary, int context, int layers,
                                             int heads, int kv_heads, int channels,
                                             int hidden)
{
    return (dls_transformer_config){
        .vocabulary = vocabulary, .context = context, .layers = layers,
        .heads = heads, .kv_heads = kv_heads, .channels = channels,
        .head_size = heads > 0 ? channels / heads : 0, .hidden = hidden,
        .norm = DLS_NORM_RMS, .norm_epsilon = 1e-5, .mlp = DLS_MLP_SWIGLU,
        .positions = DLS_POSITIONS_ROTARY, .rope.theta = 10000};
}

dls_rope dls_transformer_rope(const dls_transformer_config *c)
{
    dls_rope rope = c->rope;
    if (rope.dim == 0)
        rope.dim = c->head_size;
    return rope;
}

/* state a problem */
typedef struct problem { const char *key; char text[160]; } problem;

__attribute__((format(printf, 3, 4)))
static int impossible(problem *p, const char *key, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    p->key = key;
    vsnprintf(p->text, sizeof p->text, format, args);
    va_end(args);
    return 1;
}

static int outside(problem *p, const char *key, double value, double min, double max)
{
    return value >= min && value <= max ? 0
        : impossible(p, key, "expected %.10g to %.10g, got %.10g", min,
                     max, value);
}

/* find what is out of range */
static int out_of_range(const dls_transformer_config *c, problem *p)
{
    const double none = 1 - 0x1p-20;    // dropout: below one
    return outside(p, "model.vocabulary", c->vocabulary, 2, 1 << 20)
        || outside(p, "model.context", c->context, 1, 1 << 20)
        || outside(p, "model.layers", c->layers, 1, 1000)
        || outside(p, "model.heads", c->heads, 1, 1024)
        || outside(p, "model.kv_heads", c->kv_heads, 1, 1024)
        || outside(p, "model.head_size", c->head_size, 1, 512)
        || outside(p, "model.channels", c->channels, 1, 1 << 16)
        || outside(p, "model.hidden", c->hidden, 1, 1 << 20)
        || outside(p, "model.norm_epsilon", c->norm_epsilon, 1e-30, 1)
        || outside(p, "model.rope_theta", c->rope.theta, 1.0001, 1e12)
        || outside(p, "model.embedding_dropout", c->embedding_dropout, 0, none)
        || outside(p, "model.attention_dropout", c->attention_dropout, 0, none)
        || outside(p, "model.residual_dropout", c->residual_dropout, 0, none);
}

/* find a contradiction */
static int bad_rotation(const dls_transformer_config *c, problem *p)
{
    double frequencies[512], factor;
    dls_rope rope = dls_transformer_rope(c);
    if (rope.dim % 2 != 0 || rope.dim < 2 || rope.dim > c->head_size)
        return impossible(p, "model.head_size", "rotary positions turn pairs of columns; "
                          "expected an even number of them, got %d", rope.dim);
    if (dls_rope_frequencies(&rope, c->context, frequencies, &factor) == DLS_OK)
        return 0;
    return impossible(p, "model.rope_scaling", "%s", dls_status_message());
}

static int contradicts_itself(const dls_transformer_config *c, problem *p)
{
    if (c->heads % c->kv_heads != 0)
        return impossible(p, "model.kv_heads", "expected a divisor of the %d heads, got "
                          "%d", c->heads, c->kv_heads);
    if (c->positions == DLS_POSITIONS_ROTARY && bad_rotation(c, p))
        return 1;
    if (c->norm == DLS_NORM_LAYER && c->norm_epsilon != DLS_LAYERNORM_EPSILON)
        return impossible(p, "model.norm_epsilon", "that of a layer norm is %g, got %g",
                          DLS_LAYERNORM_EPSILON, c->norm_epsilon);
    return outside(p, "model.norm", c->norm, 0, DLS_NORM_RMS)
        || outside(p, "model.mlp", c->mlp, 0, DLS_MLP_GELU_ERF)
        || outside(p, "model.positions", c->positions, 0, DLS_POSITIONS_ROTARY)
        || outside(p, "model.recompute", c->recompute, 0, DLS_RECOMPUTE_FULL);
}

/* find what can not be cut */
static int nearest_kv_heads(const dls_transformer_config *c, int t)
{
    for (int d = 1; d < c->heads; d++)
        for (int sign = -1; sign <= 1; sign += 2) {
            int k = c->kv_heads + sign * d;
            if (k > 0 && c->heads % k == 0 && (k % t == 0 || t % k == 0))
                return k;
        }
    return c->heads;
}

static int can_not_be_cut(const dls_transformer_config *c, problem *p)
{
    int t = c->sharding.tensor, H = c->heads, Hk = c->kv_heads;
    if (t <= 1)
        return 0;
    if (H % t != 0)
        return impossible(p, "model.heads", "expected a multiple of the %d tensor ranks, "
                          "got %d; the nearest is %d", t, H,
                          H < t ? t : (2 * H + t) / (2 * t) * t);
    if (Hk % t != 0 && t % Hk != 0)
        return impossible(p, "model.kv_heads", "expected a multiple or a divisor of the "
                          "%d tensor ranks, got %d; the nearest is %d", t, Hk,
                          nearest_kv_heads(c, t));
    return outside(p, "parallel.tp: the rank", c->sharding.tensor_rank, 0, t - 1)
        || outside(p, "model.hidden", c->hidden, t, 1 << 20)
        || outside(p, "model.vocabulary", c->vocabulary, t, 1 << 20);
}

dls_status dls_transformer_config_check(const dls_transformer_config *c)
{
    problem p;
    if (out_of_range(c, &p) || contradicts_itself(c, &p) || can_not_be_cut(c, &p)
        || (p.key = dls_moe_problem(c, p.text)))
        return DLS_FAIL(DLS_ERR_INPUT, "%s: %s", p.key, p.text);
    if (c->from_unit < 0 || c->to_unit > c->layers + 2
        || (c->to_unit > 0 && c->from_unit >= c->to_unit))
        return DLS_FAIL(DLS_ERR_INPUT, "units %d ... %d: the model has 0 ... %d",
                        c->from_unit, c->to_unit - 1, c->layers + 1);
    return DLS_OK;
}

/* read an integer setting */
static dls_status read_int(dls_config *cfg, const char *key, int min, int max, int *to)
{
    int64_t v;
    DLS_TRY(dls_config_int(cfg, key, min, max, &v));
    *to = (int)v;
    return DLS_OK;
}

static dls_status read_int_or(dls_config *cfg, const char *key, int min, int max,
                              int fallback, int *to)
{
    int64_t v;
    DLS_TRY(dls_config_int_or(cfg, key, min, max, fallback, &v));
    *to = (int)v;
    return DLS_OK;
}

/* read the sizes of a model */
static dls_status read_sizes(dls_config *cfg, dls_transformer_config *c)
{
    DLS_TRY(read_int(cfg, "model.vocabulary", 2, 1 << 20, &c->vocabulary));
    DLS_TRY(read_int(cfg, "model.context", 1, 1 << 20, &c->context));
    DLS_TRY(read_int(cfg, "model.layers", 1, 1000, &c->layers));
    DLS_TRY(read_int(cfg, "model.heads", 1, 1024, &c->heads));
    DLS_TRY(read_int(cfg, "model.channels", 1, 1 << 16, &c->channels));
    if (c->channels % c->heads != 0 && !dls_config_has(cfg, "model.head_size"))
        return dls_config_fail(cfg, "model.heads", "expected a divisor of the %d "
                               "channels, got %d", c->channels, c->heads);
    return DLS_OK;
}

/* choose the family */
static dls_status choose_family(dls_config *cfg, dls_transformer_config *c)
{
    int family, C = c->channels;
    DLS_TRY(dls_config_choice_or(cfg, "model.family", "gpt2|llama", 0, &family));
    *c = family == 0
        ? dls_transformer_gpt2(c->vocabulary, c->context, c->layers, c->heads, C)
        : dls_transformer_llama(c->vocabulary, c->context, c->layers, c->heads, c->heads,
                                C, (8 * C / 3 + 255) / 256 * 256);
    DLS_TRY(read_int_or(cfg, "model.kv_heads", 1, 1024, c->kv_heads, &c->kv_heads));
    DLS_TRY(read_int_or(cfg, "model.head_size", 1, 512, c->head_size, &c->head_size));
    return read_int_or(cfg, "model.hidden", 1, 1 << 20, c->hidden, &c->hidden);
}

/* read the rotation */
static const struct { const char *key; size_t at; } rotation[] = {
    {"model.rope_theta", offsetof(dls_rope, theta)},
    {"model.rope_factor", offsetof(dls_rope, factor)},
    {"model.rope_low_freq_factor", offsetof(dls_rope, low_freq_factor)},
    {"model.rope_high_freq_factor", offsetof(dls_rope, high_freq_factor)},
    {"model.rope_beta_fast", offsetof(dls_rope, beta_fast)},
    {"model.rope_beta_slow", offsetof(dls_rope, beta_slow)},
    {"model.rope_attention_factor", offsetof(dls_rope, attention_factor)},
    {"model.rope_mscale", offsetof(dls_rope, mscale)},
    {"model.rope_mscale_all_dim", offsetof(dls_rope, mscale_all_dim)}};
enum { ROTATIONS = sizeof rotation / sizeof *rotation };

static dls_status read_scaling(dls_config *cfg, dls_transformer_config *c)
{
    int scaling;
    DLS_TRY(dls_config_choice_or(cfg, "model.rope_scaling",
                                 "plain|linear|dynamic|yarn|llama3", c->rope.scaling,
                                 &scaling));
    c->rope.scaling = (dls_rope_scaling)scaling;
    DLS_TRY(read_int_or(cfg, "model.rope_dim", 2, 512, c->rope.dim, &c->rope.dim));
    DLS_TRY(read_int_or(cfg, "model.rope_original", 1, 1 << 30, c->rope.original,
                        &c->rope.original));
    return dls_config_bool_or(cfg, "model.rope_untruncated", c->rope.untruncated,
                              &c->rope.untruncated);
}

static dls_status read_rotation(dls_config *cfg, dls_transformer_config *c)
{
    int rotary = c->positions == DLS_POSITIONS_ROTARY;
    for (int i = 0; i < ROTATIONS; i++) {
        double *to = (double *)((char *)&c->rope + rotation[i].at);
        if (!rotary && dls_config_has(cfg, rotation[i].key))
            return dls_config_fail(cfg, rotation[i].key, "learned positions are not "
                                   "rotated; expected model.positions: rotary");
        DLS_TRY(dls_config_real_or(cfg, rotation[i].key, 0, 1e12, *to, to));
    }
    return rotary ? read_scaling(cfg, c) : DLS_OK;
}

/* read the choices of a model */
static dls_status read_choices(dls_config *cfg, dls_transformer_config *c)
{
    int norm, mlp, positions, recompute;
    DLS_TRY(dls_config_choice_or(cfg, "model.norm", "layernorm|rmsnorm", c->norm, &norm));
    DLS_TRY(dls_config_choice_or(cfg, "model.mlp", "gelu|swiglu|gelu_erf", c->mlp,
                                 &mlp));
    DLS_TRY(dls_config_choice_or(cfg, "model.positions", "learned|rotary", c->positions,
                                 &positions));
    DLS_TRY(dls_config_choice_or(cfg, "model.recompute", "none|selective|full",
                                 c->recompute, &recompute));
    c->norm = (dls_norm)norm;
    c->mlp = (dls_mlp)mlp;
    c->positions = (dls_positions)positions;
    c->recompute = (dls_recompute)recompute;
    return read_rotation(cfg, c);
}

/* read the details of a model */
static dls_status read_dropout(dls_config *cfg, dls_transformer_config *c)
{
    const double most = 1 - 0x1p-20;
    double all;
    DLS_TRY(dls_config_real_or(cfg, "model.dropout", 0, most, 0, &all));
    DLS_TRY(dls_config_real_or(cfg, "model.embedding_dropout", 0, most, all,
                               &c->embedding_dropout));
    DLS_TRY(dls_config_real_or(cfg, "model.attention_dropout", 0, most, all,
                               &c->attention_dropout));
    return dls_config_real_or(cfg, "model.residual_dropout", 0, most, all,
                              &c->residual_dropout);
}

static dls_status read_details(dls_config *cfg, dls_transformer_config *c)
{
    DLS_TRY(dls_config_real_or(cfg, "model.norm_epsilon", 1e-30, 1, c->norm_epsilon,
                               &c->norm_epsilon));
    DLS_TRY(dls_config_bool_or(cfg, "model.qkv_bias", c->qkv_bias, &c->qkv_bias));
    DLS_TRY(dls_config_bool_or(cfg, "model.proj_bias", c->proj_bias, &c->proj_bias));
    DLS_TRY(dls_config_bool_or(cfg, "model.mlp_bias", c->mlp_bias, &c->mlp_bias));
    DLS_TRY(dls_config_bool_or(cfg, "model.tied_head", c->tied_head, &c->tied_head));
    return read_dropout(cfg, c);
}

/* load the transformer configuration */
dls_status dls_transformer_config_load(dls_transformer_config *c, dls_config *cfg)
{
    problem p;
    *c = (dls_transformer_config){0};
    DLS_TRY(read_sizes(cfg, c));
    DLS_TRY(choose_family(cfg, c));
    DLS_TRY(read_choices(cfg, c));
    DLS_TRY(read_details(cfg, c));
    DLS_TRY(dls_moe_load(c, cfg));
    if (out_of_range(c, &p) || contradicts_itself(c, &p))
        return dls_config_fail(cfg, p.key, "%s", p.text);
    return DLS_OK;
}

/* write down the rotation */
static const char *yes_no(int flag)
{
    return flag ? "yes" : "no";
}

static void write_rotation(const dls_transformer_config *c, char *text, size_t size)
{
    static const char *const words[] = {"plain", "linear", "dynamic", "yarn", "llama3"};
    dls_rope rope = dls_transformer_rope(c);
    size_t n = (size_t)snprintf(text, size, "model.rope_scaling=%s\nmodel.rope_dim=%d\n",
                                words[rope.scaling], rope.dim);
    for (int i = 0; i < ROTATIONS; i++)
        n += (size_t)snprintf(text + n, size - n, "%s=%.17g\n", rotation[i].key,
                              *(double *)((char *)&rope + rotation[i].at));
    if (rope.original > 0)
        n += (size_t)snprintf(text + n, size - n, "model.rope_original=%d\n",
                              rope.original);
    snprintf(text + n, size - n, "model.rope_untruncated=%s\n",
             yes_no(rope.untruncated));
}

/* write down a model */
void dls_transformer_settings(const dls_transformer_config *c,
                              char text[DLS_MODEL_SETTINGS])
{
    snprintf(text, DLS_MODEL_SETTINGS,
             "model.vocabulary=%d\nmodel.context=%d\nmodel.layers=%d\nmodel.heads=%d\n"
             "model.channels=%d\nmodel.kv_heads=%d\nmodel.head_size=%d\n"
             "model.hidden=%d\nmodel.norm=%s\nmodel.norm_epsilon=%.17g\nmodel.mlp=%s\n"
             "model.qkv_bias=%s\nmodel.proj_bias=%s\nmodel.mlp_bias=%s\n"
             "model.tied_head=%s\nmodel.embedding_dropout=%.17g\n"
             "model.attention_dropout=%.17g\nmodel.residual_dropout=%.17g\n"
             "model.positions=%s\n",
             c->vocabulary, c->context, c->layers, c->heads, c->channels, c->kv_heads,
             c->head_size, c->hidden, c->norm == DLS_NORM_RMS ? "rmsnorm" : "layernorm",
             c->norm_epsilon, ((const char *[]){"gelu", "swiglu", "gelu_erf"})[c->mlp],
             yes_no(c->qkv_bias), yes_no(c->proj_bias), yes_no(c->mlp_bias),
             yes_no(c->tied_head), c->embedding_dropout, c->attention_dropout,
             c->residual_dropout,
             c->positions == DLS_POSITIONS_ROTARY ? "rotary" : "learned");
    if (c->positions == DLS_POSITIONS_ROTARY)
        write_rotation(c, text + strlen(text), DLS_MODEL_SETTINGS - strlen(text));
    dls_moe_settings(&c->moe, text, DLS_MODEL_SETTINGS);
}

/* parse the settings of a model */
static dls_status add_lines(dls_config *cfg, const char *name, const char *text)
{
    for (size_t n; *text; text += n + (text[n] != 0)) {
        char line[256];
        n = strcspn(text, "\n");
        if (strncmp(text, "model.", 6) != 0)
            continue;
        if (n >= sizeof line)
            return DLS_FAIL(DLS_ERR_INPUT, "%s: a setting of %zu bytes", name, n);
        snprintf(line, sizeof line, "%.*s", (int)n, text);
        DLS_TRY(dls_config_override(cfg, line));
    }
    return DLS_OK;
}

dls_status dls_transformer_config_parse(dls_transformer_config *c, const char *name,
                                        const char *settings)
{
    dls_config *cfg;
    DLS_TRY(dls_config_parse(name, "model: {}\n", 10, &cfg));
    dls_status s = add_lines(cfg, name, settings);
    if (s == DLS_OK)
        s = dls_transformer_config_load(c, cfg);
    if (s == DLS_OK)
        s = dls_config_check_unused(cfg);
    dls_config_free(cfg);
    return s;
}

/* count the parameters */
/* Of the block's experts `experts` count; 0: a dense block. */
static size_t block_parameters(const dls_transformer_config *c, int experts)
{
    size_t C = c->channels, F = c->hidden, q = (size_t)c->heads * c->head_size;
    size_t qkv = q + 2 * (size_t)c->kv_heads * c->head_size;
    size_t up = c->mlp == DLS_MLP_SWIGLU ? 2 * F : F;
    size_t norms = c->norm == DLS_NORM_LAYER ? 4 * C : 2 * C;
    size_t mlp = experts ? dls_moe_parameters(c, experts)
        : up * C + C * F + (c->mlp_bias ? up + C : 0);
    return qkv * C + C * q + mlp + norms
        + (c->qkv_bias ? qkv : 0) + (c->proj_bias ? C : 0);
}

static size_t count(const dls_transformer_config *c, int experts)
{
    size_t dense = experts ? c->moe.dense_layers : c->layers;
    size_t C = c->channels, tables = (size_t)c->vocabulary * C;
    if (c->positions == DLS_POSITIONS_LEARNED)
        tables += c->context * C;
    if (!c->tied_head)
        tables += c->vocabulary * C;
    return tables + dense * block_parameters(c, 0)
        + (c->layers - dense) * block_parameters(c, experts)
        + (c->norm == DLS_NORM_LAYER ? 2 * C : C);
}

size_t dls_transformer_parameter_count(const dls_transformer_config *c)
{
    return count(c, c->moe.experts);
}

size_t dls_transformer_active_count(const dls_transformer_config *c)
{
    return count(c, c->moe.experts ? c->moe.chosen : 0);
}
