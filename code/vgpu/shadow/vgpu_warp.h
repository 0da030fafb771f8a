/* code/vgpu/shadow/vgpu_warp.h: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* CUDA's _sync warp operations: typed faces of dls_simt_warp(). */
#ifndef DLS_SHADOW_VGPU_WARP_H
#define DLS_SHADOW_VGPU_WARP_H

#define DLS_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* define the shuffles */
template <class T> constexpr bool dls_is_number = std::is_arithmetic_v<T>;

template <class T>
static inline T dls_shuffle(dls_warp_op op, unsigned mask, T v, int argument, int width,
                            const char *file, int line)
{
    static_assert(dls_is_number<T> && sizeof(T) <= 8, "shuffles move numbers");
    unsigned long long bits = 0;
    memcpy(&bits, &v, sizeof v);
    bits = dls_simt_warp(op, mask, bits, argument, width, file, line);
    memcpy((void *)&v, &bits, sizeof v);
    return v;
}

template <class T>
static inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32, DLS_HERE)
{
    return dls_shuffle(DLS_WARP_SHFL, mask, v, lane, width, file, line);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, DLS_HERE)
{
    return dls_shuffle(DLS_WARP_UP, mask, v, (int)by, width, file, line);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32,
                                 DLS_HERE)
{
    return dls_shuffle(DLS_WARP_DOWN, mask, v, (int)by, width, file, line);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T v, int with, int width = 32, DLS_HERE)
{
    return dls_shuffle(DLS_WARP_XOR, mask, v, with, width, file, line);
}
/* define the votes */
static inline void __syncwarp(unsigned mask = 0xffffffffu, DLS_HERE)
{
    dls_simt_warp(DLS_WARP_SYNC, mask, 0, 0, 32, file, line);
}
static inline int __any_sync(unsigned mask, int predicate, DLS_HERE)
{
    return (int)dls_simt_warp(DLS_WARP_ANY, mask, predicate != 0, 0, 32, file, line);
}
static inline int __all_sync(unsigned mask, int predicate, DLS_HERE)
{
    return (int)dls_simt_warp(DLS_WARP_ALL, mask, predicate != 0, 0, 32, file, line);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, DLS_HERE)
{
    return (unsigned)dls_simt_warp(DLS_WARP_BALLOT, mask, predicate != 0, 0, 32, file,
                                   line);
}
static inline unsigned __activemask(DLS_HERE)
{
    return dls_simt_active_mask(file, line);
}

template <class T> static inline unsigned long long dls_widen(T v)
{
    unsigned long long bits = 0;
    memcpy(&bits, &v, sizeof v);
    return bits;
}
template <class T> static inline unsigned __match_any_sync(unsigned mask, T v, DLS_HERE)
{
    return (unsigned)dls_shuffle(DLS_WARP_MATCH_ANY, mask,
                                 dls_widen(v), 0, 32, file, line);
}
template <class T>
static inline unsigned __match_all_sync(unsigned mask, T v, int *all, DLS_HERE)
{
    unsigned same = (unsigned)dls_shuffle(DLS_WARP_MATCH_ALL, mask,
                                          dls_widen(v), 0, 32, file, line);
    *all = same != 0;
    return same;
}
/* define the warp reductions */
#define DLS_WARP_REDUCTION(name, T, op)                                             \
    static inline T __reduce_##name##_sync(unsigned mask, T v, DLS_HERE)            \
    {                                                                               \
        return (T)dls_simt_warp(op, mask, (unsigned)v, 0, 32, file, line);          \
    }
DLS_WARP_REDUCTION(add, unsigned, DLS_WARP_ADD)
DLS_WARP_REDUCTION(add, int, DLS_WARP_ADD)
DLS_WARP_REDUCTION(min, unsigned, DLS_WARP_MIN_U)
DLS_WARP_REDUCTION(min, int, DLS_WARP_MIN)
DLS_WARP_REDUCTION(max, unsigned, DLS_WARP_MAX_U)
DLS_WARP_REDUCTION(max, int, DLS_WARP_MAX)
DLS_WARP_REDUCTION(and, unsigned, DLS_WARP_AND)
DLS_WARP_REDUCTION(or, unsigned, DLS_WARP_OR)
DLS_WARP_REDUCTION(xor, unsigned, DLS_WARP_BITXOR)
#undef DLS_WARP_REDUCTION

#undef DLS_HERE
#endif
