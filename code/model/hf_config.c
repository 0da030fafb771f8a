/* code/model/hf_config.c: from chapters/09-transformer-checkpoints.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * config.json, both ways. Every field that changes a number is understood or refused.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "model/hf_internal.h"
#include "model/moe_config.h"

/* define the field reader */
typedef struct fields {
    const char *path;
    json_t *object;
    dls_status status;          /* the first failure sticks */
} fields;

static void mistyped(fields *f, const char *key, const char *expected)
{
    json_t *value = json_object_get(f->object, key);
    char *got = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
    f->status = DLS_FAIL(DLS_ERR_INPUT, "%s: %s: expected %s, got %.80s", f->path, key,
                         expected, got ? got : "nothing");
    free(got);
}

/* read typed fields */
static json_t *field(const fields *f, const char *key)
{
    json_t *value = json_object_get(f->object, key);
    return f->status != DLS_OK || json_is_null(value) ? NULL : value;
}

/* A fallback of -1 says that the field must be there. */
static int whole(fields *f, const char *key, int fallback)
{
    json_t *value = field(f, key);
    json_int_t v = json_is_integer(value) ? json_integer_value(value) : -1;
    if (!value && fallback >= 0)
        return fallback;
    if (f->status == DLS_OK && (v < 0 || v > 1 << 24))
        mistyped(f, key, "a whole number up to 16777216");
    return f->status == DLS_OK ? (int)v : 1;
}

static double number(fields *f, const char *key, double fallback)
{
    json_t *value = field(f, key);
    if (value && !json_is_number(value))
        mistyped(f, key, "a number");
    return json_is_number(value) ? json_number_value(value) : fallback;
}

/* read words and truths */
static int truth(fields *f, const char *key, int fallback)
{
    json_t *value = field(f, key);
    if (value && !json_is_boolean(value))
        mistyped(f, key, "true or false");
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

static const char *word(fields *f, const char *key, const char *fallback)
{
    json_t *value = field(f, key);
    if (value && !json_is_string(value))
        mistyped(f, key, "a string");
    return json_is_string(value) ? json_string_value(value) : fallback;
}

/* demand a word */
/* The field must be one of `words`, separated by |, or absent. */
static void demand(fields *f, const char *key, const char *words)
{
    const char *got = word(f, key, NULL);
    size_t n = got ? strlen(got) : 0;
    for (const char *w = words; got && f->status == DLS_OK; w++) {
        size_t m = strcspn(w, "|");
        if (m == n && memcmp(w, got, n) == 0)
            return;
        if (!w[m])
            mistyped(f, key, words);
        w += m;
    }
}

static void demand_truth(fields *f, const char *key, int value)
{
    if (truth(f, key, value) != value && f->status == DLS_OK)
        mistyped(f, key, value ? "true (nothing else is supported)"
                               : "false (nothing else is supported)");
}

/* read the rope */
/* name the scalings */
static const char *const scalings[] = {
    [DLS_ROPE_PLAIN] = "default", [DLS_ROPE_LINEAR] = "linear",
    [DLS_ROPE_DYNAMIC] = "dynamic", [DLS_ROPE_YARN] = "yarn",
    [DLS_ROPE_LLAMA3] = "llama3"};

static dls_rope_scaling read_scaling(fields *f)
{
    const char *name = word(f, "rope_type", word(f, "type", "default"));
    for (int i = 0; i <= DLS_ROPE_LLAMA3; i++)
        if (strcmp(name, scalings[i]) == 0)
            return (dls_rope_scaling)i;
    if (f->status == DLS_OK)
        mistyped(f, field(f, "rope_type") ? "rope_type" : "type",
                 "default, linear, dynamic, yarn or llama3");
    return DLS_ROPE_PLAIN;
}

static void read_scaled(fields *f, dls_transformer_config *c, dls_rope *r)
{
    r->theta = number(f, "rope_theta", r->theta);
    r->scaling = read_scaling(f);
    if (r->scaling == DLS_ROPE_PLAIN)
        return;
    r->original = whole(f, "original_max_position_embeddings", c->context);
    double ratio = r->original > 0 ? (double)c->context / r->original : 0;
    r->factor = number(f, "factor", r->scaling == DLS_ROPE_YARN ? ratio : 0);
    r->low_freq_factor = number(f, "low_freq_factor", 0);
    r->high_freq_factor = number(f, "high_freq_factor", 0);
    r->beta_fast = number(f, "beta_fast", 0);
    r->beta_slow = number(f, "beta_slow", 0);
    r->attention_factor = number(f, "attention_factor", 0);
    r->mscale = number(f, "mscale", 0);
    r->mscale_all_dim = number(f, "mscale_all_dim", 0);
    r->untruncated = !truth(f, "truncate", 1);
}

static void read_rope(fields *f, dls_transformer_config *c)
{
    const char *key = field(f, "rope_parameters") ? "rope_parameters" : "rope_scaling";
    json_t *scaling = field(f, key);
    c->rope.theta = number(f, "rope_theta", 10000);
    double share = number(f, "partial_rotary_factor", 1);
    if (scaling && !json_is_object(scaling))
        mistyped(f, key, "an object");
    if (scaling && f->status == DLS_OK) {
        fields inner = {f->path, scaling, DLS_OK};
        read_scaled(&inner, c, &c->rope);
        share = number(&inner, "partial_rotary_factor", share);
        f->status = inner.status;
    }
    if (share != 1)
        c->rope.dim = share > 0 && share < 1 ? (int)(c->head_size * share) : -1;
}

/* read a gpt2 configuration */
static dls_transformer_config read_gpt2(fields *f)
{
    dls_transformer_config c = dls_transformer_gpt2(
        whole(f, "vocab_size", -1), whole(f, "n_positions", -1), whole(f, "n_layer", -1),
        whole(f, "n_head", -1), whole(f, "n_embd", -1));
    c.hidden = whole(f, "n_inner", 4 * c.channels);
    c.norm_epsilon = number(f, "layer_norm_epsilon", 1e-5);
    c.embedding_dropout = number(f, "embd_pdrop", 0.1);
    c.attention_dropout = number(f, "attn_pdrop", 0.1);
    c.residual_dropout = number(f, "resid_pdrop", 0.1);
    c.tied_head = truth(f, "tie_word_embeddings", 1);
    demand(f, "activation_function", "gelu_new|gelu_pytorch_tanh|gelu");
    if (strcmp(word(f, "activation_function", "gelu_new"), "gelu") == 0)
        c.mlp = DLS_MLP_GELU_ERF;
    demand_truth(f, "scale_attn_weights", 1);
    demand_truth(f, "scale_attn_by_inverse_layer_idx", 0);
    demand_truth(f, "add_cross_attention", 0);
    if (f->status == DLS_OK && c.heads > 0 && c.channels % c.heads != 0)
        mistyped(f, "n_head", "a divisor of n_embd");
    return c;
}

/* read a llama configuration */
static dls_transformer_config read_llama(fields *f)
{
    int heads = whole(f, "num_attention_heads", -1);
    int channels = whole(f, "hidden_size", -1);
    dls_transformer_config c = dls_transformer_llama(
        whole(f, "vocab_size", -1), whole(f, "max_position_embeddings", 2048),
        whole(f, "num_hidden_layers", -1), heads,
        whole(f, "num_key_value_heads", heads), channels,
        whole(f, "intermediate_size", -1));
    c.head_size = whole(f, "head_dim", c.head_size);
    c.norm_epsilon = number(f, "rms_norm_eps", 1e-6);
    c.tied_head = truth(f, "tie_word_embeddings", 0);
    c.qkv_bias = c.proj_bias = truth(f, "attention_bias", 0);
    c.mlp_bias = truth(f, "mlp_bias", 0);
    c.attention_dropout = number(f, "attention_dropout", 0);
    demand(f, "hidden_act", "silu|swish");
    if (f->status == DLS_OK && !field(f, "head_dim") && heads > 0
        && channels % heads != 0)
        mistyped(f, "num_attention_heads", "a divisor of hidden_size");
    read_rope(f, &c);
    return c;
}

static dls_transformer_config read_mixtral(fields *f)
{
    dls_transformer_config c = read_llama(f);
    c.moe = dls_moe_mixtral(whole(f, "num_local_experts", 8),
                            whole(f, "num_experts_per_tok", 2), c.hidden);
    c.moe.aux_batch = number(f, "router_aux_loss_coef", 0.001);
    if (!field(f, "rope_theta") && !field(f, "rope_parameters"))
        c.rope.theta = 1e6;
    if (number(f, "sliding_window", c.context) < c.context && f->status == DLS_OK)
        mistyped(f, "sliding_window", "null (nothing else is supported)");
    if (number(f, "router_jitter_noise", 0) != 0 && f->status == DLS_OK)
        mistyped(f, "router_jitter_noise", "0 (nothing else is supported)");
    return c;
}

static dls_transformer_config read_deepseek(fields *f)
{
    dls_transformer_config c = read_llama(f);
    c.moe = (dls_moe){.experts = whole(f, "n_routed_experts", -1),
                      .chosen = whole(f, "num_experts_per_tok", -1),
                      .hidden = whole(f, "moe_intermediate_size", 1407),
                      .shared = whole(f, "n_shared_experts", 0),
                      .dense_layers = whole(f, "first_k_dense_replace", 0),
                      .normalised = truth(f, "norm_topk_prob", 0)};
    double loss = number(f, "aux_loss_alpha", 0.001);
    *(truth(f, "seq_aux", 1) ? &c.moe.aux_sequence : &c.moe.aux_batch) = loss;
    demand(f, "scoring_func", "softmax");
    if (whole(f, "moe_layer_freq", 1) != 1 && f->status == DLS_OK)
        mistyped(f, "moe_layer_freq", "1 (nothing else is supported)");
    return c;
}

/* read the stop tokens */
static void read_tokens(fields *f, dls_hf_config *out)
{
    json_t *eos = field(f, "eos_token_id");
    size_t n = json_is_array(eos) ? json_array_size(eos) : eos != NULL;
    out->bos = field(f, "bos_token_id") ? whole(f, "bos_token_id", -1) : -1;
    if (n > DLS_HF_STOPS) {
        mistyped(f, "eos_token_id", "at most 8 tokens");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        json_t *token = json_is_array(eos) ? json_array_get(eos, i) : eos;
        json_int_t v = json_is_integer(token) ? json_integer_value(token) : -1;
        if (v < 0 || v >= out->model.vocabulary) {
            mistyped(f, "eos_token_id", "tokens of the vocabulary");
            return;
        }
        out->eos[out->n_eos++] = (int)v;
    }
}

/* read the fields */
static dls_status read_fields(fields *f, dls_hf_config *out)
{
    const char *type = word(f, "model_type", "nothing");
    if (strcmp(type, "gpt2") == 0)
        out->model = read_gpt2(f);
    else if (strcmp(type, "llama") == 0)
        out->model = read_llama(f);
    else if (strcmp(type, "mixtral") == 0)
        out->model = read_mixtral(f);
    else if (strcmp(type, "deepseek") == 0)
        out->model = read_deepseek(f);
    else if (f->status == DLS_OK)
        mistyped(f, "model_type", "gpt2, llama, mixtral or deepseek");
    DLS_TRY(f->status);
    read_tokens(f, out);
    DLS_TRY(f->status);
    if (dls_transformer_config_check(&out->model) != DLS_OK) {
        char why[512];
        snprintf(why, sizeof why, "%s", dls_status_message());
        return DLS_FAIL(DLS_ERR_INPUT, "%s: %s", f->path, why);
    }
    return DLS_OK;
}

/* load the hf configuration */
dls_status dls_hf_config_load(const char *directory, dls_hf_config *out)
{
    char path[PATH_MAX];
    *out = (dls_hf_config){.bos = -1};
    DLS_TRY(dls_hf_path(path, directory, "config.json"));
    fields f = {.path = path};
    DLS_TRY(dls_hf_json(path, &f.object));
    dls_status s = read_fields(&f, out);
    json_decref(f.object);
    return s;
}

dls_status dls_hf_path(char path[PATH_MAX], const char *directory, const char *name)
{
    int n = snprintf(path, PATH_MAX, "%s/%s", directory, name);
    if (n < 0 || n >= PATH_MAX)
        return DLS_FAIL(DLS_ERR_INPUT, "%.200s...: a path has at most %d bytes",
                        directory, PATH_MAX - 1);
    return DLS_OK;
}

/* describe a gpt2 */
static json_t *describe_gpt2(const dls_transformer_config *c)
{
    return json_pack(
        "{s:s, s:[s], s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:f, s:f, s:f}",
        "model_type", "gpt2", "architectures", "GPT2LMHeadModel",
        "vocab_size", c->vocabulary, "n_positions", c->context, "n_embd", c->channels,
        "n_layer", c->layers, "n_head", c->heads, "n_inner", c->hidden,
        "activation_function", c->mlp == DLS_MLP_GELU ? "gelu_new" : "gelu",
        "layer_norm_epsilon", c->norm_epsilon,
        "embd_pdrop", c->embedding_dropout, "attn_pdrop", c->attention_dropout,
        "resid_pdrop", c->residual_dropout);
}

/* describe the rope */
static void put_number(json_t *out, const char *key, double value)
{
    if (value > 0)
        json_object_set_new(out, key, json_real(value));
}

/* The fraction that a reader's (int)(head_size * fraction) turns back into dim. */
static double rotary_share(int dim, int head_size)
{
    double share = (double)dim / head_size;
    return (int)(head_size * share) < dim ? nextafter(share, 1) : share;
}

static void describe_rope(json_t *out, const dls_transformer_config *c)
{
    const dls_rope *r = &c->rope;
    json_object_set_new(out, "rope_theta", json_real(r->theta));
    if (r->dim > 0 && r->dim != c->head_size)
        put_number(out, "partial_rotary_factor", rotary_share(r->dim, c->head_size));
    if (r->scaling == DLS_ROPE_PLAIN)
        return;
    json_t *s = json_pack("{s:s, s:f, s:i}", "rope_type", scalings[r->scaling], "factor",
                          r->factor, "original_max_position_embeddings", r->original);
    put_number(s, "low_freq_factor", r->low_freq_factor);
    put_number(s, "high_freq_factor", r->high_freq_factor);
    put_number(s, "beta_fast", r->beta_fast);
    put_number(s, "beta_slow", r->beta_slow);
    put_number(s, "attention_factor", r->attention_factor);
    put_number(s, "mscale", r->mscale);
    put_number(s, "mscale_all_dim", r->mscale_all_dim);
    if (r->untruncated)
        json_object_set_new(s, "truncate", json_false());
    json_object_set_new(out, "rope_scaling", s);
}

/* describe a llama */
static json_t *describe_llama(const dls_transformer_config *c)
{
    json_t *out = json_pack(
        "{s:s, s:[s], s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:b, s:b, s:f}",
        "model_type", "llama", "architectures", "LlamaForCausalLM",
        "vocab_size", c->vocabulary, "max_position_embeddings", c->context,
        "hidden_size", c->channels, "intermediate_size", c->hidden,
        "num_hidden_layers", c->layers, "num_attention_heads", c->heads,
        "num_key_value_heads", c->kv_heads, "head_dim", c->head_size,
        "hidden_act", "silu", "rms_norm_eps", c->norm_epsilon,
        "attention_bias", c->qkv_bias, "mlp_bias", c->mlp_bias,
        "attention_dropout", c->attention_dropout);
    describe_rope(out, c);
    return out;
}

static void describe_routed(json_t *out, const dls_moe *m)
{
    json_object_set_new(out, "n_routed_experts", json_integer(m->experts));
    json_object_set_new(out, "n_shared_experts", json_integer(m->shared));
    json_object_set_new(out, "moe_intermediate_size", json_integer(m->hidden));
    json_object_set_new(out, "first_k_dense_replace", json_integer(m->dense_layers));
    json_object_set_new(out, "moe_layer_freq", json_integer(1));
    json_object_set_new(out, "norm_topk_prob", json_boolean(m->normalised));
    json_object_set_new(out, "scoring_func", json_string("softmax"));
    json_object_set_new(out, "seq_aux", json_boolean(m->aux_batch == 0));
    json_object_set_new(out, "aux_loss_alpha",
                        json_real(m->aux_batch + m->aux_sequence));
}

static void describe_experts(json_t *out, const dls_transformer_config *c,
                             dls_hf_family family)
{
    const dls_moe *m = &c->moe;
    int mixtral = family == DLS_HF_MIXTRAL;
    if (m->experts == 0)
        return;
    json_object_del(out, "mlp_bias");
    json_object_set_new(out, "model_type", json_string(mixtral ? "mixtral" : "deepseek"));
    json_object_set_new(out, "architectures",
                        json_pack("[s]", mixtral ? "MixtralForCausalLM"
                                                 : "DeepseekForCausalLM"));
    json_object_set_new(out, "num_experts_per_tok", json_integer(m->chosen));
    if (!mixtral) {
        describe_routed(out, m);
        return;
    }
    json_object_set_new(out, "num_local_experts", json_integer(m->experts));
    json_object_set_new(out, "router_aux_loss_coef", json_real(m->aux_batch));
    json_object_set_new(out, "sliding_window", json_null());
}

/* find the family */
static int is_gpt2(const dls_transformer_config *c)
{
    return c->norm == DLS_NORM_LAYER && c->mlp != DLS_MLP_SWIGLU
        && c->positions == DLS_POSITIONS_LEARNED && c->kv_heads == c->heads
        && c->head_size * c->heads == c->channels && c->qkv_bias && c->proj_bias
        && c->mlp_bias;
}

static int is_llama(const dls_transformer_config *c)
{
    return c->norm == DLS_NORM_RMS && c->mlp == DLS_MLP_SWIGLU
        && c->positions == DLS_POSITIONS_ROTARY && c->qkv_bias == c->proj_bias
        && c->embedding_dropout == 0 && c->residual_dropout == 0;
}

/* What the files of models with experts can not say. */
static int has_plain_experts(const dls_moe *m)
{
    return m->gate == DLS_GATE_SOFTMAX && (m->scale == 0 || m->scale == 1)
        && m->group_limit == 0 && m->capacity == 0 && m->bias_rate == 0 && !m->balanced;
}

static dls_hf_family family_of_experts(const dls_transformer_config *c)
{
    const dls_moe *m = &c->moe;
    if (!is_llama(c) || c->mlp_bias || !has_plain_experts(m))
        return DLS_HF_NONE;
    return m->normalised && m->shared == 0 && m->dense_layers == 0 && !c->qkv_bias
        && m->hidden == c->hidden ? DLS_HF_MIXTRAL : DLS_HF_DEEPSEEK;
}

dls_hf_family dls_hf_family_of(const dls_transformer_config *c)
{
    return c->moe.experts > 0 ? family_of_experts(c)
        : is_gpt2(c) ? DLS_HF_GPT2 : is_llama(c) ? DLS_HF_LLAMA : DLS_HF_NONE;
}

/* save the hf configuration */
static json_t *describe(const dls_hf_config *c, dls_dtype dtype)
{
    const char *type = dtype == DLS_F64 ? "float64"
                     : dtype == DLS_F32 ? "float32" : "bfloat16";
    dls_hf_family family = dls_hf_family_of(&c->model);
    json_t *out = family == DLS_HF_GPT2 ? describe_gpt2(&c->model)
                                        : describe_llama(&c->model);
    describe_experts(out, &c->model, family);
    json_t *eos = json_array();
    for (int i = 0; i < c->n_eos; i++)
        json_array_append_new(eos, json_integer(c->eos[i]));
    json_object_set_new(out, "tie_word_embeddings", json_boolean(c->model.tied_head));
    json_object_set_new(out, "torch_dtype", json_string(type));
    json_object_set_new(out, "bos_token_id",
                        c->bos < 0 ? json_null() : json_integer(c->bos));
    json_object_set_new(out, "eos_token_id",
                        c->n_eos == 0 ? json_null()
                        : c->n_eos == 1 ? json_integer(c->eos[0]) : json_incref(eos));
    json_decref(eos);
    return out;
}

dls_status dls_hf_config_save(const char *directory, const dls_hf_config *c,
                              dls_dtype dtype)
{
    char path[PATH_MAX];
    DLS_TRY(dls_hf_path(path, directory, "config.json"));
    if (dls_hf_family_of(&c->model) == DLS_HF_NONE)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: this model is neither a gpt2 nor a llama",
                        directory);
    return dls_hf_write_json(path, describe(c, dtype));
}
