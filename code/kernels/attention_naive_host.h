/* code/kernels/attention_naive_host.h: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the materialised attention; see host_pair.h. */
void DLS_HOST_NAME(dls_attention_naive_forward)(dls_attention_shape s, real *out,
                                                acc *lse, acc *att, const real *q,
                                                const real *k, const real *v);
void DLS_HOST_NAME(dls_attention_naive_backward)(dls_attention_shape s, real *dq,
                                                 real *dk, real *dv, acc *scratch,
                                                 const real *dout, const real *q,
                                                 const real *k, const real *v,
                                                 const acc *att);
