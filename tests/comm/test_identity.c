/* tests/comm/test_identity.c: from chapters/04-data-parallelism-rendezvous-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Who we are, from the environments of five launchers. */
#include "comm/identity.h"

#include "outcome.h"

/* set an environment */
/* NAME=value, separated by spaces; nothing else is set. */
static dls_identity read_from(const char *text, dls_status expected)
{
    char copy[1000], *save;
    dls_identity id;
    clearenv();
    snprintf(copy, sizeof copy, "%s", text);
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        char *equals = strchr(w, '=');
        *equals = 0;
        setenv(w, equals + 1, 1);
    }
    dls_status status = dls_identity_read(&id);
    cr_assert_eq(status, expected, "%s: %s", text, dls_status_message());
    return id;
}

static void expect_identity(const char *text, const char *launcher, const int n[4],
                            const char *url)
{
    dls_identity id = read_from(text, DLS_OK);
    cr_assert_str_eq(id.launcher, launcher);
    cr_assert(id.rank == n[0] && id.world == n[1] && id.local_rank == n[2] &&
              id.local_world == n[3], "%s: %d %d %d %d", text, id.rank, id.world,
              id.local_rank, id.local_world);
    cr_assert_str_eq(id.url, url);
}

/* read the environment of each launcher */
Test(comm, identity_comes_from_the_launcher)
{
    expect_identity("", "nobody", (int[]){0, 1, -1, -1}, "");
    expect_identity("DLS_RANK=2 DLS_WORLD_SIZE=4", "dls run", (int[]){2, 4, -1, -1}, "");
    expect_identity("OMPI_COMM_WORLD_RANK=5 OMPI_COMM_WORLD_SIZE=8 "
                    "OMPI_COMM_WORLD_LOCAL_RANK=1 OMPI_COMM_WORLD_LOCAL_SIZE=4",
                    "mpirun", (int[]){5, 8, 1, 4}, "");
    expect_identity("PMI_RANK=0 PMI_SIZE=2 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=2",
                    "mpiexec", (int[]){0, 2, 0, 2}, "");
    expect_identity("RANK=7 WORLD_SIZE=8 LOCAL_RANK=3 LOCAL_WORLD_SIZE=4 "
                    "MASTER_ADDR=10.0.0.1 MASTER_PORT=29500",
                    "torchrun", (int[]){7, 8, 3, 4}, "tcp://10.0.0.1:29500");
    expect_identity("RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=29500 "
                    "TORCHELASTIC_USE_AGENT_STORE=True",
                    "torchrun", (int[]){0, 2, -1, -1}, "tcp://a:29501");
    expect_identity("SLURM_PROCID=3 SLURM_STEP_NUM_TASKS=8 SLURM_LOCALID=1 "
                    "SLURM_STEP_NODELIST=node[03-05,7],login1 SLURM_JOB_ID=1234567",
                    "srun", (int[]){3, 8, 1, -1}, "tcp://node03:24567");
    expect_identity("SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST=a,b[1-2] "
                    "SLURM_JOB_ID=1", "srun", (int[]){0, 2, -1, -1}, "tcp://a:20001");
}

Test(comm, identity_of_the_inner_launcher_and_of_a_batch_script)
{
    expect_identity("SLURM_PROCID=1 SLURM_STEP_NUM_TASKS=2 OMPI_COMM_WORLD_RANK=3 "
                    "OMPI_COMM_WORLD_SIZE=4", "mpirun", (int[]){3, 4, -1, -1}, "");
    expect_identity("SLURM_PROCID=0 SLURM_NTASKS=8", "nobody", (int[]){0, 1, -1, -1}, "");
    expect_identity("RANK=3", "nobody", (int[]){0, 1, -1, -1}, "");
    expect_identity("DLS_RENDEZVOUS=file:///tmp/x RANK=0 WORLD_SIZE=2 MASTER_ADDR=a "
                    "MASTER_PORT=1", "torchrun", (int[]){0, 2, -1, -1}, "file:///tmp/x");
}

/* refuse a bad environment */
static void expect_refusal(const char *text, const char *variable)
{
    read_from(text, DLS_ERR_INPUT);
    EXPECT_WORDS(dls_status_message(), variable, "expected a number");
}

Test(comm, identity_names_the_variable_that_is_wrong)
{
    expect_refusal("RANK=4 WORLD_SIZE=4", "RANK=4");
    expect_refusal("RANK=-1 WORLD_SIZE=4", "RANK=-1");
    expect_refusal("RANK=0 WORLD_SIZE=many", "WORLD_SIZE=many");
    expect_refusal("RANK=0 WORLD_SIZE=4 LOCAL_RANK=2 LOCAL_WORLD_SIZE=2", "LOCAL_RANK=2");
    expect_refusal("MASTER_PORT=70000", "MASTER_PORT=70000");
    read_from("DLS_RENDEZVOUS=env:// RANK=0 WORLD_SIZE=2", DLS_ERR_INPUT);
    EXPECT_WORDS(dls_status_message(), "MASTER_ADDR and MASTER_PORT");
}

Test(comm, identity_adopted_is_what_the_device_reads)
{
    dls_identity id;
    read_from("OMPI_COMM_WORLD_RANK=5 OMPI_COMM_WORLD_SIZE=8", DLS_OK);
    expect_ok(dls_identity_adopt(&id));
    cr_assert_str_eq(getenv("DLS_RANK"), "5");
    cr_assert_str_eq(getenv("DLS_WORLD_SIZE"), "8");
}
