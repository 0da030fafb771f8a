/* code/kernels/wire_host.h: from chapters/04-data-parallelism-hooks.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the conversions; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_to_wire)(void *out, int type, const real *in, size_t n,
                                double scale);
void DLS_HOST_NAME(dls_from_wire)(real *out, const void *in, int type, size_t n,
                                  double scale);
