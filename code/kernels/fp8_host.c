/* code/kernels/fp8_host.c: from chapters/08-dispatch-wire.md. Edit the chapter, or edit here and run "make untangle". */
/* Rows in fp8 in plain C; see fp8.h. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/fp8.h"
#include "kernels/fp8_scale.h"
#include "kernels/parallel.h"
#include "kernels/real.h"

#include "kernels/fp8_host.h"

/* convert to e4m3 */
// x: at most 448 in magnitude, or not finite.
static unsigned char e4m3_of(float x)
{
    float size = fabsf(x);
    uint32_t bits, sign = signbit(x) ? 0x80 : 0;
    memcpy(&bits, &size, sizeof bits);
    uint32_t normal = ((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - ((127 - 7) << 3);
    uint32_t code = size < 0x1p-6f ? (uint32_t)lrintf(size * 512) : normal;
    return (unsigned char)(isfinite(x) ? sign | code : 0x7f);
}

static float e4m3_to(unsigned char code)
{
    int size = code & 0x7f;
    float x = size < 8 ? size * 0x1p-9f : 0;
    uint32_t bits = (uint32_t)(size + ((127 - 7) << 3)) << 20;
    if (size >= 8)
        memcpy(&x, &bits, sizeof x);
    x = size == 0x7f ? NAN : x;
    return code & 0x80 ? -x : x;
}

/* pack on the host */
static void pack_group(unsigned char *code, float *scale, const real *x, int columns)
{
    float most = 0;
    for (int k = 0; k < columns; k++) {
        float size = fabsf((float)widen(x[k]));
        most = isfinite(size) && size > most ? size : most;
    }
    int q = dls_fp8_exponent(most);
    float inverse = ldexpf(1, -q);
    *scale = ldexpf(1, q);
    for (int k = 0; k < columns; k++)
        code[k] = e4m3_of((float)widen(x[k]) * inverse);
}

static int columns_of(int C, int group)
{
    int left = C - group * DLS_FP8_GROUP;
    return left < DLS_FP8_GROUP ? left : DLS_FP8_GROUP;
}

void DLS_HOST_NAME(dls_fp8_pack)(void *wire, const real *x, int n, int C)
{
    int groups = (C + DLS_FP8_GROUP - 1) / DLS_FP8_GROUP;
    size_t bytes = dls_fp8_row_bytes(C), codes = bytes - 4 * groups;
    DLS_PARALLEL((size_t)n * C)
    for (int i = 0; i < n; i++) {
        float *scale = (float *)((char *)wire + i * bytes);
        unsigned char *code = (unsigned char *)(scale + groups);
        for (int g = 0; g < groups; g++)
            pack_group(code + g * DLS_FP8_GROUP, &scale[g],
                       x + (size_t)i * C + g * DLS_FP8_GROUP, columns_of(C, g));
        memset(code + C, 0, codes - C);
    }
}

void DLS_HOST_NAME(dls_fp8_unpack)(real *x, const void *wire, int n, int C)
{
    int groups = (C + DLS_FP8_GROUP - 1) / DLS_FP8_GROUP;
    size_t bytes = dls_fp8_row_bytes(C);
    DLS_PARALLEL((size_t)n * C)
    for (int i = 0; i < n; i++) {
        const float *scale = (const float *)((const char *)wire + i * bytes);
        const unsigned char *code = (const unsigned char *)(scale + groups);
        for (int k = 0; k < C; k++)
            x[(size_t)i * C + k] = narrow((acc)(e4m3_to(code[k]) *
                                                scale[k / DLS_FP8_GROUP]));
    }
}
