/* code/vgpu/gpu_virtual_times.c: from chapters/A-virtual-gpu-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* Real seconds by operation. The caller holds the runtime's lock, or is alone. */
#include <string.h>

#include "vgpu/host_times.h"

enum { NAMES = 128 };
static dls_host_time table[NAMES];
static int used;
int dls_host_times_on;

void dls_host_times_start(void)
{
    used = 0;
    dls_host_times_on = 1;
}

void dls_host_times_stop(void) { dls_host_times_on = 0; }

int dls_host_times(const dls_host_time **out)
{
    *out = table;
    return used;
}

void dls_host_times_add(const dls_gpu_op *op, double seconds)
{
    const char *name = op->name ? op->name : "unnamed";
    int i = 0;
    while (i < used && strcmp(table[i].name, name) != 0)
        i++;
    if (i == NAMES)
        i--; // the last one takes what finds no place
    if (i == used)
        table[used++] = (dls_host_time){.name = name};
    table[i].calls++;
    table[i].seconds += seconds;
    table[i].flops += op->flops;
    table[i].bytes += op->bytes;
}
