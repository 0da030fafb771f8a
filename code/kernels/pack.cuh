/* code/kernels/pack.cuh: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* A few neighbouring elements that are loaded and stored by one instruction. Included by
 * .cu files only. */
#ifndef DLS_KERNELS_PACK_CUH
#define DLS_KERNELS_PACK_CUH

#include <stddef.h>
#include <stdint.h>

/* load and store packs */
template <typename real, int width>
struct alignas(sizeof(real) * width) dls_pack {
    real at[width];
};

template <int width, typename real>
__device__ inline dls_pack<real, width> dls_load(const real *from)
{
    return *reinterpret_cast<const dls_pack<real, width> *>(from);
}

template <int width, typename real>
__device__ inline void dls_store(real *to, const dls_pack<real, width> &pack)
{
    *reinterpret_cast<dls_pack<real, width> *>(to) = pack;
}

/* decide whether packs fit */
template <typename real> constexpr int dls_width = 16 / sizeof(real);

/* 1 when rows of n elements at all these addresses divide into packs of `width`. */
template <typename... array>
static inline int dls_packs(int width, size_t n, const array *...arrays)
{
    return n % width == 0 && (((uintptr_t)arrays % (width * sizeof(array)) == 0) && ...);
}

#define DLS_BY_WIDTH(most, fits, ...)                                                \
    do {                                                                             \
        if (fits) {                                                                  \
            constexpr int width = most;                                              \
            __VA_ARGS__;                                                             \
        } else {                                                                     \
            constexpr int width = 1;                                                 \
            __VA_ARGS__;                                                             \
        }                                                                            \
    } while (0)

#endif
