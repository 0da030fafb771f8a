/* code/vgpu/shadow/vgpu_atomics.h: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* CUDA's atomic functions, for the types that CUDA gives them. Each returns the old
 * value. An operation that changes nothing counts as a turn of a spin loop.
 */
#ifndef DLS_SHADOW_VGPU_ATOMICS_H
#define DLS_SHADOW_VGPU_ATOMICS_H

/* allow types for an atomic */
template <class T, class... U>
constexpr bool dls_is_one_of = (std::is_same_v<T, U> || ...);

/* The second argument must not take part in deduction: atomicAdd(&f, 1) means 1.0f. */
template <class T> struct dls_same { using type = T; };
template <class T> using dls_as = typename dls_same<T>::type;

typedef unsigned long long dls_ull;
/* update a value atomically */
template <class T, class F> static __forceinline__ T dls_atomic_update(T *p, F change)
{
    using bits = std::conditional_t<sizeof(T) == 8, dls_ull, unsigned>;
    static_assert(sizeof(T) == sizeof(bits), "atomics are for 32 and 64 bits");
    bits *word = reinterpret_cast<bits *>(p);
    bits seen = __atomic_load_n(word, __ATOMIC_RELAXED), put;
    T before, after;
    do {
        memcpy(&before, &seen, sizeof before);
        after = change(before);
        memcpy(&put, &after, sizeof put);
    } while (!__atomic_compare_exchange_n(word, &seen, put, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
    if (__builtin_expect(seen == put, 0))
        dls_simt_spin();
    return before;
}
/* define the arithmetic atomics */
template <class T> static __forceinline__ T atomicAdd(T *p, dls_as<T> v)
{
    static_assert(dls_is_one_of<T, int, unsigned, dls_ull, float, double>,
                  "atomicAdd: int, unsigned, unsigned long long, float or double");
    if constexpr (std::is_integral_v<T>) {
        if (v == 0)
            dls_simt_spin();
        return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
    } else {
        return dls_atomic_update(p, [v](T old) { return old + v; });
    }
}

template <class T> static __forceinline__ T atomicSub(T *p, dls_as<T> v)
{
    static_assert(dls_is_one_of<T, int, unsigned>, "atomicSub: int or unsigned");
    return atomicAdd(p, (T)(0u - (unsigned)v));
}

template <class T> static __forceinline__ T atomicMax(T *p, dls_as<T> v)
{
    static_assert(dls_is_one_of<T, int, unsigned, long long, dls_ull>,
                  "atomicMax: int, unsigned or (unsigned) long long");
    return dls_atomic_update(p, [v](T old) { return old > v ? old : v; });
}

template <class T> static __forceinline__ T atomicMin(T *p, dls_as<T> v)
{
    static_assert(dls_is_one_of<T, int, unsigned, long long, dls_ull>,
                  "atomicMin: int, unsigned or (unsigned) long long");
    return dls_atomic_update(p, [v](T old) { return old < v ? old : v; });
}

static __forceinline__ unsigned atomicInc(unsigned *p, unsigned limit)
{
    return dls_atomic_update(p, [limit](unsigned old) {
        return old >= limit ? 0 : old + 1;
    });
}

static __forceinline__ unsigned atomicDec(unsigned *p, unsigned limit)
{
    return dls_atomic_update(p, [limit](unsigned old) {
        return old == 0 || old > limit ? limit : old - 1;
    });
}
/* define the bitwise atomics */
template <class T> static __forceinline__ T atomicAnd(T *p, dls_as<T> v)
{
    static_assert(dls_is_one_of<T, int, unsigned, dls_ull>, "atomicAnd: integers");
    return dls_atomic_update(p, [v](T old) { return old & v; });
}

template <class T> static __forceinline__ T atomicOr(T *p, dls_as<T> v)
{
    static_assert(dls_is_one_of<T, int, unsigned, dls_ull>, "atomicOr: integers");
    return dls_atomic_update(p, [v](T old) { return old | v; });
}

template <class T> static __forceinline__ T atomicXor(T *p, dls_as<T> v)
{
    static_assert(dls_is_one_of<T, int, unsigned, dls_ull>, "atomicXor: integers");
    return dls_atomic_update(p, [v](T old) { return old ^ v; });
}
/* define exchange and compare */
template <class T> static __forceinline__ T dls_cas(T *p, T expected, T v)
{
    static_assert(dls_is_one_of<T, int, unsigned, dls_ull, unsigned short>,
                  "atomicCAS: int, unsigned, unsigned long long or unsigned short");
    T seen = expected;
    if (!__atomic_compare_exchange_n(p, &seen, v, false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST))
        dls_simt_spin();
    return seen;
}

/* Exchanges *p for v if it equals *expected, or always if that is NULL; 1 if it did. */
extern "C" int dls_simt_exchange_16(void *p, const void *expected, const void *v,
                                    void *seen);

template <class T>
static __forceinline__ T atomicCAS(T *p, dls_as<T> expected, dls_as<T> v)
{
    if constexpr (sizeof(T) == 16) {
        T seen;
        if (!dls_simt_exchange_16(p, &expected, &v, &seen))
            dls_simt_spin();
        return seen;
    } else {
        return dls_cas(p, expected, v);
    }
}

template <class T> static __forceinline__ T atomicExch(T *p, dls_as<T> v)
{
    if constexpr (sizeof(T) == 16) {
        T seen;
        dls_simt_exchange_16(p, nullptr, &v, &seen);
        return seen;
    } else {
        static_assert(dls_is_one_of<T, int, unsigned, dls_ull, float, double>,
                      "atomicExch: int, unsigned, unsigned long long or float");
        return dls_atomic_update(p, [v](T) { return v; });
    }
}
/* name the scoped atomics */
static __forceinline__ float2 atomicAdd(float2 *p, float2 v)
{
    return make_float2(atomicAdd(&p->x, v.x), atomicAdd(&p->y, v.y));
}

static __forceinline__ float4 atomicAdd(float4 *p, float4 v)
{
    return make_float4(atomicAdd(&p->x, v.x), atomicAdd(&p->y, v.y),
                       atomicAdd(&p->z, v.z), atomicAdd(&p->w, v.w));
}

#define DLS_SCOPED_AS(name, scoped)                                               \
    template <class T, class... A> static __forceinline__ T scoped(T *p, A... a)  \
    {                                                                             \
        return name(p, a...);                                                     \
    }
#define DLS_SCOPED(name)                                                          \
    DLS_SCOPED_AS(name, name##_block)                                             \
    DLS_SCOPED_AS(name, name##_system)
DLS_SCOPED(atomicAdd)
DLS_SCOPED(atomicSub)
DLS_SCOPED(atomicMin)
DLS_SCOPED(atomicMax)
DLS_SCOPED(atomicInc)
DLS_SCOPED(atomicDec)
DLS_SCOPED(atomicAnd)
DLS_SCOPED(atomicOr)
DLS_SCOPED(atomicXor)
DLS_SCOPED(atomicExch)
DLS_SCOPED(atomicCAS)
#undef DLS_SCOPED
#undef DLS_SCOPED_AS

#endif
