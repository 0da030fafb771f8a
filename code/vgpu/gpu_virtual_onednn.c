/* code/vgpu/gpu_virtual_onednn.c: from chapters/A-virtual-gpu-blas-panels.md. Edit the chapter, or edit here and run "make untangle". */
/* Products of one thread by oneDNN's matmul, versions 2 and 3.
 *
 * A primitive is compiled for one shape, type and set of steps; each thread keeps those
 * it has used, so that a product of a shape seen before costs three pointers. */
#include <oneapi/dnnl/dnnl.h>
#include <stdlib.h>
#include <string.h>

#include "vgpu/panels.h"

/* hide the versions of onednn */
#if DNNL_VERSION_MAJOR >= 3
#define DESCRIBE(m, sizes, type, steps) \
    dnnl_memory_desc_create_with_strides(m, 2, sizes, type, steps)
#define FORGET(m) dnnl_memory_desc_destroy(m)
#define GIVEN(m) (m)
#define APPEND_SCALE(ops, alpha) \
    dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_linear, alpha, 0)
#define APPEND_SUM(ops, beta) \
    dnnl_post_ops_append_sum(ops, beta, 0, dnnl_data_type_undef)
#else
#define DESCRIBE(m, sizes, type, steps) \
    dnnl_memory_desc_init_by_strides(m, 2, sizes, type, steps)
#define FORGET(m) ((void)(m))
#define GIVEN(m) (&(m))
#define APPEND_SCALE(ops, alpha) \
    dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_linear, alpha, 0)
#define APPEND_SUM(ops, beta) dnnl_post_ops_append_sum(ops, beta)
#endif

/* keep the primitives of a thread */
typedef struct key { // all that a primitive depends on; no gaps between the members
    long long rows, columns, depth, x_row, x_column, w_row, w_column, d_row;
    int factors, result;
    float alpha, beta;
} key;

typedef struct entry {
    key of;
    dnnl_primitive_t primitive; // NULL: free
    dnnl_memory_t memory[3];    // X, W and D: their pointers change with each call
} entry;

enum { ENTRIES = 256 };
static _Thread_local entry *entries;
static _Thread_local dnnl_engine_t engine;
static _Thread_local dnnl_stream_t stream;

static key key_of(const dls_panel *p)
{
    return (key){p->rows, p->columns, p->depth, p->x_row, p->x_column, p->w_row,
                 p->w_column, p->d_row, (int)p->factors, (int)p->result, p->alpha,
                 p->beta};
}

static entry *place_of(const key *k)
{
    uint64_t words[sizeof *k / 8], hash = 0;
    memcpy(words, k, sizeof words);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        hash = (hash ^ words[i]) * 0x9E3779B97F4A7C15u;
    return &entries[hash >> 56];
}

static int start_thread(void)
{
    if (entries)
        return 1;
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success ||
        dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) != dnnl_success)
        return 0;
    entries = calloc(ENTRIES, sizeof *entries);
    return entries != NULL;
}

/* build a primitive */
static dnnl_status_t finish_with(dnnl_primitive_attr_t *attributes, float alpha,
                                 float beta)
{
    dnnl_post_ops_t ops;
    dnnl_status_t s = dnnl_primitive_attr_create(attributes);
    if (s != dnnl_success || (s = dnnl_post_ops_create(&ops)) != dnnl_success)
        return s;
    float share = beta / alpha;
    int early = share - share == 0; // finite
    if (beta != 0 && early)
        s = APPEND_SUM(ops, share);
    if (s == dnnl_success && alpha != 1)
        s = APPEND_SCALE(ops, alpha);
    if (s == dnnl_success && beta != 0 && !early)
        s = APPEND_SUM(ops, beta);
    if (s == dnnl_success)
        s = dnnl_primitive_attr_set_post_ops(*attributes, ops);
    dnnl_post_ops_destroy(ops);
    return s;
}

static dnnl_status_t make_primitive(dnnl_primitive_t *out, dnnl_memory_desc_t d[3],
                                    dnnl_primitive_attr_t attributes)
{
    dnnl_primitive_desc_t described;
    dnnl_status_t s;
#if DNNL_VERSION_MAJOR >= 3
    s = dnnl_matmul_primitive_desc_create(&described, engine, d[0], d[1], NULL, d[2],
                                          attributes);
#else
    dnnl_matmul_desc_t matmul;
    s = dnnl_matmul_desc_init(&matmul, &d[0], &d[1], NULL, &d[2]);
    if (s == dnnl_success)
        s = dnnl_primitive_desc_create(&described, &matmul, attributes, engine, NULL);
#endif
    if (s != dnnl_success)
        return s;
    s = dnnl_primitive_create(out, described);
    dnnl_primitive_desc_destroy(described);
    return s;
}

static dnnl_status_t build(entry *e, const key *k)
{
    dnnl_data_type_t in = k->factors == CUDA_R_16BF ? dnnl_bf16 : dnnl_f32;
    dnnl_data_type_t out = k->result == CUDA_R_16BF ? dnnl_bf16 : dnnl_f32;
    dnnl_dims_t sizes[3] = {{k->rows, k->depth}, {k->depth, k->columns},
                            {k->rows, k->columns}};
    dnnl_dims_t steps[3] = {{k->x_row, k->x_column}, {k->w_row, k->w_column},
                            {k->d_row, 1}};
    dnnl_memory_desc_t d[3];
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_status_t s = dnnl_success;
    for (int i = 0; i < 3 && s == dnnl_success; i++)
        s = DESCRIBE(&d[i], sizes[i], i < 2 ? in : out, steps[i]);
    if (s == dnnl_success)
        s = finish_with(&attributes, k->alpha, k->beta);
    if (s == dnnl_success)
        s = make_primitive(&e->primitive, d, attributes);
    for (int i = 0; i < 3 && s == dnnl_success; i++)
        s = dnnl_memory_create(&e->memory[i], GIVEN(d[i]), engine, DNNL_MEMORY_NONE);
    for (int i = 0; i < 3; i++)
        FORGET(d[i]);
    dnnl_primitive_attr_destroy(attributes);
    e->of = *k;
    return s;
}

/* find or build a primitive */
static void empty(entry *e)
{
    for (int i = 0; i < 3; i++)
        if (e->memory[i])
            dnnl_memory_destroy(e->memory[i]);
    if (e->primitive)
        dnnl_primitive_destroy(e->primitive);
    *e = (entry){0};
}

static dnnl_status_t find(entry **out, const key *k)
{
    entry *e = *out = place_of(k);
    if (e->primitive && memcmp(&e->of, k, sizeof *k) == 0)
        return dnnl_success;
    empty(e);
    dnnl_status_t s = build(e, k);
    if (s != dnnl_success)
        empty(e);
    return s;
}

/* multiply a panel */
/* X transposed, in f32: oneDNN's older product is quicker at packing it. */
static int multiply_turned(const dls_panel *p)
{
    int by_rows = p->w_column == 1;
    dnnl_status_t s = dnnl_sgemm('T', by_rows ? 'N' : 'T', p->rows, p->columns, p->depth,
                                 p->alpha, p->x, p->x_column, p->w,
                                 by_rows ? p->w_row : p->w_column, p->beta, p->d,
                                 p->d_row);
    return s == dnnl_success ? 1 : -1;
}

int dls_panel_multiply(const dls_panel *p)
{
    static const int names[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    void *data[3] = {(void *)(uintptr_t)p->x, (void *)(uintptr_t)p->w, p->d};
    key k = key_of(p);
    dnnl_exec_arg_t arguments[3];
    entry *e;
    if (p->factors == CUDA_R_32F && p->result == CUDA_R_32F && p->x_column != 1)
        return multiply_turned(p);
    if (!start_thread())
        return -1;
    dnnl_status_t s = find(&e, &k);
    for (int i = 0; i < 3 && s == dnnl_success; i++) {
        s = dnnl_memory_set_data_handle(e->memory[i], data[i]);
        arguments[i] = (dnnl_exec_arg_t){names[i], e->memory[i]};
    }
    if (s == dnnl_success)
        s = dnnl_primitive_execute(e->primitive, stream, 3, arguments);
    if (s == dnnl_success)
        s = dnnl_stream_wait(stream);
    return s == dnnl_success ? 1 : s == dnnl_unimplemented ? 0 : -1;
}
