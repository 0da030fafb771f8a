/* code/kernels/grouped_host.h: from chapters/08-mixture-of-experts-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the grouped products; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_grouped_rows)(real *y, const real *x, dls_group_table table,
                                     int turned, int N, int K);
void DLS_HOST_NAME(dls_grouped_weights)(const real *y, const real *x,
                                        dls_group_table table, int N, int K);
