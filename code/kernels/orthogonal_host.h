/* code/kernels/orthogonal_host.h: from chapters/04-data-parallelism-hooks-lossy.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions for PowerSGD; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_orthogonalise)(real *p, int rows, int columns, double least);
void DLS_HOST_NAME(dls_refill_columns)(real *q, const real *fresh, int rows, int columns);
