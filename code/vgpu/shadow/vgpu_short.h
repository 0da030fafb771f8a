/* code/vgpu/shadow/vgpu_short.h: from chapters/A-virtual-gpu-numbers.md. Edit the chapter, or edit here and run "make untangle". */
/* The functions of one 16-bit type. Included by cuda_bf16.h and by cuda_fp16.h, which say
 * DLS_T (the type), DLS_T2 (its pair), DLS_RAW, DLS_FORMAT, and DLS_NAME(before, after):
 * a name with bfloat16 or half in the middle. No include guard, on purpose.
 *
 * Arithmetic is done in double, where sums, products and quotients of two short numbers
 * round the same way in two steps as in one; see dls_add_odd for the fused case. */
/* define a short type */
typedef struct DLS_RAW { unsigned short x; } DLS_RAW;

static inline unsigned short DLS_NAME(dls_, _round)(double a, dls_rounding mode)
{
    return (unsigned short)dls_encode(a, DLS_FORMAT, mode);
}

#ifdef __cplusplus
/* define the short class */
struct DLS_T {
    DLS_T() = default;
    DLS_T(DLS_RAW raw) : __x(raw.x) {}
    template <class N, class = std::enable_if_t<std::is_floating_point_v<N> ||
                                               (std::is_integral_v<N> && sizeof(N) <= 4)>>
    DLS_T(N a) : __x(DLS_NAME(dls_, _round)((double)a, DLS_ROUND_NEAREST)) {}
    operator float() const { return dls_decode(__x, DLS_FORMAT); }
    operator DLS_RAW() const { return DLS_RAW{__x}; }

protected:
    unsigned short __x;
};

struct __attribute__((aligned(4))) DLS_T2 {
    DLS_T x, y;
    DLS_T2() = default;
    DLS_T2(const DLS_T &low, const DLS_T &high) : x(low), y(high) {}
};
template <> constexpr bool dls_is_number<DLS_T> = true; // for shuffles
template <> constexpr bool dls_is_number<DLS_T2> = true;
#else
typedef struct DLS_T { unsigned short __x; } DLS_T;
typedef struct __attribute__((aligned(4))) DLS_T2 { DLS_T x, y; } DLS_T2;
#endif

/* convert to and from a short type */
static inline unsigned short DLS_NAME(__, _as_ushort)(DLS_T a)
{
#ifdef __cplusplus
    return static_cast<DLS_RAW>(a).x;
#else
    return a.__x;
#endif
}

static inline DLS_T DLS_NAME(__ushort_as_, )(unsigned short bits)
{
#ifdef __cplusplus
    return DLS_T(DLS_RAW{bits});
#else
    return (DLS_T){bits};
#endif
}

#define DLS_CONVERT(name, from, mode)                                             \
    static inline DLS_T name(from a)                                              \
    {                                                                             \
        return DLS_NAME(__ushort_as_, )(DLS_NAME(dls_, _round)(a, mode));         \
    }
DLS_CONVERT(DLS_NAME(__float2, ), float, DLS_ROUND_NEAREST)
DLS_CONVERT(DLS_NAME(__float2, _rn), float, DLS_ROUND_NEAREST)
DLS_CONVERT(DLS_NAME(__float2, _rz), float, DLS_ROUND_ZERO)
DLS_CONVERT(DLS_NAME(__float2, _rd), float, DLS_ROUND_DOWN)
DLS_CONVERT(DLS_NAME(__float2, _ru), float, DLS_ROUND_UP)
DLS_CONVERT(DLS_NAME(__double2, ), double, DLS_ROUND_NEAREST)
DLS_CONVERT(DLS_NAME(__int2, _rn), int, DLS_ROUND_NEAREST)
DLS_CONVERT(DLS_NAME(__uint2, _rn), unsigned int, DLS_ROUND_NEAREST)
#undef DLS_CONVERT

static inline float DLS_NAME(__, 2float)(DLS_T a)
{
    return dls_decode(DLS_NAME(__, _as_ushort)(a), DLS_FORMAT);
}

/* make a pair of short numbers */
static inline DLS_T2 DLS_NAME(__halves2, 2)(DLS_T low, DLS_T high)
{
    DLS_T2 pair;
    pair.x = low;
    pair.y = high;
    return pair;
}

static inline DLS_T2 DLS_NAME(__floats2, 2_rn)(float low, float high)
{
    return DLS_NAME(__halves2, 2)(DLS_NAME(__float2, _rn)(low),
                                  DLS_NAME(__float2, _rn)(high));
}

static inline DLS_T2 DLS_NAME(__float22, 2_rn)(float2 a)
{
    return DLS_NAME(__floats2, 2_rn)(a.x, a.y);
}
static inline DLS_T2 DLS_NAME(__float2, 2_rn)(float a)
{
    return DLS_NAME(__floats2, 2_rn)(a, a);
}

static inline float2 DLS_NAME(__, 22float2)(DLS_T2 a)
{
    return make_float2(DLS_NAME(__, 2float)(a.x), DLS_NAME(__, 2float)(a.y));
}
static inline DLS_T DLS_NAME(__low2, )(DLS_T2 a) { return a.x; }
static inline DLS_T DLS_NAME(__high2, )(DLS_T2 a) { return a.y; }
#ifdef __cplusplus
static inline float __low2float(DLS_T2 a) { return DLS_NAME(__, 2float)(a.x); }
static inline float __high2float(DLS_T2 a) { return DLS_NAME(__, 2float)(a.y); }
#endif

#ifdef __cplusplus
/* compute with short numbers */
static inline double dls_wide(DLS_T a) { return (double)(float)a; }

static inline DLS_T __hadd(DLS_T a, DLS_T b) { return DLS_T(dls_wide(a) + dls_wide(b)); }
static inline DLS_T __hsub(DLS_T a, DLS_T b) { return DLS_T(dls_wide(a) - dls_wide(b)); }
static inline DLS_T __hmul(DLS_T a, DLS_T b) { return DLS_T(dls_wide(a) * dls_wide(b)); }
static inline DLS_T __hdiv(DLS_T a, DLS_T b) { return DLS_T(dls_wide(a) / dls_wide(b)); }
static inline DLS_T __hadd_rn(DLS_T a, DLS_T b) { return __hadd(a, b); }
static inline DLS_T __hsub_rn(DLS_T a, DLS_T b) { return __hsub(a, b); }
static inline DLS_T __hmul_rn(DLS_T a, DLS_T b) { return __hmul(a, b); }
static inline DLS_T __hfma(DLS_T a, DLS_T b, DLS_T c)
{
    return DLS_T(dls_add_odd(dls_wide(a) * dls_wide(b), dls_wide(c)));
}

static inline DLS_T __hneg(DLS_T a)
{
    return DLS_NAME(__ushort_as_, )(DLS_NAME(__, _as_ushort)(a) ^ 0x8000);
}
static inline DLS_T __habs(DLS_T a)
{
    return DLS_NAME(__ushort_as_, )(DLS_NAME(__, _as_ushort)(a) & 0x7fff);
}
static inline DLS_T operator+(const DLS_T &a, const DLS_T &b) { return __hadd(a, b); }
static inline DLS_T operator-(const DLS_T &a, const DLS_T &b) { return __hsub(a, b); }
static inline DLS_T operator*(const DLS_T &a, const DLS_T &b) { return __hmul(a, b); }
static inline DLS_T operator/(const DLS_T &a, const DLS_T &b) { return __hdiv(a, b); }
static inline DLS_T operator-(const DLS_T &a) { return __hneg(a); }
static inline DLS_T &operator+=(DLS_T &a, const DLS_T &b) { return a = a + b; }
static inline DLS_T &operator-=(DLS_T &a, const DLS_T &b) { return a = a - b; }
static inline DLS_T &operator*=(DLS_T &a, const DLS_T &b) { return a = a * b; }
static inline DLS_T &operator/=(DLS_T &a, const DLS_T &b) { return a = a / b; }

/* compare short numbers */
#define DLS_COMPARE(name, op)                                                     \
    static inline bool name(DLS_T a, DLS_T b)                                     \
    {                                                                             \
        float x = a, y = b;                                                       \
        return x == x && y == y && x op y;                                        \
    }                                                                             \
    static inline bool operator op(const DLS_T &a, const DLS_T &b)                \
    {                                                                             \
        return (float)a op (float)b;                                              \
    }
DLS_COMPARE(__heq, ==)
DLS_COMPARE(__hne, !=)
DLS_COMPARE(__hlt, <)
DLS_COMPARE(__hle, <=)
DLS_COMPARE(__hgt, >)
DLS_COMPARE(__hge, >=)
#undef DLS_COMPARE

static inline bool __hisnan(DLS_T a) { return (float)a != (float)a; }

static inline DLS_T __hmax(DLS_T a, DLS_T b)
{
    if (__hisnan(a) && __hisnan(b))
        return DLS_NAME(__ushort_as_, )(0x7fff);
    bool first = __hisnan(b) || a > b ||
                 (a == b && !(DLS_NAME(__, _as_ushort)(a) >> 15));
    return first ? a : b;
}

static inline DLS_T __hmin(DLS_T a, DLS_T b)
{
    if (__hisnan(a) && __hisnan(b))
        return DLS_NAME(__ushort_as_, )(0x7fff);
    bool first = __hisnan(b) || a < b || (a == b && DLS_NAME(__, _as_ushort)(a) >> 15);
    return first ? a : b;
}

/* compute with pairs */
#define DLS_PAIRWISE(name, one)                                                   \
    static inline DLS_T2 name(DLS_T2 a, DLS_T2 b)                                 \
    {                                                                             \
        return DLS_T2(one(a.x, b.x), one(a.y, b.y));                              \
    }
DLS_PAIRWISE(__hadd2, __hadd)
DLS_PAIRWISE(__hsub2, __hsub)
DLS_PAIRWISE(__hmul2, __hmul)
DLS_PAIRWISE(__h2div, __hdiv)
DLS_PAIRWISE(__hmax2, __hmax)
DLS_PAIRWISE(__hmin2, __hmin)
#undef DLS_PAIRWISE

static inline DLS_T2 __hfma2(DLS_T2 a, DLS_T2 b, DLS_T2 c)
{
    return DLS_T2(__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y));
}
static inline DLS_T2 __hneg2(DLS_T2 a) { return DLS_T2(__hneg(a.x), __hneg(a.y)); }

/* add short numbers atomically */
static inline DLS_T2 atomicAdd(DLS_T2 *p, DLS_T2 v)
{
    return dls_atomic_update(p, [v](DLS_T2 old) { return __hadd2(old, v); });
}

static inline DLS_T atomicAdd(DLS_T *p, DLS_T v)
{
    unsigned short *word = reinterpret_cast<unsigned short *>(p), put;
    unsigned short seen = __atomic_load_n(word, __ATOMIC_RELAXED);
    do
        put = DLS_NAME(__, _as_ushort)(__hadd(DLS_NAME(__ushort_as_, )(seen), v));
    while (!__atomic_compare_exchange_n(word, &seen, put, false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED));
    return DLS_NAME(__ushort_as_, )(seen);
}
#endif

#undef DLS_T
#undef DLS_T2
#undef DLS_RAW
#undef DLS_NAME
#undef DLS_FORMAT
