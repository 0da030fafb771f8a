/* tests/comm/peer_ranks.c: from chapters/04-data-parallelism-transports-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* The checks of exact.h as a program, for launchers other than ours: make test-mpi, and
 * tests/comm/two_hosts.sh. */
#include <stdio.h>

#include "comm/identity.h"
#include "exact.h"

static dls_status check_all(dls_identity *who)
{
    dls_gpu_options options = {.cluster_file = "dgx-h100"};
    exact e = {.private_buffers = 0};
    DLS_TRY(dls_identity_adopt(who));
    DLS_TRY(dls_gpu_init(&options));
    DLS_TRY(dls_comm_create(&e.comm, NULL));
    DLS_TRY(exact_everything(&e));
    dls_comm_destroy(e.comm);
    return DLS_OK;
}

int main(void)
{
    dls_identity who;
    dls_status status = check_all(&who);
    if (status != DLS_OK)
        fprintf(stderr, "%s\n", dls_status_message());
    else
        printf("rank %d of %d, started by %s: exact\n", who.rank, who.world,
               who.launcher);
    return status != DLS_OK;
}
