/* code/vgpu/profile.c: from chapters/A-virtual-gpu-profile.md. Edit the chapter, or edit here and run "make untangle". */
/* The profiler as a consumer of the probes: launches become entries of a list of kernels.
 */
#include "vgpu/profile_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "vgpu/occupancy.h"
#include "vgpu/vgpu_internal.h"

static dls_profile_entry *entries;
static unsigned entry_count;
static size_t shared_seen;   // by the launch's first block
static int measuring_shared;

/* keep a list of kernels */
unsigned dls_profile_kernels(dls_profile_entry **out)
{
    *out = entries;
    return entry_count;
}

static dls_profile_entry *entry_of(const dls_simt_grid *grid)
{
    for (unsigned i = 0; i < entry_count; i++)
        if (!strcmp(entries[i].kernel.name, grid->name))
            return &entries[i];
    dls_profile_entry *more = realloc(entries, (entry_count + 1) * sizeof *entries);
    char *name = strdup(grid->name), *file = strdup(grid->file);
    if (more)
        entries = more;
    if (!more || !name || !file)
        return NULL;
    dls_profile_entry *e = &entries[entry_count++];
    *e = (dls_profile_entry){.kernel = {.name = name, .file = file, .line = grid->line}};
    return e;
}

static void forget_kernels(void)
{
    for (unsigned i = 0; i < entry_count; i++) {
        free((char *)entries[i].kernel.name);
        free((char *)entries[i].kernel.file);
        free(entries[i].site);
    }
    free(entries);
    entries = NULL;
    entry_count = 0;
}
/* begin to count a launch */
static void launch_begin(const dls_simt_grid *grid, unsigned long long number)
{
    (void)grid;
    dls_profile_new_launch(number);
    dls_profile_cache_begin(dls_vgpu.cluster.device.l2_bytes);
    shared_seen = 0;
    measuring_shared = 1;
}

static void shared_array(const char *name, void *array, size_t bytes, const char *file,
                         int line)
{
    (void)name, (void)array, (void)file, (void)line;
    if (measuring_shared)
        shared_seen += bytes;
}

static void block_end(unsigned long long block)
{
    (void)block;
    measuring_shared = 0;
}
/* tell the emulators own blocks */
static void add_flops(void *total, uintptr_t pc, unsigned flops)
{
    (void)pc;
    *(unsigned *)total += flops;
}

/* What the launch counted at the site, with the arithmetic of its basic block. */
static dls_profile_counters harvest(dls_probe_site *site)
{
    dls_profile_site *s = site->slot[dls_profile_number];
    if (site->kind != DLS_PROBE_BLOCK)
        return s->c;
    if (!s->known) {
        s->known = 1;
        dls_probe_locate(site);
        s->emulators = site->hidden;
        dls_profile_flops(site->pc, add_flops, &s->flops);
    }
    dls_profile_counters c = s->c;
    c.flops = s->flops * c.lanes;
    if (s->emulators)
        c.blocks = c.lanes = 0;
    return c;
}
/* draw the roofline of a launch */
/* Seconds of each roof, and which is the highest. */
static void add_roofline(dls_profiled_kernel *k, const dls_profile_counters *c)
{
    const dls_device_spec *d = &dls_vgpu.cluster.device;
    double compute = (double)c->flops / d->f32;
    if (c->tensor_flops)
        compute += (double)c->tensor_flops /
                   dls_cluster_peak(d, DLS_WORK_GEMM_BF16);
    double memory = (double)(c->dram_read + c->dram_written) / d->memory_bandwidth;
    double shared = (double)c->wavefronts / (d->multiprocessors * d->clock);
    double most = d->least_kernel;
    const char *bound = "latency";
    if (compute > most)
        most = compute, bound = "compute";
    if (memory > most)
        most = memory, bound = "memory";
    if (shared > most)
        most = shared, bound = "shared memory";
    k->compute_time += compute;
    k->memory_time += memory;
    k->shared_time += shared;
    k->time += most;
    k->bound = bound;
}
/* end a launch */
static void describe_launch(dls_profiled_kernel *k, const dls_simt_grid *grid)
{
    const unsigned *b = grid->block;
    int threads = (int)(b[0] * b[1] * b[2]), warps = (threads + 31) / 32;
    memcpy(k->grid, grid->grid, sizeof k->grid);
    memcpy(k->block, grid->block, sizeof k->block);
    k->dynamic_shared = grid->shared_bytes;
    k->static_shared = shared_seen - grid->shared_bytes;
    k->occupancy = dls_gpu_occupancy(threads, 1, shared_seen) * warps * 32.0 /
                   dls_vgpu.cluster.device.threads_per_multiprocessor;
    k->launches++;
}

static int make_room(dls_profile_entry *e)
{
    unsigned room = dls_probe_site_count();
    if (room <= e->room)
        return 1;
    dls_profile_counters *more = realloc(e->site, room * sizeof *more);
    if (!more)
        return 0;
    memset(more + e->room, 0, (room - e->room) * sizeof *more);
    e->site = more;
    e->room = room;
    return 1;
}

static void launch_end(const dls_simt_grid *grid, int failed)
{
    dls_profile_entry *e = entry_of(grid);
    dls_profile_counters sum = {0};
    dls_probe_site **site;
    unsigned n = dls_profile_touched(&site);
    (void)failed;
    if (!e || !make_room(e))
        return;
    for (unsigned i = 0; i < n; i++) {
        dls_profile_counters c = harvest(site[i]);
        dls_profile_add(&e->site[site[i]->id], &c);
        dls_profile_add(&sum, &c);
    }
    dls_profile_add(&e->kernel.total, &sum);
    describe_launch(&e->kernel, grid);
    add_roofline(&e->kernel, &sum);
}
/* begin and end a profile */
dls_status dls_profile_begin(void)
{
    static const dls_probe_consumer consumer = {
        .launch_begin = launch_begin, .launch_end = launch_end, .block_end = block_end,
        .request = dls_profile_count, .repeated = dls_profile_repeated,
        .shared_array = shared_array};
    if (dls_profile_number >= 0)
        return DLS_FAIL(DLS_ERR_STATE, "a profile is being taken already");
    forget_kernels();
    dls_profile_number = dls_probe_attach(&consumer);
    if (dls_profile_number < 0)
        return DLS_FAIL(DLS_ERR_STATE, "too many consumers of probes");
    return DLS_OK;
}

void dls_profile_end(void)
{
    cudaDeviceSynchronize();
    dls_probe_detach(dls_profile_number);
    dls_profile_number = -1;
}
/* ask for a kernel */
int dls_profile_kernel(const char *name, dls_profiled_kernel *out)
{
    const dls_profile_entry *found = NULL;
    size_t n = strlen(name);
    for (unsigned i = 0; i < entry_count; i++) {
        const char *known = entries[i].kernel.name;
        if (!strcmp(known, name) ||
            (!found && !strncmp(known, name, n) && known[n] == '<'))
            found = &entries[i];
    }
    if (found)
        *out = found->kernel;
    return found != NULL;
}
/* start from the environment */
/* The file that a variable names, or NULL; each of several ranks has its own. */
static const char *file_from(const char *variable, char *path, size_t room)
{
    const char *name = getenv(variable), *rank = getenv("DLS_RANK");
    snprintf(path, room, "%s%s%s", name ? name : "", rank ? "." : "", rank ? rank : "");
    return name ? path : NULL;
}

static void write_at_exit(void)
{
    char a[4096], b[4096];
    const char *json = file_from("DLS_PROFILE_JSON", a, sizeof a);
    const char *tsv = file_from("DLS_PROFILE_TSV", b, sizeof b);
    dls_profile_end();
    dls_status status = DLS_OK;
    if (strcmp(getenv("DLS_PROFILE"), "quiet") != 0)
        status = dls_profile_print(stderr, 20);
    if (status == DLS_OK && !strcmp(getenv("DLS_PROFILE"), "annotate"))
        dls_profile_annotate(stderr);
    if (status == DLS_OK && json)
        status = dls_profile_write_json(json);
    if (status == DLS_OK && tsv)
        status = dls_profile_write_tsv(tsv);
    if (status != DLS_OK)
        dls_log(DLS_LOG_ERROR, "profile: %s", dls_status_message());
}

void dls_profile_start(void)
{
    const char *wanted = getenv("DLS_PROFILE");
    if (!wanted || !*wanted || !strcmp(wanted, "0"))
        return;
    if (dls_profile_begin() == DLS_OK)
        atexit(write_at_exit);
    else
        dls_log(DLS_LOG_ERROR, "profile: %s", dls_status_message());
}
