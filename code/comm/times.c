/* code/comm/times.c: from chapters/04-data-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The alpha-beta law with ports. See times.h. */
#include "comm/times.h"

/* measure the links */
static uint32_t port_number(const dls_hop *hop)
{
    return (uint32_t)hop->kind << 28 | (uint32_t)(hop->from + 1) << 14 |
           (uint32_t)(hop->to + 1);
}

dls_status dls_links_measure(const dls_cluster *cluster, const int *member, int n,
                             dls_link *link)
{
    dls_hop hops[DLS_HOPS];
    int count;
    for (int i = 0; i < n * n; i++) {
        int from = member[i / n], to = member[i % n];
        link[i] = (dls_link){0};
        if (from == to)
            continue;
        DLS_TRY(dls_cluster_link(cluster, from, to, &link[i].alpha, &link[i].beta));
        DLS_TRY(dls_cluster_path(cluster, from, to, hops, &count));
        link[i].out_port = port_number(&hops[0]);
        link[i].in_port = port_number(&hops[count - 1]);
    }
    return DLS_OK;
}

/* let messages depart */
double dls_departures(const dls_link *links, int n, int rank, const dls_step *step,
                      size_t bytes, double now, double *departure)
{
    double free = now;
    for (int i = 0; i < step->sends; i++) {
        const dls_link *link = &links[rank * n + step->send[i].peer];
        departure[i] = now;
        for (int j = i - 1; j >= 0; j--) { // the last before it on the same port
            const dls_link *other = &links[rank * n + step->send[j].peer];
            if (other->out_port != link->out_port)
                continue;
            departure[i] = departure[j] + other->alpha +
                           other->beta * (double)(step->send[j].count * bytes);
            break;
        }
        double left = departure[i] + link->beta * (double)(step->send[i].count * bytes);
        free = left > free ? left : free;
    }
    return free;
}

/* let messages arrive */
static void sort_by_departure(const double *departure, int n, int *order)
{
    for (int i = 0; i < n; i++) {
        int j = i;
        for (; j > 0 && departure[order[j - 1]] > departure[i]; j--)
            order[j] = order[j - 1];
        order[j] = i;
    }
}

double dls_arrivals(const dls_link *links, int n, int rank, const dls_step *step,
                    size_t bytes, double now, const double *departure, double *arrival)
{
    int order[DLS_COMM_RANKS];
    double last = now;
    sort_by_departure(departure, step->receives, order);
    for (int i = 0; i < step->receives; i++) {
        const dls_move *move = &step->receive[order[i]];
        const dls_link *link = &links[move->peer * n + rank];
        double begin = departure[order[i]];
        for (int j = i - 1; j >= 0; j--) {
            const dls_move *other = &step->receive[order[j]];
            if (links[other->peer * n + rank].in_port != link->in_port)
                continue;
            begin = arrival[order[j]] > begin ? arrival[order[j]] : begin;
            break;
        }
        arrival[order[i]] = begin + (link->alpha + link->beta *
                                     (double)(move->count * bytes));
        last = arrival[order[i]] > last ? arrival[order[i]] : last;
    }
    return last;
}
