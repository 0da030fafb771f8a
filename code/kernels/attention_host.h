/* code/kernels/attention_host.h: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the attention; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_attention_forward)(real *out, real *att, const real *qkv, int B,
                                          int T, int C, int H);
void DLS_HOST_NAME(dls_attention_backward)(real *dqkv, real *scratch, const real *dout,
                                           const real *qkv, const real *att, int B, int T,
                                           int C, int H);
