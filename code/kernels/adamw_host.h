/* code/kernels/adamw_host.h: from chapters/09-transformer-kernels-2.md. Edit the chapter, or edit here and run "make untangle". */
/* Host version of AdamW; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_adamw)(real *p, acc *master, const acc *g, acc *m, acc *v,
                              size_t n, dls_adamw_rates rates, const double *coef);
