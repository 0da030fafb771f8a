/* code/vgpu/topology.c: from chapters/A-virtual-gpu-clusters.md. Edit the chapter, or edit here and run "make untangle". */
/* The path between two ranks, and what a message takes on it.
 *
 *   in a node    GPU == switch == GPU            port, port
 *                GPU ======== GPU                a link of their own
 *                GPU - switch - CPU - CPU - switch - GPU    as far up as needed
 *   between      GPU(NIC) - leaf [- spine - leaf] - (NIC)GPU
 *
 * Nothing here is state: a path is a function of the cluster and two numbers. */
#include "vgpu/cluster.h"

#include <math.h>
#include <stdio.h>

/* collect hops */
typedef struct path { dls_hop *hops; int count; } path;

static void add(path *p, dls_hop_kind kind, int from, int to, double alpha, double beta)
{
    p->hops[p->count++] = (dls_hop){kind, from, to, alpha, beta};
}

/* go over nvlink */
static int joined(const dls_cluster *c, int a, int b)
{
    int n = c->gpus_per_node, distance = a > b ? a - b : b - a;
    switch (c->shape) {
    case DLS_SHAPE_SWITCH:
    case DLS_SHAPE_MESH: return 1;
    case DLS_SHAPE_RING: return distance == 1 || distance == n - 1;
    case DLS_SHAPE_PAIRS: return a / 2 == b / 2;
    default: return 0;
    }
}

static void over_nvlink(const dls_cluster *c, int a, int b, path *p)
{
    const dls_link_spec *l = &c->intra;
    if (c->shape != DLS_SHAPE_SWITCH) {
        add(p, DLS_HOP_NVLINK, a, b, l->alpha, l->beta);
        return;
    }
    add(p, DLS_HOP_PORT, a, -1, l->alpha, l->beta);
    add(p, DLS_HOP_PORT, -1, b, 0, l->beta);
}

/* go over pcie */
enum { SOCKETS = 1 << 24 }; // the number of the first CPU, behind all switches

/* Switches and CPUs are numbered node by node; g: the GPU within its node. */
static int switch_of(const dls_cluster *c, int node, int g)
{
    return node * c->gpus_per_node + g / c->gpus_per_switch;
}

static int socket_of(const dls_cluster *c, int node, int g)
{
    return SOCKETS + node * c->gpus_per_node +
           g / (c->gpus_per_switch * c->switches_per_socket);
}

static void over_pcie(const dls_cluster *c, int a, int b, path *p)
{
    int node = a / c->gpus_per_node, i = a % c->gpus_per_node, j = b % c->gpus_per_node;
    int from = switch_of(c, node, i), to = switch_of(c, node, j);
    int up = socket_of(c, node, i), down = socket_of(c, node, j);
    const dls_link_spec *l = &c->pcie;
    const int gpus = 2 * SOCKETS; // and GPUs behind the CPUs
    add(p, DLS_HOP_PCIE, gpus + a, from, l->alpha, l->beta);
    if (from != to) {
        add(p, DLS_HOP_PCIE, from, up, l->alpha, l->beta);
        if (up != down)
            add(p, DLS_HOP_SOCKET, up, down, c->socket.alpha, c->socket.beta);
        add(p, DLS_HOP_PCIE, down, to, l->alpha, l->beta);
    }
    add(p, DLS_HOP_PCIE, to, gpus + b, l->alpha, l->beta);
}

void dls_hop_end(const dls_hop *hop, int end, char *text, size_t size)
{
    int gpu = hop->kind <= DLS_HOP_NVLINK, card = hop->kind >= DLS_HOP_NIC;
    if (end < 0)
        snprintf(text, size, "%s", card ? "leaf" : "NVSwitch");
    else if (gpu || card)
        snprintf(text, size, "%s %d", gpu ? "GPU" : "card", end);
    else if (end >= 2 * SOCKETS)
        snprintf(text, size, "GPU %d", end - 2 * SOCKETS);
    else
        snprintf(text, size, "%s %d", end >= SOCKETS ? "CPU" : "switch", end % SOCKETS);
}

/* go over the network */
static void over_network(const dls_cluster *c, int a, int b, path *p)
{
    int n = c->gpus_per_node, cards = (n + c->gpus_per_nic - 1) / c->gpus_per_nic;
    int from = a % n / c->gpus_per_nic, to = b % n / c->gpus_per_nic;
    int leaf = a / n / c->nodes_per_leaf, other = b / n / c->nodes_per_leaf;
    const dls_link_spec *l = &c->inter;
    add(p, DLS_HOP_NIC, a / n * cards + from, -1, l->alpha, l->beta);
    if (leaf != other || (c->rails && from != to))
        add(p, DLS_HOP_SPINE, a / n * cards + from, b / n * cards + to, c->spine_alpha,
            l->beta * c->oversubscription);
    add(p, DLS_HOP_NIC, -1, b / n * cards + to, 0, l->beta);
}

/* answer for a path */
dls_status dls_cluster_path(const dls_cluster *c, int a, int b, dls_hop hops[DLS_HOPS],
                            int *count)
{
    int n = c->gpus_per_node, size = c->nodes * n;
    int worst = a < 0 || a >= size ? a : b;
    path p = {hops, 0};
    if (worst < 0 || worst >= size)
        return DLS_FAIL(DLS_ERR_INPUT, "rank %d is not in cluster %s: expected 0 to %d "
                        "(%d node(s) of %d GPUs)", worst, c->name, size - 1, c->nodes, n);
    if (a / n != b / n)
        over_network(c, a, b, &p);
    else if (a != b && joined(c, a % n, b % n))
        over_nvlink(c, a, b, &p);
    else if (a != b)
        over_pcie(c, a, b, &p);
    *count = p.count;
    return DLS_OK;
}

dls_status dls_cluster_link(const dls_cluster *c, int rank_a, int rank_b, double *alpha,
                            double *beta)
{
    int flow[1][2] = {{rank_a, rank_b}};
    return dls_cluster_flow(c, (const int (*)[2])flow, 1, 0, alpha, beta);
}

/* answer for flows */
static int same_link(const dls_hop *x, const dls_hop *y)
{
    return x->kind == y->kind && x->from == y->from && x->to == y->to;
}

/* How many of the flows cross this hop. */
static dls_status count_users(const dls_cluster *c, const int (*flows)[2], int n,
                              const dls_hop *hop, int *users)
{
    dls_hop hops[DLS_HOPS];
    int count;
    *users = 0;
    for (int i = 0; i < n; i++) {
        DLS_TRY(dls_cluster_path(c, flows[i][0], flows[i][1], hops, &count));
        for (int k = 0; k < count; k++)
            *users += same_link(hop, &hops[k]);
    }
    return DLS_OK;
}

dls_status dls_cluster_flow(const dls_cluster *c, const int (*flows)[2], int n, int which,
                            double *alpha, double *beta)
{
    const dls_device_spec *d = &c->device;
    dls_hop hops[DLS_HOPS];
    int count, users;
    DLS_TRY(dls_cluster_path(c, flows[which][0], flows[which][1], hops, &count));
    *alpha = 0;
    *beta = count ? 0 : 2 / (d->memory_bandwidth * d->share[DLS_WORK_COPY].memory);
    for (int k = 0; k < count; k++) {
        DLS_TRY(count_users(c, flows, n, &hops[k], &users));
        *alpha += hops[k].alpha;
        *beta = fmax(*beta, hops[k].beta * users);
    }
    return DLS_OK;
}

/* share the way to the host */
double dls_cluster_host_bandwidth(const dls_cluster *c, int rank, int world)
{
    int n = c->gpus_per_node, users = 0;
    int mine = rank % n / c->gpus_per_switch;
    for (int g = mine * c->gpus_per_switch; g < (mine + 1) * c->gpus_per_switch; g++)
        users += g < n && rank / n * n + g < world;
    if (c->pcie.beta == 0 || users < 2)
        return c->device.host_bandwidth;
    return fmin(c->device.host_bandwidth, 1 / (c->pcie.beta * users));
}
