/* code/kernels/vocabulary_host.h: from chapters/06-tensor-parallelism-vocabulary.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the cut cross-entropy; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_vocabulary_scan)(acc *own, acc *most, acc *sum, acc *right,
                                        const real *logits, const int *targets, int first,
                                        int V, int whole, int N);
void DLS_HOST_NAME(dls_vocabulary_rescale)(acc *sum, const acc *own, const acc *most,
                                           int N);
void DLS_HOST_NAME(dls_vocabulary_finish)(acc *losses, real *logits, const acc *most,
                                          const acc *sum, const acc *right,
                                          const int *targets, int first, int V, acc scale,
                                          int N);
