/* code/vgpu/simt_hopper.h: from chapters/A-virtual-gpu-simt-hopper.md. Edit the chapter, or edit here and run "make untangle". */
/* What hopper.cuh asks of the emulator. All calls but the first come from kernels. */
#ifndef DLS_VGPU_SIMT_HOPPER_H
#define DLS_VGPU_SIMT_HOPPER_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the emulated instructions */
typedef struct dls_tensor_map {
    const char *base;
    int rank;
    uint64_t size[5], step[5];  // elements of 16 bits; bytes
    uint32_t box[5];
} dls_tensor_map;

dls_status dls_tensor_map_16bit(dls_tensor_map *map, const void *base, int rank,
                                const uint64_t *size, const uint64_t *step,
                                const uint32_t *box);

unsigned dls_simt_shared_offset(const void *p);  // in dynamic shared memory
void dls_simt_mbarrier_init(uint64_t *bar, unsigned count, const char *file, int line);
void dls_simt_mbarrier_arrive(uint64_t *bar, unsigned bytes, const char *file, int line);
void dls_simt_mbarrier_wait(uint64_t *bar, unsigned parity, const char *file, int line);
void dls_simt_named_barrier(int id, int threads, int wait, const char *file, int line);
void dls_simt_tma_load(void *tile, const dls_tensor_map *map, uint64_t *bar,
                       const int at[5], const char *file, int line);

/* A product of a warpgroup as one lane starts it. */
typedef struct dls_wgmma {
    float *d;              // (N / 8, 4)
    int N, fp16;
    int rows;              // A is a[], and B is read down its rows
    int accumulate;
    uint32_t a[4];
    uint64_t a_tile, b_tile;
} dls_wgmma;

void dls_simt_wgmma_fence(void);
void dls_simt_wgmma(const dls_wgmma *product, const char *file, int line);
void dls_simt_wgmma_commit(void);
void dls_simt_wgmma_wait(int groups, const char *file, int line);

#ifdef __cplusplus
}
#endif
#endif
