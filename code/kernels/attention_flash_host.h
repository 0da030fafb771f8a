/* code/kernels/attention_flash_host.h: from chapters/10-flash-attention-host.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of flash attention; see host_pair.h. The shapes are complete. */
void DLS_HOST_NAME(dls_attention_flash_forward)(dls_attention_shape s, real *out,
                                                acc *lse, const real *q, const real *k,
                                                const real *v);
void DLS_HOST_NAME(dls_attention_flash_backward)(dls_attention_shape s, real *dq,
                                                 real *dk, real *dv, acc *temporary,
                                                 const real *dout, const real *q,
                                                 const real *k, const real *v,
                                                 const real *out, const acc *lse);
