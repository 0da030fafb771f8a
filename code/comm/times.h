/* code/comm/times.h: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* When the messages of a step depart and arrive, by the alpha-beta law and the ports of
 * the cluster. Pure functions, for the engine and for the simulator. Private to comm/. */
#ifndef DLS_COMM_TIMES_H
#define DLS_COMM_TIMES_H

#include "comm/algorithms.h"
#include "vgpu/cluster.h"

/* declare links and times */
typedef struct dls_link {
    double alpha, beta;         // s, s per byte
    uint32_t out_port, in_port; // equal numbers: the same port
} dls_link;

/* link (n, n): from member[f] to member[t] at f * n + t. DLS_ERR_INPUT: a rank that the
 * cluster does not have. */
dls_status dls_links_measure(const dls_cluster *cluster, const int *member, int n,
                             dls_link *link);

/* departure (step->sends) := when each message leaves, if the step begins at `now`.
 * Returns when the last of them has left its port. bytes: of an element. */
double dls_departures(const dls_link *links, int n, int rank, const dls_step *step,
                      size_t bytes, double now, double *departure);

/* arrival (step->receives) := when each message has come, given its departure. Returns
 * the latest, at least `now`. */
double dls_arrivals(const dls_link *links, int n, int rank, const dls_step *step,
                    size_t bytes, double now, const double *departure, double *arrival);

#endif
