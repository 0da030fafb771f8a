/* code/parallel/data/zero_private.h: from chapters/04-data-parallelism-zero.md. Edit the chapter, or edit here and run "make untangle". */
/* Shared by the sources of ZeRO, and by nobody else. */
#ifndef DLS_PARALLEL_DATA_ZERO_PRIVATE_H
#define DLS_PARALLEL_DATA_ZERO_PRIVATE_H

#include "parallel/data/spans.h"
#include "parallel/data/zero.h"

/* define a buffer of a unit */
typedef struct zero_buffer {
    char *memory;
    int unit;          // whose it is now; -1: nobody's
    int owner;         // a held unit's: never another's; -1: anybody's,
    int expert;        // that is (1) or is not (0) one of experts
    cudaEvent_t free;  // what used it last is done
} zero_buffer;

typedef struct zero_pool { zero_buffer *items; int n, next[2]; } zero_pool;

typedef struct zero_unit_state {
    int values, grads;     // buffers; -1: none
    int waited;            // 1: the compute stream has waited for `arrived`
    int missing;           // gradients not yet reported in this pass
    cudaEvent_t arrived;   // the values
} zero_unit_state;

/* define the state of zero */
struct dls_zero {
    dls_ctx *ctx;
    dls_params *params;
    dls_comm *world, *shard, *copies;  // shard: this copy's ranks; copies: same slice
    dls_comm *experts;                 // instead of shard for experts; NULL: it is shard
    int *parts, model_units;           // units of the model's unit u; NULL: u
    dls_zero_options o;
    int ways, rank, ncopies, copy;     // ways: size of shard, rank: in it
    dls_dtype wide, kept;              // gradients as they are made, and as they are kept
    int direct;                        // 1: they are made where they are kept
    int nunits;
    dls_shard_unit *units;
    zero_unit_state *states;
    size_t elements;                   // of a shard
    char *values;                      // a shard in stage 3, else padded and whole
    char *grads;                       // a shard from stage 2, else padded and whole
    zero_pool value_pool, grad_pool;
    char *wire;                        // narrowed gradients of a unit, on their way
    void *master, *m, *v;              // (elements) device, or host with offload
    double *scalars;                   // device: square sum, norm, coefficient
    struct zero_offload *off;          // NULL: the device updates
    cudaStream_t stream;               // communication
    cudaEvent_t ready, done;
    dls_spans sent, waits;             // of this step: collectives; the compute stream's
    int last, open;                    // the pass: the step's last; backward has begun
    dls_unit_hook unit_hook;
    dls_grad_hook grad_hook;
};

/* declare what zero shares */
/* fsdp.c */
void zero_make_hooks(dls_zero *z);
dls_status zero_release(dls_zero *z, int u);            // its values may be overwritten
dls_status zero_let(dls_zero *z, cudaStream_t waiter, cudaStream_t other); // waits for it
dls_status zero_wait(dls_zero *z, cudaEvent_t event);   // the compute stream, measured
void zero_point_values(dls_zero *z, int u, char *at);
void zero_point_grads(dls_zero *z, int u, char *at);

/* zero.c: where this rank's slice of a unit lies */
char *zero_value_slice(const dls_zero *z, int u);
char *zero_grad_slice(const dls_zero *z, int u);
char *zero_whole_values(const dls_zero *z, int u);      // stages 0 to 2

/* zero.c: the group that shares a unit, the rank in it, its elements with padding */
dls_comm *zero_unit_group(const dls_zero *z, int u);
int zero_unit_rank(const dls_zero *z, int u);
size_t zero_unit_whole(const dls_zero *z, int u);

/* zero_groups.c */
dls_status zero_agree(const dls_zero *z);               // DLS_ERR_COMM: they do not
dls_status zero_form_groups(dls_zero *z);

/* zero_step.c */
dls_status zero_send_values(dls_zero *z, int u);        // stages 1, 2: all-gather of u

/* One stretch of a slice whose parameters have one decay flag. */
typedef struct zero_stretch { size_t at, count; int decay; } zero_stretch;
int zero_next_stretch(const dls_zero *z, int u, zero_stretch *s); // 0: no more

/* zero_offload.c */
dls_status zero_offload_create(dls_zero *z);
void zero_offload_destroy(dls_zero *z);
dls_status zero_offload_gradient(dls_zero *z, int u);   // on its way to the host
dls_status zero_offload_step(dls_zero *z, double lr, int64_t step);
dls_status zero_offload_values(dls_zero *z, void *host); // as the host has them
void zero_offload_put(dls_zero *z, const void *rounded); // the host's copy of the values

#endif
