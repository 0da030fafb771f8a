/* code/comm/join.c: from chapters/04-data-parallelism-transports.md. Edit the chapter, or edit here and run "make untangle". */
/* Choosing a transport, and what it needs to begin. */
#include "comm/join.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/carrier_tcp.h"
#include "comm/rendezvous.h"
#include "comm/transport_frames.h"
#include "comm/transport_local.h"

/* join in shared memory */
static dls_status join_local(const dls_identity *who, dls_transport **out)
{
    const char *text = getenv("DLS_ARENA_FD");
    char *end;
    long fd = text && *text ? strtol(text, &end, 10) : -1;
    if (fd < 0 || fd > 1 << 20 || *end)
        return DLS_FAIL(DLS_ERR_INPUT, "DLS_WORLD_SIZE=%d but DLS_ARENA_FD is not set; "
                        "start the ranks with `dls run -n %d`", who->world, who->world);
    return dls_transport_local((int)fd, who->rank, who->world, out);
}

/* join by rendezvous */
enum { SECONDS = 60 }; // for all ranks to come

static double patience(void)
{
    const char *text = getenv("DLS_RENDEZVOUS_SECONDS");
    double seconds = text ? strtod(text, NULL) : 0;
    return seconds > 0 ? seconds : SECONDS;
}

static dls_status join_tcp(const dls_identity *who, dls_transport **out)
{
    dls_store *store;
    dls_carrier *carrier;
    double seconds = patience();
    if (!who->url[0])
        return DLS_FAIL(DLS_ERR_INPUT, "rank %d of %d does not know where to meet: set "
                        "DLS_RENDEZVOUS=tcp://HOST:PORT, or MASTER_ADDR and MASTER_PORT",
                        who->rank, who->world);
    DLS_TRY(dls_rendezvous_join(who->url, who->rank, who->world, seconds, &store));
    dls_status status = dls_carrier_tcp(store, who->rank, who->world, seconds, &carrier);
    if (status == DLS_OK)
        status = dls_transport_frames("tcp", carrier, out);
    dls_rendezvous_leave(store, who->world);
    return status;
}

/* join by mpi */
typedef dls_carrier *open_carrier(void);

/* The function of dls-mpi.so, beside the program; NULL: it can not be loaded. */
static open_carrier *find_mpi(void)
{
    char path[512];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 16);
    char *slash = n > 0 ? (path[n] = 0, strrchr(path, '/')) : NULL;
    if (!slash)
        return NULL;
    snprintf(slash + 1, 16, "dls-mpi.so");
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    return library ? (open_carrier *)dlsym(library, "dls_mpi_open") : NULL;
}

static dls_status join_mpi(const dls_identity *who, dls_transport **out)
{
    open_carrier *open = find_mpi();
    if (!open)
        return DLS_FAIL(DLS_ERR_INPUT, "no dls-mpi.so beside this program: install Open "
                        "MPI with its headers and run make again");
    dls_carrier *carrier = open();
    if (!carrier)
        return DLS_FAIL(DLS_ERR_COMM, "MPI does not begin");
    if (carrier->rank != who->rank || carrier->world != who->world) {
        int rank = carrier->rank, world = carrier->world;
        carrier->close(carrier);
        return DLS_FAIL(DLS_ERR_INPUT, "MPI calls this rank %d of %d, the environment "
                        "%d of %d", rank, world, who->rank, who->world);
    }
    return dls_transport_frames("mpi", carrier, out);
}

/* join by what fits */
dls_status dls_join(const dls_identity *who, dls_transport **out)
{
    const char *wish = getenv("DLS_COMM"), *arena = getenv("DLS_ARENA_FD");
    if (!wish || !*wish || strcmp(wish, "nccl") == 0) // which needs a transport as well
        wish = arena && *arena                      ? "local"
               : strcmp(who->launcher, "mpirun") == 0 && find_mpi() ? "mpi"
               : who->url[0]                        ? "tcp" : "local";
    if (strcmp(wish, "local") == 0)
        return join_local(who, out);
    if (strcmp(wish, "mpi") == 0)
        return join_mpi(who, out);
    if (strcmp(wish, "tcp") == 0)
        return join_tcp(who, out);
    return DLS_FAIL(DLS_ERR_INPUT, "DLS_COMM=%.40s: expected local, mpi, tcp or nccl",
                    wish);
}
