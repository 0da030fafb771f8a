/* code/comm/identity.c: from chapters/04-data-parallelism-rendezvous.md. Edit the chapter, or edit here and run "make untangle". */
/* The environment of the launchers. Inner launchers come first in the table: srun may
 * have started the mpirun that started us, and mpirun the `dls run`. */
#include "comm/identity.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* list the launchers */
typedef struct launcher {
    const char *name, *rank, *world, *local_rank, *local_world;
} launcher;

static const launcher launchers[] = {
    {"dls run", "DLS_RANK", "DLS_WORLD_SIZE", "DLS_LOCAL_RANK", "DLS_LOCAL_WORLD_SIZE"},
    {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
     "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", NULL},
};

/* read a number of the launcher */
/* *out stays as it is when the variable is unset or empty. */
static dls_status read_variable(const char *name, int least, int most, int *out)
{
    const char *text = name ? getenv(name) : NULL;
    char *end;
    if (!text || !*text)
        return DLS_OK;
    long value = strtol(text, &end, 10);
    if (*end || value < least || value > most)
        return DLS_FAIL(DLS_ERR_INPUT, "%s=%.40s: expected a number from %d to %d", name,
                        text, least, most);
    *out = (int)value;
    return DLS_OK;
}

static int is_set(const char *name)
{
    const char *text = getenv(name);
    return text && *text;
}

static const launcher *find_launcher(void)
{
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        if (is_set(launchers[i].rank) && is_set(launchers[i].world))
            return &launchers[i];
    return NULL;
}

/* find the first host of a list */
/* "node[03-05,7],x" -> "node03"; 0 if it does not fit or is not such a list. */
static int first_host(const char *list, char *out, size_t size)
{
    size_t stem = strcspn(list, "[,"), digits = 0;
    const char *rest = list + stem;
    if (*rest == '[') {
        rest++;
        digits = strspn(rest, "0123456789");
        if (digits == 0)
            return 0;
    }
    if (stem + digits == 0 || stem + digits >= size)
        return 0;
    snprintf(out, size, "%.*s%.*s", (int)stem, list, (int)digits, rest);
    return 1;
}

/* find where to meet */
static dls_status find_url(const launcher *by, char url[DLS_URL])
{
    const char *said = getenv("DLS_RENDEZVOUS"), *host = getenv("MASTER_ADDR");
    const char *hosts = getenv("SLURM_STEP_NODELIST");
    const char *agent = getenv("TORCHELASTIC_USE_AGENT_STORE");
    char first[128];
    int port = 0, job = 0;
    url[0] = 0;
    if (said && strcmp(said, "env://") != 0) {
        snprintf(url, DLS_URL, "%s", said);
        return DLS_OK;
    }
    DLS_TRY(read_variable("MASTER_PORT", 1, 65535, &port));
    DLS_TRY(read_variable("SLURM_JOB_ID", 0, INT_MAX, &job));
    if (host && *host && port)
        snprintf(url, DLS_URL, "tcp://%.128s:%d", host,
                 port + (agent && strcmp(agent, "True") == 0));
    else if (strcmp(by->name, "srun") == 0 && hosts &&
             first_host(hosts, first, sizeof first))
        snprintf(url, DLS_URL, "tcp://%s:%d", first, 20000 + job % 10000);
    else if (said)
        return DLS_FAIL(DLS_ERR_INPUT, "DLS_RENDEZVOUS=env://: MASTER_ADDR and "
                        "MASTER_PORT are not set");
    return DLS_OK;
}

/* read an identity */
dls_status dls_identity_read(dls_identity *out)
{
    const launcher *by = find_launcher();
    static const launcher nobody = {.name = "nobody"};
    *out = (dls_identity){.world = 1, .local_rank = -1, .local_world = -1};
    if (by) {
        DLS_TRY(read_variable(by->world, 1, 1 << 20, &out->world));
        DLS_TRY(read_variable(by->rank, 0, out->world - 1, &out->rank));
        DLS_TRY(read_variable(by->local_world, 1, out->world, &out->local_world));
        DLS_TRY(read_variable(by->local_rank, 0, (out->local_world > 0
                              ? out->local_world : out->world) - 1, &out->local_rank));
    }
    out->launcher = by ? by->name : nobody.name;
    if (by == launchers && is_set("DLS_LAUNCHER")) // adopted before
        out->launcher = getenv("DLS_LAUNCHER");
    return find_url(by ? by : &nobody, out->url);
}

dls_status dls_identity_adopt(dls_identity *out)
{
    char text[16];
    DLS_TRY(dls_identity_read(out));
    if (out->world == 1 || strcmp(out->launcher, "dls run") == 0)
        return DLS_OK;
    snprintf(text, sizeof text, "%d", out->rank);
    setenv("DLS_RANK", text, 1);
    snprintf(text, sizeof text, "%d", out->world);
    setenv("DLS_WORLD_SIZE", text, 1);
    setenv("DLS_LAUNCHER", out->launcher, 1);
    if (out->url[0])
        setenv("DLS_RENDEZVOUS", out->url, 1);
#ifdef DLS_BACKEND_cuda // a virtual cluster's hosts are not those that we run on
    snprintf(text, sizeof text, "%d", out->local_rank);
    if (out->local_rank >= 0)
        setenv("DLS_LOCAL_RANK", text, 1);
#endif
    return DLS_OK;
}
