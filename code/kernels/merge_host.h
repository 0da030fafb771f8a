/* code/kernels/merge_host.h: from chapters/06-context-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the merges; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_merge_outputs)(dls_merge_rows rows, int H, int D, acc *sum,
                                      acc *total, const real *block, const acc *lse,
                                      int begin);
void DLS_HOST_NAME(dls_merge_totals)(dls_merge_rows rows, int H, acc *lse,
                                     const acc *total);
void DLS_HOST_NAME(dls_merge_add)(dls_merge_rows rows, int C, acc *sum, size_t sum_row,
                                  const real *x, size_t x_row, int begin);
void DLS_HOST_NAME(dls_merge_store)(int N, int C, real *out, size_t out_row,
                                    const acc *sum, size_t sum_row);
