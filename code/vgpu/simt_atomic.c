/* code/vgpu/simt_atomic.c: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* Atomic exchanges of 16 bytes, under one lock. A fiber that holds it is not switched. */
#include "vgpu/simt_internal.h"

#include <pthread.h>
#include <string.h>

int dls_simt_exchange_16(void *p, const void *expected, const void *v, void *seen);
int dls_simt_exchange_16(void *p, const void *expected, const void *v, void *seen)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    int equal = !expected || memcmp(p, expected, 16) == 0;
    memcpy(seen, p, 16);
    if (equal)
        memcpy(p, v, 16);
    pthread_mutex_unlock(&lock);
    return equal;
}
