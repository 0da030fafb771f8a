/* code/parallel/data/hooks.h: from chapters/04-data-parallelism-hooks.md. Edit the chapter, or edit here and run "make untangle". */
/* Communication hooks: how one bucket of gradients becomes its sum over the ranks.
 *
 *   bucket complete --> sum(bucket) on the communication stream --> bucket = sum
 *                                                                      |
 *   optimizer <----------------------- after the last bucket ----------+
 *   updated(): what some hooks do to the parameters when the optimizer has run
 *
 * A hook is a kind (functions) and a state. All functions enqueue and return. Sums, not
 * means: the loss was divided by the global batch before. */
#ifndef DLS_PARALLEL_DATA_HOOKS_H
#define DLS_PARALLEL_DATA_HOOKS_H

#include "comm/comm.h"
#include "layers/param.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* choose a hook */
typedef enum dls_hook_choice {
    DLS_HOOK_NONE, DLS_HOOK_BF16, DLS_HOOK_FP16, DLS_HOOK_POWERSGD, DLS_HOOK_TOP_K,
    DLS_HOOK_ONE_BIT_ADAM, DLS_HOOK_LOCAL_SGD, DLS_HOOKS
} dls_hook_choice;

typedef struct dls_hook_options {
    dls_hook_choice choice;
    int sums_in;       // 1: the sum is made in reduce_type, 0: in the gradients' type
    int reduce_type;   // DLS_F32, DLS_F64, DLS_BF16, DLS_COMM_F16
    int rank;          // PowerSGD: columns of P and Q
    double keep;       // top-k: share of the elements that is sent, 0 < keep <= 1
    int64_t ramp;      // top-k: steps in which the share falls to that; 0: at once
    int64_t warmup;    // steps with a plain sum first
    int64_t period;    // local SGD: steps between two averages
    double beta1;      // 1-bit Adam: the optimizer's
    void *momentum;    // the optimizer's, flat like the gradients: 1-bit Adam, local SGD
    void *variance;    // the same of local SGD, to keep both; NULL: they are not kept
    double local;      // local SGD: a local gradient times this is the local mean
    uint64_t seed;     // PowerSGD: of the first Q
} dls_hook_options;

/* describe a hook */
typedef struct dls_hook dls_hook;

typedef struct dls_hook_bucket {
    const dls_param *params; // (nparams) of this bucket, ascending offsets
    int nparams;
    size_t first, count;     // elements of the flat gradients
    void *grads;             // (count) device
} dls_hook_bucket;

/* describe the state of a hook */
/* An array that a checkpoint must keep: (bytes) device; NULL: of another world. */
typedef struct dls_hook_kept { void *data; size_t bytes; } dls_hook_kept;
enum { DLS_HOOK_KEPT = 2 };

/* Is told the collectives of a step, in their order. */
typedef struct dls_hook_told {
    void *self;
    void (*fn)(void *self, const char *operation, size_t count, int dtype);
} dls_hook_told;

typedef struct dls_hook_kind {
    const char *name;
    size_t state_bytes;
    dls_status (*prepare)(dls_hook *h);        // takes its buffers; NULL: none
    dls_status (*sum)(dls_hook *h, int bucket);
    dls_status (*updated)(dls_hook *h, dls_ctx *ctx, void *values, void *master);
    void (*calls)(const dls_hook *h, int bucket, const dls_hook_told *told);
    void (*release)(dls_hook *h);              // NULL: nothing to release
    /* what it keeps in a world of that size, at most DLS_HOOK_KEPT; NULL: nothing */
    int (*kept)(const dls_hook *h, int world, dls_hook_kept *kept);
    /* this rank's host image := from those of the n ranks of another world */
    void (*join)(const dls_hook *h, char *joined, const char *const *states, int n);
} dls_hook_kind;

struct dls_hook {
    const dls_hook_kind *kind;
    dls_hook_options options;
    dls_comm *comm;
    dls_ctx *wire;                  // communication stream; type of the gradients
    const dls_hook_bucket *buckets; // (nbuckets)
    int nbuckets;
    int64_t step;                   // steps that are over
    char *error, *owned;            // what is still owed, device; NULL: nothing
    void *state;                    // (kind->state_bytes), zero at first
    int weighed;                    // 1: no device: buffers are only counted
    size_t bytes;                   // of its buffers
};

/* declare the hook calls */
/* Collective where a kind needs it. wire and buckets must outlive the hook.
 * DLS_ERR_INPUT: options out of range. */
dls_status dls_hook_create(dls_hook **out, const dls_hook_options *options,
                           dls_comm *comm, dls_ctx *wire,
                           const dls_hook_bucket *buckets, int nbuckets);
void dls_hook_free(dls_hook *h); // after the streams are synchronised; NULL is fine

/* Enqueues the sum of a bucket on the communication stream. */
dls_status dls_hook_sum(dls_hook *h, int bucket);

/* The step's buckets are enqueued. */
void dls_hook_step_over(dls_hook *h);

/* The optimizer has enqueued its update of values (and master, or NULL) on ctx. */
dls_status dls_hook_updated(dls_hook *h, dls_ctx *ctx, void *values, void *master);

/* 1: what the last step's buckets left in the gradients is the new momentum. */
int dls_hook_gives_momentum(const dls_hook *h);

/* Bytes that all ranks together send in the step that comes next, by formula. */
uint64_t dls_hook_wire_bytes(const dls_hook *h);

/* What a hook takes: its buffers, and the largest scratch memory of its collectives, on
 * the communication stream and, for dls_hook_updated, on the other. */
typedef struct dls_hook_memory { size_t buffers, scratch, updated; } dls_hook_memory;
dls_status dls_hook_needs(const dls_hook *h, dls_hook_memory *out);

/* The same without a device; comm may be imagined. dtype: of the gradients. */
dls_status dls_hook_predict(const dls_hook_options *options, dls_comm *comm,
                            dls_dtype dtype, const dls_hook_bucket *buckets,
                            int nbuckets, dls_hook_memory *out);

const char *dls_hook_name(dls_hook_choice choice); // "none", "bf16", ... "?"

/* declare what kinds share */
extern const dls_hook_kind dls_hook_none, dls_hook_cast, dls_hook_powersgd,
    dls_hook_top_k, dls_hook_one_bit_adam, dls_hook_local_sgd;

/* For kinds: the plain sum, and a zeroed buffer. `calls` of bucket -1: what `updated`
 * calls on the other stream. */
dls_status dls_hook_all_reduce(dls_hook *h, void *buf, size_t count, int dtype);
dls_status dls_hook_buffer(dls_hook *h, void **buf, size_t bytes);
int dls_hook_warms_up(const dls_hook *h); // 1: this step is summed plainly
void dls_hook_tell(const dls_hook_told *told, const char *operation, size_t count,
                   int dtype);
void dls_hook_add(const dls_hook *h, void *to, const void *from, size_t count);

/* For `join`: the sum of the errors, which lie first, of every size-th old rank. */
void dls_hook_join_errors(const dls_hook *h, char *joined, const char *const *states,
                          int n);

/* What a checkpoint keeps of this rank's hook: so many bytes. fetch waits for it. */
size_t dls_hook_state_bytes(const dls_hook *h);
dls_status dls_hook_fetch(const dls_hook *h, void *host);

/* states [n]: what the ranks of a world of n had fetched, bytes [n] each. In a world of
 * n only this rank's is looked at. In another, what is owed is owed by somebody else,
 * and nothing of it is lost. DLS_ERR_INPUT: states of another length. */
dls_status dls_hook_put(dls_hook *h, const char *const *states, const size_t *bytes,
                        int n);

#ifdef __cplusplus
}
#endif
#endif
