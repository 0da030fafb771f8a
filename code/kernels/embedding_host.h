/* code/kernels/embedding_host.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the embedding; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_embedding_forward)(real *out, const int *tokens,
                                          const int *positions, const real *wte,
                                          const real *wpe, int B, int T, int C, int first,
                                          int V);
void DLS_HOST_NAME(dls_embedding_backward)(acc *dwte, acc *dwpe, const real *dout,
                                           const int *tokens, const int *positions,
                                           int B, int T, int C, int first, int V);
