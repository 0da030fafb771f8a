/* tests/model/test_hf.c: from chapters/09-transformer-checkpoints-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Directories in the Hugging Face layout: reference logits, round trips, mismatches. */
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../base/expect.h"
#include "../base/folder.h"
#include "base/file.h"
#include "base/log.h"
#include "base/rng.h"
#include "model/hf.h"
#include "model/safetensors.h"
#include "model/transformer.h"
#include "vgpu/gpu.h"

#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

/* describe a directory */
typedef struct spec { char name[96]; int ndim; size_t shape[2]; } spec;

typedef struct made { spec list[128]; size_t n; } made;

static void add(made *m, size_t rows, size_t columns, const char *format, ...)
{
    spec *s = &m->list[m->n++];
    va_list args;
    va_start(args, format);
    vsnprintf(s->name, sizeof s->name, format, args);
    va_end(args);
    s->ndim = columns ? 2 : 1;
    s->shape[0] = rows;
    s->shape[1] = columns;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const spec *)a)->name, ((const spec *)b)->name);
}

/* fill a directory */
static int is_norm(const char *name)
{
    const char *weight = strstr(name, "weight");
    return weight && (strstr(name, "ln_") || strstr(name, "norm"));
}

static double element(const spec *s, size_t i, size_t k, uint64_t seed)
{
    return is_norm(s->name) + (dls_rng_uniform(seed, i, k) - 0.5) / 2;
}

/* Writes the tensors from .. to of m in the type of `dtype`. */
static void write_part(const made *m, size_t from, size_t to, const char *file,
                       dls_dtype dtype, uint64_t seed)
{
    dls_stored_tensor t[128];
    dls_safetensors_writer *w;
    for (size_t i = from; i < to; i++)
        t[i] = (dls_stored_tensor){
            .name = m->list[i].name, .type = dls_stored_type_of(dtype),
            .ndim = m->list[i].ndim, .shape = {m->list[i].shape[0], m->list[i].shape[1]}};
    OK(dls_safetensors_begin(file, t + from, to - from, &w));
    for (size_t i = from; i < to; i++) {
        const spec *s = &m->list[i];
        for (size_t k = 0; k < s->shape[0] * (s->ndim == 2 ? s->shape[1] : 1); k++) {
            double x = element(s, i, k, seed);
            char out[8];
            dls_stored_read(DLS_STORED_F64, &x, 1, dtype, out);
            OK(dls_safetensors_append(w, out, dls_dtype_size(dtype)));
        }
    }
    OK(dls_safetensors_commit(w));
}

/* write the two files */
static void write_directory(made *m, const char *directory, const char *config,
                            dls_dtype dtype, uint64_t seed)
{
    char path[128];
    qsort(m->list, m->n, sizeof *m->list, by_name);
    OK(dls_file_mkdirs(directory));
    snprintf(path, sizeof path, "%s/config.json", directory);
    OK(dls_file_write(path, config, strlen(config)));
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    write_part(m, 0, m->n, path, dtype, seed);
}

/* make a tiny gpt2 */
enum { GV = 37, GT = 12, GL = 2, GC = 12, GF = 48, GN = 7 };

static const char gpt2_config[] =
    "{\"model_type\": \"gpt2\", \"architectures\": [\"GPT2LMHeadModel\"],"
    " \"vocab_size\": 37, \"n_positions\": 12, \"n_embd\": 12, \"n_layer\": 2,"
    " \"n_head\": 3, \"layer_norm_epsilon\": 1e-5, \"n_inner\": null,"
    " \"activation_function\": \"gelu_new\", \"bos_token_id\": 0,"
    " \"eos_token_id\": 36}";

static void gpt2_tensors(made *m, const char *prefix)
{
    m->n = 0;
    add(m, GV, GC, "%swte.weight", prefix);
    add(m, GT, GC, "%swpe.weight", prefix);
    add(m, GC, 0, "%sln_f.weight", prefix);
    add(m, GC, 0, "%sln_f.bias", prefix);
    const struct { const char *name; int in, out; } linear[4] = {
        {"attn.c_attn", GC, 3 * GC}, {"attn.c_proj", GC, GC},
        {"mlp.c_fc", GC, GF}, {"mlp.c_proj", GF, GC}};
    for (int l = 0; l < GL; l++) {
        for (int i = 0; i < 4; i++) {
            add(m, linear[i].in, linear[i].out, "%sh.%d.%s.weight", prefix, l,
                linear[i].name);
            add(m, linear[i].out, 0, "%sh.%d.%s.bias", prefix, l, linear[i].name);
        }
        for (int i = 1; i <= 2; i++) {
            add(m, GC, 0, "%sh.%d.ln_%d.weight", prefix, l, i);
            add(m, GC, 0, "%sh.%d.ln_%d.bias", prefix, l, i);
        }
    }
}

/* load a model */
typedef struct loaded {
    dls_hf_config config;
    dls_ctx ctx;
    dls_transformer *model;
    int T, *tokens;             /* device */
    double *logits;             /* (T, V) */
} loaded;

static void load_model(loaded *m, const char *directory, dls_dtype dtype, int T)
{
    *m = (loaded){.T = T};
    OK(dls_hf_config_load(directory, &m->config));
    OK(dls_ctx_create(&m->ctx, 0, dtype));
    OK(dls_transformer_create(&m->model, &m->ctx, &m->config.model, 1, T));
    OK(dls_hf_load(directory, &m->config.model, &m->model->params));
}

static void close_model(loaded *m)
{
    free(m->logits);
    dls_device_free(m->tokens);
    dls_transformer_free(m->model);
    dls_ctx_destroy(&m->ctx);
}

/* compute the logits */
static void compute_logits(loaded *m)
{
    int V = m->config.model.vocabulary, tokens[64];
    size_t n = (size_t)m->T * V, size = dls_dtype_size(m->ctx.dtype);
    for (int i = 0; i < m->T; i++)
        tokens[i] = (int)(dls_rng_u32(98, 0, i) % V);
    OK(dls_device_alloc((void **)&m->tokens, m->T, DLS_F32, DLS_MEM_OTHER));
    cudaMemcpy(m->tokens, tokens, m->T * sizeof(int), cudaMemcpyHostToDevice);
    OK(dls_transformer_forward(m->model, m->tokens, NULL, 1, m->T));
    OK(dls_ctx_sync(&m->ctx));
    char *raw = malloc(n * size);
    m->logits = malloc(n * sizeof(double));
    cudaMemcpy(raw, dls_pass_stash(&m->model->pass, m->model->head->slot[0]), n * size,
               cudaMemcpyDeviceToHost);
    dls_stored_read(dls_stored_type_of(m->ctx.dtype), raw, n, DLS_F64, m->logits);
    free(raw);
}

static void expect_logits(loaded *m, const double *last, const double *dots, double bound)
{
    int V = m->config.model.vocabulary;
    compute_logits(m);
    for (int v = 0; v < V; v++) {
        double got = m->logits[(m->T - 1) * V + v];
        cr_assert(fabs(got - last[v]) <= bound, "%d: %.17g, not %.17g", v, got, last[v]);
    }
    for (int t = 0; t < m->T; t++) {
        double dot = 0;
        for (int v = 0; v < V; v++)
            dot += m->logits[t * V + v] * (dls_rng_uniform(99, t, v) - 0.5);
        cr_assert(fabs(dot - dots[t]) <= bound * V / 4, "%d: %.17g", t, dot);
    }
}

/* test the gpt2 logits */
/* store the gpt2 logits */
static const double gpt2_last[GV] = {
    0.43357640324066204, -0.3918259434943965, -0.3798588979346515, 0.2412722209391773,
    0.2383423061190039, -0.5759629846183522, 0.07556770121177249, -0.06293764681766263,
    0.8908560096494968, 0.24888454720554679, 0.2871141056433535, 0.39368169387061397,
    -0.22069957084731112, 0.2997143703232077, 0.20074711556447794, -1.0696747440528462,
    0.4841307153685237, 0.0935434056654669, -0.3170703547409504, -0.6080297101494468,
    0.01840515113588369, 0.5836758903105091, -0.4633582638747476, -0.19750153375944932,
    -0.1634701860325194, 0.7219831520434439, -0.05274528658052946, -0.8820737358309253,
    -0.5439372688011163, -0.4094184150263759, -0.46046868626701754, -0.1151604227302672,
    -0.6068041040332908, -0.30602754524889003, -0.17858603440838333, -0.43778113226805887,
    0.25948638751193964,
};

static const double gpt2_dots[GN] = {
    0.0033952445082114716, -1.332009732210687, -0.3256359894550972, -0.638856158138945,
    -0.12489285563033237, -0.20539035627261906, -0.6899599029913679,
};

static double gpt2_bound(dls_dtype dtype)
{
    double roundings = dtype == DLS_BF16 ? GL * 18 + 5
                                         : GL * (5 * GC + GF + GN + 20) + 2 * GC;
    double unit = dtype == DLS_F64 ? 0x1p-53 : dtype == DLS_F32 ? 0x1p-24 : 0x1p-9;
    return roundings * unit * 1.5;
}

static void run_gpt2(dls_dtype dtype, const char *prefix)
{
    made m;
    loaded l;
    gpt2_tensors(&m, prefix);
    write_directory(&m, "gpt2", gpt2_config, DLS_F64, 11);
    load_model(&l, "gpt2", dtype, GN);
    cr_assert_eq(l.config.model.hidden, GF);
    cr_assert(l.config.bos == 0 && l.config.n_eos == 1 && l.config.eos[0] == 36);
    expect_logits(&l, gpt2_last, gpt2_dots, gpt2_bound(dtype));
    close_model(&l);
}

Test(hf, gpt2_agrees_in_f64, .init = enter, .fini = leave)
{
    run_gpt2(DLS_F64, "transformer.");
}

Test(hf, gpt2_agrees_in_f32, .init = enter, .fini = leave)
{
    run_gpt2(DLS_F32, "transformer.");
}

Test(hf, gpt2_agrees_in_bf16, .init = enter, .fini = leave)
{
    run_gpt2(DLS_BF16, "transformer.");
}

Test(hf, gpt2_needs_no_prefix, .init = enter, .fini = leave)
{
    run_gpt2(DLS_F64, "");
}

/* test the tiny llama */
/* make a tiny llama */
enum { LV = 41, LL = 2, LC = 24, LF = 20, LH = 4, LK = 2, LD = 8, LN = 21 };

static const char llama_config[] =
    "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"],"
    " \"vocab_size\": 41, \"max_position_embeddings\": 32, \"hidden_size\": 24,"
    " \"intermediate_size\": 20, \"num_hidden_layers\": 2, \"num_attention_heads\": 4,"
    " \"num_key_value_heads\": 2, \"head_dim\": 8, \"hidden_act\": \"silu\","
    " \"rms_norm_eps\": 1e-6, \"rope_theta\": 500.0, \"bos_token_id\": 1,"
    " \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0,"
    " \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0,"
    " \"original_max_position_embeddings\": 16}, \"eos_token_id\": [2, 40],"
    " \"tie_word_embeddings\": %s, \"attention_bias\": %s, \"mlp_bias\": %s}";

static void llama_tensors(made *m, int tied)
{
    const struct { const char *name; int out, in; } linear[7] = {
        {"self_attn.q_proj", LH * LD, LC}, {"self_attn.k_proj", LK * LD, LC},
        {"self_attn.v_proj", LK * LD, LC}, {"self_attn.o_proj", LC, LH * LD},
        {"mlp.gate_proj", LF, LC}, {"mlp.up_proj", LF, LC}, {"mlp.down_proj", LC, LF}};
    m->n = 0;
    add(m, LV, LC, "model.embed_tokens.weight");
    add(m, LC, 0, "model.norm.weight");
    if (!tied)
        add(m, LV, LC, "lm_head.weight");
    for (int l = 0; l < LL; l++) {
        for (int i = 0; i < 7; i++) {
            add(m, linear[i].out, linear[i].in, "model.layers.%d.%s.weight", l,
                linear[i].name);
            if (tied)
                add(m, linear[i].out, 0, "model.layers.%d.%s.bias", l, linear[i].name);
        }
        add(m, LC, 0, "model.layers.%d.input_layernorm.weight", l);
        add(m, LC, 0, "model.layers.%d.post_attention_layernorm.weight", l);
    }
}

/* store the llama logits */
static const double untied_last[LV] = {
    -0.4451719341632295, 0.18519019585319504, -0.0705578373403418, 0.8999236982111605,
    0.8791117949545265, -0.7851864936665759, -0.5668839902274131, -1.8783574183444045,
    -1.0180508953836105, -0.9092016546711104, -0.08820204175719899, 0.4369521149974775,
    1.037824408064878, 0.649766495024932, -1.1104545521175384, 0.1177841303761901,
    -0.03034452624991097, 1.1221364855948432, 0.5625231866421202, 0.2723595759643138,
    -0.15741700935152164, 0.1378179553930784, -0.5847641121710393, 1.5150521072425034,
    0.09989123812378527, -0.05715221515560846, -0.7542992861164477, 1.0543442803255534,
    -0.12173701808314277, -0.2661810605736781, 0.8324488178123667, -0.7574531301023063,
    -0.36051168196866284, 0.4833241326486051, -0.08865617815112262, -0.2310227235114839,
    0.9821641532341095, -0.2082157402218534, 0.35506506672747534, -1.4642820792477689,
    -0.6424455185774726,
};

static const double untied_dots[LN] = {
    0.6132739853386433, 1.110854757443271, 0.7070630139452851, -0.5437329711471464,
    -0.19520574827367534, 0.8202042388471799, -1.2839588026746884, 0.952312715792345,
    1.7300687508410957, 1.4594725887425235, 1.240444351316977, -1.4788194866925748,
    0.049154975889251044, -2.019749678057154, 0.911075987372865, -0.7106375021935927,
    -0.8012251721204082, 1.8653174371126762, 0.693964762676521, -0.8335846834433907,
    0.1712725217726962,
};

/* store more llama logits */
static const double tied_last[LV] = {
    0.15504477626244886, -0.7293442199180895, -0.7348269978159426, -0.954310030405954,
    0.8094077840071494, -0.22388630112317945, 0.24504503223915736, 0.9517563803828533,
    0.010622349316777845, 0.06715655946054082, -0.287145802676903, 0.9352228758365476,
    -0.7384684392558095, 0.14905240181663387, -1.2050401010587182, -0.17944324990035146,
    0.8993220427328055, 0.7182061862598372, 0.3366815136944046, 1.7362146641883467,
    -1.1783401163880942, -0.19418881286772433, 0.004003440144521792, 2.1545975245862623,
    -0.44732908178077746, -0.7956630559939517, -0.6973087914158745, 1.068275960671029,
    0.6180682551836776, 0.9900460983711782, -0.2585322133280604, -0.2146103050535167,
    0.04472397561285634, 0.021183730598685592, 1.4889650917283248, -0.5941680303712725,
    0.28620433021803526, 0.045202522457028216, -0.2571665443373833, -0.32697426040774646,
    -1.7764759543027657,
};

static const double tied_dots[LN] = {
    1.0077563963055067, -0.7293290582929086, -1.2268942774606661, 1.3477547475723415,
    -0.14238939994886207, -3.2880242963940494, -1.0387148794248584, -0.012890993988426303,
    1.9928459495402155, -2.655357652831743, -1.5460969264961097, -1.3119427498407035,
    0.8026550521918735, -0.6298824002181003, -0.26478364015448974, 2.2793235235806133,
    -0.9915091184151579, 2.3024398149208363, 0.17856026180460238, -2.3362570778070344,
    -0.5500208297083127,
};

/* test the llama logits */
static void make_llama(int tied, const char *directory)
{
    made m;
    char config[1024];
    const char *word = tied ? "true" : "false";
    snprintf(config, sizeof config, llama_config, word, word, word);
    llama_tensors(&m, tied);
    write_directory(&m, directory, config, DLS_F64, 12);
}

static void run_llama(dls_dtype dtype, int tied)
{
    loaded l;
    double roundings = dtype == DLS_BF16
        ? LL * 20 + 5 : LL * (4 * LC + LH * LD + LF + LD + LN + 24) + 2 * LC;
    double unit = dtype == DLS_F64 ? 0x1p-53 : dtype == DLS_F32 ? 0x1p-24 : 0x1p-9;
    make_llama(tied, "llama");
    load_model(&l, "llama", dtype, LN);
    cr_assert(l.config.bos == 1 && l.config.n_eos == 2 && l.config.eos[1] == 40);
    expect_logits(&l, tied ? tied_last : untied_last, tied ? tied_dots : untied_dots,
                  roundings * unit * 2.3);
    close_model(&l);
}

/* test llama in all types */
Test(hf, llama_untied_agrees_in_f64, .init = enter, .fini = leave)
{
    run_llama(DLS_F64, 0);
}

Test(hf, llama_tied_agrees_in_f64, .init = enter, .fini = leave)
{
    run_llama(DLS_F64, 1);
}

Test(hf, llama_agrees_in_f32, .init = enter, .fini = leave)
{
    run_llama(DLS_F32, 1);
}

Test(hf, llama_agrees_in_bf16, .init = enter, .fini = leave)
{
    run_llama(DLS_BF16, 0);
}

/* test the hf round trip */
static void expect_same_file(const char *a, const char *b)
{
    char *x, *y;
    size_t n, m;
    OK(dls_file_read(a, &x, &n));
    OK(dls_file_read(b, &y, &m));
    cr_assert(n == m && memcmp(x, y, n) == 0, "%s differs from %s", a, b);
    free(x);
    free(y);
}

static void resave(const char *from, const char *to, dls_dtype dtype, size_t shard)
{
    loaded l;
    load_model(&l, from, dtype, 3);
    OK(dls_hf_save(to, &l.config, &l.model->params, shard));
    close_model(&l);
}

static void round_trip(const char *first)
{
    char path[64];
    snprintf(path, sizeof path, "%s/model.safetensors", first);
    resave(first, "a", DLS_F64, 0);
    resave("a", "b", DLS_F64, 0);
    expect_same_file(path, "a/model.safetensors");
    expect_same_file(path, "b/model.safetensors");
    expect_same_file("a/config.json", "b/config.json");
    resave("a", "b", DLS_F64, 4096);
    cr_assert(access("b/model.safetensors", F_OK) != 0, "the old form is gone");
    resave("b", "b", DLS_F64, 0);
    cr_assert(access("b/model.safetensors.index.json", F_OK) != 0);
    expect_same_file(path, "b/model.safetensors");
}

/* test the gpt2 round trip */
Test(hf, gpt2_round_trip, .init = enter, .fini = leave)
{
    made m;
    gpt2_tensors(&m, "transformer.");
    write_directory(&m, "gpt2", gpt2_config, DLS_F64, 11);
    round_trip("gpt2");
}

Test(hf, llama_round_trip, .init = enter, .fini = leave)
{
    make_llama(0, "llama");
    round_trip("llama");
    make_llama(1, "tied");
    round_trip("tied");
}

Test(hf, bf16_round_trip, .init = enter, .fini = leave)
{
    made m;
    gpt2_tensors(&m, "transformer.");
    write_directory(&m, "gpt2", gpt2_config, DLS_F64, 11);
    resave("gpt2", "a", DLS_BF16, 0);
    resave("a", "b", DLS_F32, 0);
    resave("b", "c", DLS_BF16, 1);
    resave("c", "d", DLS_BF16, 0);
    expect_same_file("a/model.safetensors", "d/model.safetensors");
    expect_same_file("a/config.json", "d/config.json");
}

/* test what does not fit */
/* test the mismatches */
static dls_status try_load(const char *directory)
{
    dls_hf_config c;
    dls_ctx ctx = {0};
    dls_transformer *t = NULL;
    dls_status s;
    OK(dls_hf_config_load(directory, &c));
    OK(dls_ctx_create(&ctx, 0, DLS_F32));
    OK(dls_transformer_create(&t, &ctx, &c.model, 1, 1));
    s = dls_hf_load(directory, &c.model, &t->params);
    dls_transformer_free(t);
    dls_ctx_destroy(&ctx);
    return s;
}

/* test four mismatches */
Test(hf, every_mismatch_is_named, .init = enter, .fini = leave)
{
    made m;
    gpt2_tensors(&m, "transformer.");
    dls_log_set_level(DLS_LOG_NONE);
    for (size_t i = 0; i < m.n; i++) {
        spec *s = &m.list[i];
        if (strcmp(s->name, "transformer.h.0.mlp.c_fc.weight") == 0)
            s->shape[1] = GF + 1;
        if (strcmp(s->name, "transformer.h.1.ln_2.bias") == 0)
            strcpy(s->name, "transformer.h.1.ln_3.bias");
        if (strcmp(s->name, "transformer.wpe.weight") == 0)
            s->shape[0] = GT - 1;
    }
    add(&m, 1, 1, "transformer.h.0.attn.bias");
    add(&m, 1, 0, "transformer.h.1.attn.masked_bias");
    write_directory(&m, "d", gpt2_config, DLS_F32, 1);
    EXPECT_ERROR(try_load("d"), DLS_ERR_INPUT, "d: 4 mismatches: shape: "
        "transformer.h.0.mlp.c_fc.weight is 12x49, expected 12x48; "
        "missing: transformer.h.1.ln_2.bias (12); "
        "shape: transformer.wpe.weight is 11x12, expected 12x12; "
        "unexpected: transformer.h.1.ln_3.bias");
}

Test(hf, a_tied_head_is_the_table, .init = enter, .fini = leave)
{
    made m;
    char *file;
    size_t n;
    gpt2_tensors(&m, "");
    add(&m, GV, GC, "lm_head.weight");
    dls_log_set_level(DLS_LOG_NONE);
    write_directory(&m, "d", gpt2_config, DLS_F32, 1);
    EXPECT_ERROR(try_load("d"), DLS_ERR_INPUT,
                 "d: 1 mismatches: tied: lm_head.weight differs from wte.weight");
    OK(dls_file_read("d/model.safetensors", &file, &n));
    dls_safetensors f;
    OK(dls_safetensors_open("d/model.safetensors", &f));
    const dls_stored_tensor *head = dls_safetensors_find(&f, "lm_head.weight");
    const dls_stored_tensor *table = dls_safetensors_find(&f, "wte.weight");
    memcpy(file + ((const char *)head->data - f.map), table->data, table->bytes);
    OK(dls_file_write("d/model.safetensors", file, n));
    dls_safetensors_close(&f);
    free(file);
    OK(try_load("d"));
}

/* test types and empty files */
Test(hf, types_and_empty_files_are_named, .init = enter, .fini = leave)
{
    made m;
    dls_stored_tensor one = {.name = "wte.weight", .type = DLS_STORED_I64, .ndim = 2,
                             .shape = {GV, GC}};
    static char zeros[GV * GC * 8];
    dls_safetensors_writer *w;
    gpt2_tensors(&m, "");
    dls_log_set_level(DLS_LOG_NONE);
    write_directory(&m, "d", gpt2_config, DLS_F32, 1);
    OK(dls_safetensors_begin("d/model.safetensors", &one, 1, &w));
    OK(dls_safetensors_append(w, zeros, sizeof zeros));
    OK(dls_safetensors_commit(w));
    cr_assert_eq(try_load("d"), DLS_ERR_INPUT);
    const char *said = dls_status_message();
    cr_assert(strstr(said, "d: 28 mismatches: missing: transformer.h.0.attn.c_attn.bias "
                     "(36); missing: ") == said, "%s", said);
    cr_assert(strcmp(said + strlen(said) - 4, " ...") == 0);
}

/* test the index */
static void put_index(const char *map)
{
    char text[512];
    snprintf(text, sizeof text, "{\"weight_map\": %s}", map);
    OK(dls_file_write("d/model.safetensors.index.json", text, strlen(text)));
}

Test(hf, an_index_is_not_trusted, .init = enter, .fini = leave)
{
    made m;
    gpt2_tensors(&m, "");
    dls_log_set_level(DLS_LOG_NONE);
    write_directory(&m, "d", gpt2_config, DLS_F32, 1);
    cr_assert_eq(rename("d/model.safetensors", "d/x.safetensors"), 0);
    EXPECT_ERROR(try_load("d"), DLS_ERR_INPUT,
                 "d: expected model.safetensors or model.safetensors.index.json");
    put_index("{\"wte.weight\": \"../d/x.safetensors\"}");
    EXPECT_ERROR(try_load("d"), DLS_ERR_INPUT, "d: the index names "
                 "\"../d/x.safetensors\": expected a file of this directory");
    put_index("{\"wte.weight\": \"sub/x.safetensors\"}");
    cr_assert_eq(try_load("d"), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "expected a file of this directory"));
    put_index("{\"wte.weight\": 3}");
    EXPECT_ERROR(try_load("d"), DLS_ERR_INPUT, "d/model.safetensors.index.json: "
                 "weight_map: wte.weight: expected a file name");
    put_index("[]");
    EXPECT_ERROR(try_load("d"), DLS_ERR_INPUT, "d/model.safetensors.index.json: "
                 "weight_map: expected file names by tensor");
    put_index("{\"wte.weight\": \"y.safetensors\"}");
    EXPECT_ERROR(try_load("d"), DLS_ERR_IO,
                 "d/y.safetensors: cannot open: No such file or directory");
    put_index("{\"wte.weight\": \"x.safetensors\"}");
    cr_assert_eq(try_load("d"), DLS_ERR_INPUT);
    cr_assert(strstr(dls_status_message(), "d: 27 mismatches: index: "
                     "h.0.attn.c_attn.bias is in x.safetensors, the index says "
                     "nothing; "));
}

/* test the hf configuration */
static const struct { const char *field, *message; } bad_gpt2[] = {
    {"\"model_type\": \"mistral\"",
     "model_type: expected gpt2, llama, mixtral or deepseek, got "
     "\"mistral\""},
    {"\"model_type\": null",
     "model_type: expected gpt2, llama, mixtral or deepseek, got null"},
    {"\"n_embd\": \"12\"", "n_embd: expected a whole number up to 16777216, got \"12\""},
    {"\"n_embd\": 12.0", "n_embd: expected a whole number up to 16777216, got 12.0"},
    {"\"n_layer\": -1", "n_layer: expected a whole number up to 16777216, got -1"},
    {"\"n_head\": 5", "n_head: expected a divisor of n_embd, got 5"},
    {"\"n_head\": 0", "model.heads: expected 1 to 1024, got 0"},
    {"\"activation_function\": \"relu\"", "activation_function: expected "
     "gelu_new|gelu_pytorch_tanh|gelu, got \"relu\""},
    {"\"scale_attn_by_inverse_layer_idx\": true", "scale_attn_by_inverse_layer_idx: "
     "expected false (nothing else is supported), got true"},
    {"\"layer_norm_epsilon\": \"small\"", "layer_norm_epsilon: expected a number, got "
     "\"small\""},
    {"\"layer_norm_epsilon\": 0", "model.norm_epsilon: expected 1e-30 to 1, got 0"},
    {"\"tie_word_embeddings\": 1", "tie_word_embeddings: expected true or false, got 1"},
    {"\"eos_token_id\": 37", "eos_token_id: expected tokens of the vocabulary, got 37"},
    {"\"eos_token_id\": [1, -1]", "eos_token_id: expected tokens of the vocabulary, got "
     "[1,-1]"},
};

Test(hf, configurations_are_understood_or_refused, .init = enter, .fini = leave)
{
    OK(dls_file_mkdirs("d"));
    for (size_t i = 0; i < sizeof bad_gpt2 / sizeof *bad_gpt2; i++) {
        char message[256];
        dls_hf_config c;
        json_t *good = json_loads(gpt2_config, 0, NULL), *change;
        char text[128];
        snprintf(text, sizeof text, "{%s}", bad_gpt2[i].field);
        cr_assert_not_null(change = json_loads(text, 0, NULL));
        json_object_update(good, change);
        cr_assert_eq(json_dump_file(good, "d/config.json", 0), 0);
        snprintf(message, sizeof message, "d/config.json: %s", bad_gpt2[i].message);
        EXPECT_ERROR(dls_hf_config_load("d", &c), DLS_ERR_INPUT, message);
        json_decref(good);
        json_decref(change);
    }
}

/* test the scalings */
static const struct { const char *text; dls_rope rope; } rotations[] = {
    {"{\"rope_theta\": 1e6}", {.theta = 1e6}},
    {"{\"rope_scaling\": null}", {.theta = 500}},
    {"{\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}}",
     {.theta = 500, .scaling = DLS_ROPE_LINEAR, .factor = 2, .original = 32}},
    {"{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 4.0}}",
     {.theta = 500, .scaling = DLS_ROPE_DYNAMIC, .factor = 4, .original = 32}},
    {"{\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 7e4,"
     " \"original_max_position_embeddings\": 8, \"mscale\": 0.7,"
     " \"mscale_all_dim\": 0.9, \"beta_fast\": 20, \"truncate\": false}}",
     {.theta = 7e4, .scaling = DLS_ROPE_YARN, .factor = 4, .original = 8,
      .mscale = 0.7, .mscale_all_dim = 0.9, .beta_fast = 20, .untruncated = 1}},
    {"{\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 2.5,"
     " \"attention_factor\": 1.5, \"beta_slow\": 3}}",
     {.theta = 500, .scaling = DLS_ROPE_YARN, .factor = 2.5, .original = 32,
      .attention_factor = 1.5, .beta_slow = 3}},
    {"{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 32,"
     " \"low_freq_factor\": 1, \"high_freq_factor\": 4,"
     " \"original_max_position_embeddings\": 16}}",
     {.theta = 500, .scaling = DLS_ROPE_LLAMA3, .factor = 32, .original = 16,
      .low_freq_factor = 1, .high_freq_factor = 4}},
    {"{\"rope_scaling\": null, \"partial_rotary_factor\": 0.5}",
     {.theta = 500, .dim = 4}},
};

static int same_rotation(const dls_rope *a, const dls_rope *b)
{
    return a->theta == b->theta && a->dim == b->dim && a->scaling == b->scaling
        && a->factor == b->factor && a->original == b->original
        && a->low_freq_factor == b->low_freq_factor && a->beta_fast == b->beta_fast
        && a->high_freq_factor == b->high_freq_factor && a->beta_slow == b->beta_slow
        && a->attention_factor == b->attention_factor && a->mscale == b->mscale
        && a->mscale_all_dim == b->mscale_all_dim && a->untruncated == b->untruncated;
}

static void put_llama_config(const char *change)
{
    char config[1024];
    snprintf(config, sizeof config, llama_config, "false", "false", "false");
    json_t *object = json_loads(config, 0, NULL), *update = json_loads(change, 0, NULL);
    cr_assert(object && update);
    if (!strstr(change, "rope_scaling"))
        json_object_del(object, "rope_scaling");
    json_object_update(object, update);
    cr_assert_eq(json_dump_file(object, "d/config.json", 0), 0);
    json_decref(object);
    json_decref(update);
}

Test(hf, every_scaling_is_read_and_written, .init = enter, .fini = leave)
{
    OK(dls_file_mkdirs("d"));
    for (size_t i = 0; i < sizeof rotations / sizeof *rotations; i++) {
        dls_hf_config c, again;
        put_llama_config(rotations[i].text);
        OK(dls_hf_config_load("d", &c));
        cr_assert(same_rotation(&c.model.rope, &rotations[i].rope), "%zu", i);
        OK(dls_hf_config_save("d", &c, DLS_BF16));
        OK(dls_hf_config_load("d", &again));
        cr_assert(same_rotation(&again.model.rope, &rotations[i].rope), "%zu", i);
    }
}

/* 30 / 44 of 44, in doubles, is a little less than 30. */
Test(hf, a_share_of_the_head_is_read_back, .init = enter, .fini = leave)
{
    dls_hf_config c, again;
    OK(dls_file_mkdirs("d"));
    put_llama_config("{\"head_dim\": 44, \"partial_rotary_factor\": 0.7}");
    OK(dls_hf_config_load("d", &c));
    cr_assert_eq(c.model.rope.dim, 30);
    OK(dls_hf_config_save("d", &c, DLS_F32));
    OK(dls_hf_config_load("d", &again));
    cr_assert_eq(again.model.rope.dim, 30);
}

Test(hf, the_two_gelus_are_read_and_written, .init = enter, .fini = leave)
{
    static const char *const names[] = {"gelu_new", "gelu"};
    OK(dls_file_mkdirs("d"));
    for (int i = 0; i < 2; i++) {
        dls_hf_config c;
        json_t *config = json_loads(gpt2_config, 0, NULL);
        json_object_set_new(config, "activation_function", json_string(names[i]));
        cr_assert_eq(json_dump_file(config, "d/config.json", 0), 0);
        json_decref(config);
        OK(dls_hf_config_load("d", &c));
        cr_assert_eq(c.model.mlp, i ? DLS_MLP_GELU_ERF : DLS_MLP_GELU);
        OK(dls_hf_config_save("d", &c, DLS_F32));
        config = json_load_file("d/config.json", 0, NULL);
        json_t *word = json_object_get(config, "activation_function");
        cr_assert_str_eq(json_string_value(word), names[i]);
        json_decref(config);
    }
}

Test(hf, a_scaling_that_can_not_be_is_refused, .init = enter, .fini = leave)
{
    dls_hf_config c;
    OK(dls_file_mkdirs("d"));
    put_llama_config("{\"rope_scaling\": {\"rope_type\": \"longrope\"}}");
    EXPECT_ERROR(dls_hf_config_load("d", &c), DLS_ERR_INPUT, "d/config.json: rope_type: "
                 "expected default, linear, dynamic, yarn or llama3, got \"longrope\"");
    put_llama_config("{\"rope_scaling\": {\"type\": \"linear\"}}");
    EXPECT_ERROR(dls_hf_config_load("d", &c), DLS_ERR_INPUT, "d/config.json: "
                 "model.rope_scaling: rope: factor 0 must be at least 1");
    put_llama_config("{\"rope_scaling\": \"linear\"}");
    EXPECT_ERROR(dls_hf_config_load("d", &c), DLS_ERR_INPUT, "d/config.json: "
                 "rope_scaling: expected an object, got \"linear\"");
    put_llama_config("{\"hidden_act\": \"gelu\"}");
    EXPECT_ERROR(dls_hf_config_load("d", &c), DLS_ERR_INPUT, "d/config.json: "
                 "hidden_act: expected silu|swish, got \"gelu\"");
    put_llama_config("{\"num_key_value_heads\": 3}");
    EXPECT_ERROR(dls_hf_config_load("d", &c), DLS_ERR_INPUT, "d/config.json: "
                 "model.kv_heads: expected a divisor of the 4 heads, got 3");
}
