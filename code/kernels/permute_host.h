/* code/kernels/permute_host.h: from chapters/08-mixture-of-experts-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the permutation; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_permute)(real *xs, const real *x, const int *place, int n, int k,
                                int C);
void DLS_HOST_NAME(dls_unpermute)(real *y, const real *base, const real *ys,
                                  const acc *weight, const int *place, int n, int k,
                                  int C);
void DLS_HOST_NAME(dls_unpermute_backward)(real *dys, acc *dweight, const real *dy,
                                           const real *ys, const acc *weight,
                                           const int *place, int n, int k, int C);
