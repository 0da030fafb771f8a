/* code/kernels/elementwise_host.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the elementwise operations; see host_pair.h for how this is included.
 */
void DLS_HOST_NAME(dls_add)(real *out, const real *a, const real *b, size_t n);
void DLS_HOST_NAME(dls_scale)(real *x, acc alpha, size_t n);
