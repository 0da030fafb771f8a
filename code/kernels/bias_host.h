/* code/kernels/bias_host.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the bias; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_bias_add)(real *x, const real *bias, int N, int C);
void DLS_HOST_NAME(dls_bias_backward)(acc *dbias, const real *dout, int N, int C);
