/* code/kernels/compress_host.h: from chapters/04-data-parallelism-hooks-lossy.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the compressors; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_top_k)(real *values, int *indices, real *x, size_t n, double keep);
void DLS_HOST_NAME(dls_top_k_sum)(real *out, const real *values, const int *indices,
                                  int ranks, size_t n, double keep);
void DLS_HOST_NAME(dls_signs_pack)(int *words, real *x, size_t n, size_t chunks);
void DLS_HOST_NAME(dls_signs_sum)(real *out, const int *words, int ranks, size_t n,
                                  size_t chunks, int add);
void DLS_HOST_NAME(dls_add_scaled)(real *y, real a, const real *x, size_t n);
