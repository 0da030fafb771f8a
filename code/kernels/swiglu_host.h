/* code/kernels/swiglu_host.h: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of SwiGLU; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_swiglu_forward)(real *out, const real *gate_up, int N, int F);
void DLS_HOST_NAME(dls_swiglu_backward)(real *dgate_up, const real *dout,
                                        const real *gate_up, int N, int F);
