/* code/base/rng.h: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* Counter-based random numbers: Philox4x32-10, Salmon, Moraes, Dror and Shaw, "Parallel
 * random numbers: as easy as 1, 2, 3", SC 2011. No state, no allocation, any order.
 *
 *   key     [ seed low, seed high ]
 *   counter [ index/4 low, index/4 high, stream low, stream high ] -> 4 words,
 *                                                                    index % 4 selects
 */
#ifndef DLS_BASE_RNG_H
#define DLS_BASE_RNG_H

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define DLS_HD static __host__ __device__ inline
#else
#define DLS_HD static inline
#endif

/* Ten rounds of Philox4x32 over `counter` under `key`. */
/* mix the counter */
DLS_HD void dls_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;  // 2^32 times the fraction of the golden ratio
        k1 += 0xBB67AE85u;  // 2^32 times the fraction of the square root of 3
    }
    out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}

/* Word `index` of the sequence (seed, stream); every index is valid, in any order. */
/* draw a word */
DLS_HD uint32_t dls_rng_u32(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t block = index >> 2;
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32),
                           (uint32_t)stream, (uint32_t)(stream >> 32)};
    uint32_t out[4];
    dls_philox(key, counter, out);
    return out[index & 3];
}

/* Uniform on the open interval (0, 1): never 0, so its logarithm is finite. */
/* draw a uniform */
DLS_HD double dls_rng_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    return (dls_rng_u32(seed, stream, index) + 0.5) * (1.0 / 4294967296.0);
}

/* Standard normal. Depends on (seed, stream, index) alone. */
/* draw a normal */
DLS_HD double dls_rng_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint64_t even = index & ~(uint64_t)1;
    double u = dls_rng_uniform(seed, stream, even);
    double v = dls_rng_uniform(seed, stream, even + 1);
    double radius = sqrt(-2.0 * log(u));
    double angle = 6.283185307179586 * v;
    return radius * (index & 1 ? sin(angle) : cos(angle));
}

#endif
