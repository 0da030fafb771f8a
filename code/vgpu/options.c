/* code/vgpu/options.c: from chapters/A-virtual-gpu-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* Completing dls_gpu_options from the environment; shared by both backends. */
#include "vgpu/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* read one environment variable */
static dls_status from_environment(const char *name, long long min, long long max,
                                   long long fallback, long long *out)
{
    const char *text = getenv(name);
    *out = fallback;
    if (text == NULL || *text == '\0')
        return DLS_OK;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno || *end != '\0' || value < min || value > max)
        return DLS_FAIL(DLS_ERR_INPUT, "%s=%s: expected a whole number from %lld to %lld",
                        name, text, min, max);
    *out = value;
    return DLS_OK;
}

/* complete rank and world */
static dls_status complete_rank(dls_gpu_options *o, const dls_cluster *cluster)
{
    long long rank, world, local;
    int size = cluster->nodes * cluster->gpus_per_node;
    if (o->world == 0) {
        DLS_TRY(from_environment("DLS_WORLD_SIZE", 1, 1 << 20, 1, &world));
        DLS_TRY(from_environment("DLS_RANK", 0, world - 1, 0, &rank));
        o->world = (int)world;
        o->rank = (int)rank;
        DLS_TRY(from_environment("DLS_LOCAL_RANK", 0, cluster->gpus_per_node - 1,
                                 o->rank % cluster->gpus_per_node, &local));
        o->local_rank = (int)local;
    }
    if (o->world < 1 || o->rank < 0 || o->rank >= o->world || o->local_rank < 0 ||
        o->local_rank >= cluster->gpus_per_node)
        return DLS_FAIL(DLS_ERR_INPUT, "rank %d of world %d (local rank %d): expected "
                        "0 <= rank < world and 0 <= local rank < %d", o->rank, o->world,
                        o->local_rank, cluster->gpus_per_node);
    if (o->world > size)
        return DLS_FAIL(DLS_ERR_INPUT, "%d ranks do not fit cluster %s: it has %d "
                        "node(s) of %d GPUs", o->world, cluster->name, cluster->nodes,
                        cluster->gpus_per_node);
    return DLS_OK;
}

/* complete the options */
static dls_status complete_kernels(dls_gpu_options *o)
{
    const char *text = getenv("DLS_KERNELS");
    if (o->kernels != DLS_KERNELS_DEFAULT)
        return DLS_OK;
    o->kernels = DLS_KERNELS_HOST;
    if (text == NULL || *text == '\0' || strcmp(text, "host") == 0)
        return DLS_OK;
    if (strcmp(text, "simt") != 0 && strcmp(text, "timed") != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "DLS_KERNELS=%s: expected host, simt or timed",
                        text);
    o->kernels = text[0] == 's' ? DLS_KERNELS_SIMT : DLS_KERNELS_TIMED;
    return DLS_OK;
}

dls_status dls_gpu_complete(dls_gpu_options *o, dls_cluster *cluster, int *threads)
{
    long long seed, count;
    if (o->cluster_file == NULL || *o->cluster_file == '\0')
        o->cluster_file = getenv("DLS_CLUSTER");
    if (o->cluster_file != NULL && *o->cluster_file != '\0')
        DLS_TRY(dls_cluster_load(o->cluster_file, cluster));
    else
        dls_cluster_default(cluster);
    o->cluster_file = NULL; // the caller's memory; not needed any more
    DLS_TRY(complete_rank(o, cluster));
    DLS_TRY(complete_kernels(o));
    DLS_TRY(from_environment("DLS_SEED", 0, INT64_MAX, 1, &seed));
    o->seed = o->seed ? o->seed : (uint64_t)seed;
    DLS_TRY(from_environment("DLS_THREADS", 1, 4096, 0, &count));
    *threads = (int)count;
    return DLS_OK;
}
