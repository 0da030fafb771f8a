/* code/kernels/cross_entropy_host.h: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the cross-entropy; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_cross_entropy)(acc *losses, real *logits, const int *targets,
                                      acc scale, int N, int V, int row);
void DLS_HOST_NAME(dls_cross_entropy_forward)(acc *losses, acc *lse, const real *logits,
                                              const int *targets, int N, int V, int row);
void DLS_HOST_NAME(dls_cross_entropy_backward)(real *dlogits, const real *logits,
                                               const acc *lse, const int *targets,
                                               acc scale, int N, int V, int row);
