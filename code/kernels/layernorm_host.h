/* code/kernels/layernorm_host.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the layer norm; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_layernorm_forward)(real *out, acc *mean, acc *rstd,
                                          const real *x, const real *weight,
                                          const real *bias, int N, int C);
void DLS_HOST_NAME(dls_layernorm_backward_input)(real *dx, const real *dout,
                                                 const real *x, const real *weight,
                                                 const acc *mean, const acc *rstd,
                                                 int N, int C);
void DLS_HOST_NAME(dls_layernorm_backward_weight)(acc *dweight, acc *dbias,
                                                  const real *dout, const real *x,
                                                  const acc *mean, const acc *rstd,
                                                  int N, int C);
