/* code/kernels/dropout_host.h: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Host version of dropout; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_dropout_apply)(real *out, const real *x, int N, int C,
                                      uint64_t first, uint64_t row,
                                      dls_dropout_gate gate);
