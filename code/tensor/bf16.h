/* code/tensor/bf16.h: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* bfloat16 on the host: sixteen bits, and the two conversions. Both are branchless, so
 * that a loop of them becomes vector instructions.
 *
 *     f32   s eeeeeeee fffffff ffffffffffffffff
 *     bf16  s eeeeeeee fffffff                    the upper half, rounded
 */
#ifndef DLS_TENSOR_BF16_H
#define DLS_TENSOR_BF16_H

#include <stdint.h>
#include <string.h>

/* convert to and from bf16 */
typedef struct dls_bfloat16 { uint16_t bits; } dls_bfloat16;

static inline float dls_widen_bf16(dls_bfloat16 x)
{
    uint32_t bits = (uint32_t)x.bits << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

/* Rounded to nearest, ties to even; NaN gives 0x7fff, as it does on the device. */
static inline dls_bfloat16 dls_narrow_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    int nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return (dls_bfloat16){(uint16_t)(nan ? 0x7fffu : rounded)};
}

#endif
