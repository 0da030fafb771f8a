/* code/kernels/convert_host.h: from chapters/04-data-parallelism-zero.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the conversions; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_to_narrow)(real *out, const acc *in, size_t n, int add);
void DLS_HOST_NAME(dls_to_wide)(acc *out, const real *in, size_t n);
