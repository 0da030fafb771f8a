/* code/vgpu/shadow/vgpu_integer.h: from chapters/A-virtual-gpu-simt-intrinsics.md. Edit the chapter, or edit here and run "make untangle". */
/* CUDA's integer functions beyond popc, clz and brev. */
#ifndef DLS_SHADOW_VGPU_INTEGER_H
#define DLS_SHADOW_VGPU_INTEGER_H

/* take integers apart */
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s)
{
    dls_ull bytes = (dls_ull)y << 32 | x;
    unsigned r = 0;
    for (int i = 0; i < 4; i++)
        r |= (unsigned)(bytes >> 8 * (s >> 4 * i & 7) & 0xff) << 8 * i;
    return r;
}

static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)(((dls_ull)high << 32 | low) << (by & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by)
{
    return (unsigned)(((dls_ull)high << 32 | low) >> (by & 31));
}
static inline unsigned __funnelshift_lc(unsigned low, unsigned high, unsigned by)
{
    return by >= 32 ? low : __funnelshift_l(low, high, by);
}
static inline unsigned __funnelshift_rc(unsigned low, unsigned high, unsigned by)
{
    return by >= 32 ? high : __funnelshift_r(low, high, by);
}
static inline dls_ull __brevll(dls_ull x)
{
    return (dls_ull)__brev((unsigned)x) << 32 | __brev((unsigned)(x >> 32));
}
/* multiply integers */
static inline int __mul24(int a, int b)
{
    return (int)((unsigned)(a << 8 >> 8) * (unsigned)(b << 8 >> 8));
}
static inline unsigned __umul24(unsigned a, unsigned b)
{
    return (a & 0xffffffu) * (b & 0xffffffu);
}
static inline long long __mul64hi(long long a, long long b)
{
    return (long long)((__extension__ (__int128)a * b) >> 64);
}
static inline dls_ull __umul64hi(dls_ull a, dls_ull b)
{
    return (dls_ull)((__extension__ (unsigned __int128)a * b) >> 64);
}
static inline unsigned __sad(int a, int b, unsigned c)
{
    return c + (a > b ? (unsigned)a - (unsigned)b : (unsigned)b - (unsigned)a);
}
static inline unsigned __usad(unsigned a, unsigned b, unsigned c)
{
    return c + (a > b ? a - b : b - a);
}
static inline int __hadd(int a, int b) { return (int)(((long long)a + b) >> 1); }
static inline int __rhadd(int a, int b) { return (int)(((long long)a + b + 1) >> 1); }
static inline unsigned __uhadd(unsigned a, unsigned b)
{
    return (unsigned)(((dls_ull)a + b) >> 1);
}
static inline unsigned __urhadd(unsigned a, unsigned b)
{
    return (unsigned)(((dls_ull)a + b + 1) >> 1);
}
/* add small products */
template <class A, class B>
static inline unsigned dls_dot_bytes(unsigned a, unsigned b, unsigned c)
{
    for (int i = 0; i < 32; i += 8)
        c += (unsigned)((int)(A)(a >> i) * (int)(B)(b >> i));
    return c;
}

static inline int __dp4a(int a, int b, int c)
{
    return (int)dls_dot_bytes<signed char, signed char>((unsigned)a, (unsigned)b,
                                                        (unsigned)c);
}
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c)
{
    return dls_dot_bytes<unsigned char, unsigned char>(a, b, c);
}
static inline int __dp4a(char4 a, char4 b, int c)
{
    return c + a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}
static inline unsigned __dp4a(uchar4 a, uchar4 b, unsigned c)
{
    return c + a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}
static inline int __dp2a_lo(int a, int b, int c)
{
    return c + (short)a * (signed char)b + (short)(a >> 16) * (signed char)(b >> 8);
}
static inline int __dp2a_hi(int a, int b, int c)
{
    return __dp2a_lo(a, b >> 16, c);
}
#endif
