/* code/kernels/residual_norm_host.h: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the residual norm; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_residual_norm_forward)(real *h, real *out, acc *mean, acc *rstd,
                                              const real *x, const real *f,
                                              const real *weight, const real *bias,
                                              dls_residual_plan s);
void DLS_HOST_NAME(dls_residual_norm_backward)(real *dx, real *df, const real *dstream,
                                               const real *dout, const real *h,
                                               const real *weight, const acc *mean,
                                               const acc *rstd, dls_residual_plan s);
