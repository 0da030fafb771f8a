/* code/kernels/rope_host.h: from chapters/09-transformer-kernels-3.md. Edit the chapter, or edit here and run "make untangle". */
/* Host version of the rotation; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_rope_turn)(real *x, const acc *table, dls_rope_shape s, acc sign);
