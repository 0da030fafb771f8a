/* tests/comm/test_native.c: from chapters/04-data-parallelism-transports-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* NCCL with a world of one, where there is a GPU; else its refusal. */
#include "exact.h"
#include "outcome.h"

Test(comm, native_collectives_of_one_rank)
{
    exact e = {.private_buffers = 0};
    setenv("DLS_COMM", "nccl", 1);
#ifdef DLS_WITH_NCCL
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0)
        cr_skip_test("no GPU here");
    expect_ok(dls_gpu_init(NULL));
    expect_ok(dls_comm_create(&e.comm, NULL));
    expect_ok(exact_everything(&e));
    dls_comm_destroy(e.comm);
#else
    expect_ok(dls_gpu_init(NULL));
    cr_assert_eq(dls_comm_create(&e.comm, NULL), DLS_ERR_INPUT);
    EXPECT_WORDS(dls_status_message(), "built without NCCL", "local, mpi or tcp");
#endif
}
