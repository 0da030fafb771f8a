/* code/kernels/fp8_host.h: from chapters/08-dispatch-wire.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of rows in fp8; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_fp8_pack)(void *wire, const real *x, int n, int C);
void DLS_HOST_NAME(dls_fp8_unpack)(real *x, const void *wire, int n, int C);
