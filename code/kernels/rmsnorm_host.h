/* code/kernels/rmsnorm_host.h: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of RMSNorm; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_rmsnorm_forward)(real *out, acc *rstd, const real *x,
                                        const real *weight, int N, int C, acc epsilon);
void DLS_HOST_NAME(dls_rmsnorm_backward_input)(real *dx, const real *dout, const real *x,
                                               const real *weight, const acc *rstd, int N,
                                               int C);
void DLS_HOST_NAME(dls_rmsnorm_backward_weight)(acc *dweight, const real *dout,
                                                const real *x, const acc *rstd, int N,
                                                int C);
