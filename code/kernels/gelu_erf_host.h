/* code/kernels/gelu_erf_host.h: from chapters/09-transformer-kernels-gelu-erf.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the exact GELU; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_gelu_erf_forward)(real *out, const real *x, size_t n);
void DLS_HOST_NAME(dls_gelu_erf_backward)(real *dx, const real *dout, const real *x,
                                          size_t n);
