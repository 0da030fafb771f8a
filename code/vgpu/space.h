/* code/vgpu/space.h: from chapters/A-virtual-gpu-space.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to code/vgpu, virtual backend: the addresses of device memory, and the fence
 * that keeps the host's code out of it. The caller holds the runtime's lock. */
#ifndef DLS_VGPU_SPACE_H
#define DLS_VGPU_SPACE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Device d owns the addresses from BASE + d * EACH on. */
#define DLS_SPACE_BASE 0x200000000000ull
#define DLS_SPACE_EACH 0x4000000000ull // 256 GiB
#define DLS_SPACE_ALIAS 0x100000000000ull
enum { DLS_SPACE_GAP = 256 }; // bytes between two blocks, at least

/* A block of the device, aligned to 256 bytes; NULL without memory or addresses. Its
 * contents are whatever was there, zero in pages that were never used. */
void *dls_space_take(int device, size_t bytes);
void dls_space_give(void *start, size_t bytes);
int dls_space_has(const void *address); // is it a device's address, taken or not?

void dls_space_open(void);  // operations may touch device memory
void dls_space_close(void); // host code may not
/* Where the runtime itself finds the byte now, open or closed. */
void *dls_space_reach(const void *address);
unsigned long dls_space_openings(void); // how often it was opened

/* What an address in the code is called: "chapters/x.md:12", or its number. */
void dls_space_where(const void *code, char *text, size_t size);

#ifdef __cplusplus
}
#endif
#endif
