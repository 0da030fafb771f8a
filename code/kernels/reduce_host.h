/* code/kernels/reduce_host.h: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the reductions; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_sum)(acc *out, const real *x, size_t n);
void DLS_HOST_NAME(dls_square_sum)(double *out, const real *x, size_t n);
void DLS_HOST_NAME(dls_clip_coefficient)(double *coef, double *norm,
                                         const double *square_sum, double max_norm);
