/* code/train/batch.h: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/* The tokens of a step on the device, copied while the host prepares the next. */
#ifndef DLS_TRAIN_BATCH_H
#define DLS_TRAIN_BATCH_H
#include "tensor/context.h"
#include "vgpu/gpu.h"

/* define a batch */
typedef struct dls_batch {
    dls_ctx *ctx;
    int max_rows, T, rows;
    int *device;                /* tokens (rows, T), then targets (rows, T) */
    int *where;                 /* [T] host: of its window; NULL: 0 ... T-1 */
    int *positions;             /* the same (pass_rows, T) device */
    int *host[2];               /* page-locked, the same layout */
    cudaEvent_t copied[2];
    int turn;
} dls_batch;

/* Room for max_rows windows of T tokens. After an error, destroy as well. */
dls_status dls_batch_create(dls_batch *b, dls_ctx *ctx, int max_rows, int T);
void dls_batch_destroy(dls_batch *b);
size_t dls_batch_predict_memory(int max_rows, int T);

/* The batch has only these T (host) of the tokens of a window. A pass has at most so many
   rows. Waits. */
dls_status dls_batch_place(dls_batch *b, const int *where, int pass_rows);
size_t dls_batch_predict_positions(int pass_rows, int T);

/* Window r covers bytes[offsets[r]] and those after it; at most max_rows of them.
   Enqueues the copy; `bytes` and `offsets` are free on return. */
dls_status dls_batch_load(dls_batch *b, const unsigned char *bytes,
                          const uint64_t *offsets, int rows);
const int *dls_batch_tokens(const dls_batch *b, int row);   /* (rows - row, T) */
const int *dls_batch_targets(const dls_batch *b, int row);
const int *dls_batch_host_tokens(const dls_batch *b, int row); /* until the next load */
#endif
