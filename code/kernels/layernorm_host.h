/* code/kernels/layernorm_host.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the layer norm; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_layernorm_forward)(real *out, real *mean, real *rstd,
                                          const real *x, const real *weight,
                                          const real *bias, int N, int C);
void DLS_HOST_NAME(dls_layernorm_backward_input)(real *dx, const real *dout,
                                                 const real *x, const real *weight,
                                                 const real *mean, const real *rstd,
                                                 int N, int C);
void DLS_HOST_NAME(dls_layernorm_backward_weight)(real *dweight, real *dbias,
                                                  const real *dout, const real *x,
                                                  const real *mean, const real *rstd,
                                                  int N, int C);
