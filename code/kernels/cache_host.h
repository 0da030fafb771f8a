/* code/kernels/cache_host.h: from chapters/09-transformer-generation.md. Edit the chapter, or edit here and run "make untangle". */
/* Host version of the cache's append; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_cache_append)(real *cache, const real *rows, size_t row,
                                     const int *positions, int N, int T, int width,
                                     int length);
