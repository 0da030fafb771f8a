/* code/kernels/router_host.h: from chapters/08-router-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Host versions of the router; see host_pair.h for how this is included. */
void DLS_HOST_NAME(dls_router_choose)(dls_router r, int *index, acc *weight, int *chosen,
                                      const acc *scores, const acc *bias);
void DLS_HOST_NAME(dls_router_place)(dls_router r, int *place, int *counts,
                                     const int *index, const int *chosen,
                                     const int *before, int earlier);
void DLS_HOST_NAME(dls_router_gather)(int *out, const int *chosen, int B, int E);
void DLS_HOST_NAME(dls_router_backward)(dls_router r, dls_router_aux aux, acc scale,
                                        real *dscores, const acc *dweight,
                                        const acc *scores, const int *index,
                                        const int *place);
void DLS_HOST_NAME(dls_router_tally)(dls_router r, dls_router_aux aux, acc *tally,
                                     const acc *scores, const int *chosen,
                                     const int *before, int earlier);
void DLS_HOST_NAME(dls_router_bias)(acc *bias, const acc *tally, int E, acc rate);
