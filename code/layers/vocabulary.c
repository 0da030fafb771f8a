/* code/layers/vocabulary.c: from chapters/06-tensor-parallelism-vocabulary.md. Edit the chapter, or edit here and run "make untangle". */
/* The bands of a cut vocabulary, and the loss over them. */
#include "layers/vocabulary.h"

#include "kernels/vocabulary.h"
#include "layers/internal.h"

/* cut the vocabulary */
void dls_vocabulary_cut(const dls_build *b, dls_layer *l, dls_param *story)
{
    dls_section rows = {(int)story->shape[0], 1};
    l->whole = rows.units;
    l->vocabulary = dls_tensor_cut(b, story, 0, &rows, 1);
    l->cut = story->pieces > 0;
    l->first = (int)story->piece[0].begin;
}

/* find the losses over bands */
size_t dls_vocabulary_room(size_t N, dls_dtype dtype)
{
    return 4 * N * dls_dtype_size(dls_dtype_accumulator(dtype));
}

dls_status dls_vocabulary_losses(const dls_layer *l, dls_pass *p, void *losses,
                                 void *logits)
{
    dls_dtype wide = dls_dtype_accumulator(p->ctx->dtype);
    size_t N = (size_t)p->B * p->T, bytes = N * dls_dtype_size(wide);
    dls_band band = {l->first, l->vocabulary, l->whole};
    char *own = p->temporary, *most = own + bytes, *sum = most + bytes;
    char *right = sum + bytes;
    dls_comm *comm;
    DLS_TRY(dls_tensor_comm(p, &comm));
    DLS_TRY(dls_vocabulary_scan(p->ctx, own, most, sum, right, logits, p->targets, band,
                                (int)N));
    DLS_TRY(dls_comm_all_reduce(comm, most, N, wide, DLS_MAX, p->ctx->stream));
    DLS_TRY(dls_vocabulary_rescale(p->ctx, sum, own, most, (int)N));
    DLS_TRY(dls_comm_all_reduce(comm, sum, N, wide, DLS_SUM, p->ctx->stream));
    DLS_TRY(dls_comm_all_reduce(comm, right, N, wide, DLS_SUM, p->ctx->stream));
    return dls_vocabulary_finish(p->ctx, losses, logits, most, sum, right, p->targets,
                                 band, 1, (int)N);
}
