/* code/vgpu/shadow/vector_types.h: from chapters/A-virtual-gpu.md. Edit the chapter, or edit here and run "make untangle". */
/* float2 … ulonglong4, uint3 and dim3, with CUDA's sizes and alignments. */
#ifndef DLS_SHADOW_VECTOR_TYPES_H
#define DLS_SHADOW_VECTOR_TYPES_H

/* define one family of vectors */
#define DLS_SHADOW_VECTORS(T, N, A2, A4)                                          \
    typedef struct N##1 { T x; } N##1;                                            \
    typedef struct __attribute__((aligned(A2))) N##2 { T x, y; } N##2;            \
    typedef struct N##3 { T x, y, z; } N##3;                                      \
    typedef struct __attribute__((aligned(A4))) N##4 { T x, y, z, w; } N##4;      \
    static inline N##1 make_##N##1(T x) { N##1 v = {x}; return v; }               \
    static inline N##2 make_##N##2(T x, T y) { N##2 v = {x, y}; return v; }       \
    static inline N##3 make_##N##3(T x, T y, T z) { N##3 v = {x, y, z}; return v; } \
    static inline N##4 make_##N##4(T x, T y, T z, T w)                            \
    {                                                                             \
        N##4 v = {x, y, z, w};                                                    \
        return v;                                                                 \
    }

/* define all families of vectors */
DLS_SHADOW_VECTORS(signed char, char, 2, 4)
DLS_SHADOW_VECTORS(unsigned char, uchar, 2, 4)
DLS_SHADOW_VECTORS(short, short, 4, 8)
DLS_SHADOW_VECTORS(unsigned short, ushort, 4, 8)
DLS_SHADOW_VECTORS(int, int, 8, 16)
DLS_SHADOW_VECTORS(unsigned int, uint, 8, 16)
DLS_SHADOW_VECTORS(long, long, 16, 16)
DLS_SHADOW_VECTORS(unsigned long, ulong, 16, 16)
DLS_SHADOW_VECTORS(long long, longlong, 16, 16)
DLS_SHADOW_VECTORS(unsigned long long, ulonglong, 16, 16)
DLS_SHADOW_VECTORS(float, float, 8, 16)
DLS_SHADOW_VECTORS(double, double, 16, 16)

/* define dim3 */
typedef struct dim3 {
    unsigned int x, y, z;
#ifdef __cplusplus
    constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1)
        : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    constexpr operator uint3() const { return uint3{x, y, z}; }
#endif
} dim3;

#endif
