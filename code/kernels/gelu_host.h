/* code/kernels/gelu_host.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of GELU; see host_pair.h for how this is included. */
/* declare gelu on the host */
void DLS_HOST_NAME(dls_gelu_forward)(real *out, const real *x, size_t n);
void DLS_HOST_NAME(dls_gelu_backward)(real *dx, const real *dout, const real *x,
                                      size_t n);
void DLS_HOST_NAME(dls_gelu_erf_forward)(real *out, const real *x, size_t n);
void DLS_HOST_NAME(dls_gelu_erf_backward)(real *dx, const real *dout, const real *x,
                                          size_t n);
