/* code/kernels/rows_host.h: from chapters/04-data-parallelism-ddp-rows.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the moves of rows; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_rows_gather)(real *out, const real *x, const int *numbers, int n,
                                    int C);
void DLS_HOST_NAME(dls_rows_scatter)(real *x, const real *from, const int *numbers, int n,
                                     int C);
void DLS_HOST_NAME(dls_rows_put_outside)(real *x, const real *from,
                                         const unsigned char *kept, int V, int C);
