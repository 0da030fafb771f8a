/* code/kernels/node_rows_host.h: from chapters/08-dispatch-nodes.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the sums over nodes; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_node_sum)(real *y, const real *x, const int *place,
                                 const acc *weight, int n, int width, int C);
