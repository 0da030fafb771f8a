/* tests/vgpu/test_numbers_c.c: from chapters/A-virtual-gpu-numbers.md. Edit the chapter, or edit here and run "make untangle". */
/* The shadow headers of the short types, from C. */
#include <criterion/criterion.h>
#ifdef DLS_BACKEND_virtual
#include <cuda_fp8.h>

Test(vgpu, numbers_convert_in_c)
{
    __nv_bfloat16 b = __float2bfloat16(6.5f);
    __half2 pair = __floats2half2_rn(1, 6.5f);
    cr_assert_eq(__bfloat16_as_ushort(b), 0x40d0);
    cr_assert_eq(__half_as_ushort(__high2half(pair)), 0x4680);
    cr_assert_eq(__half22float2(pair).x, 1);
    cr_assert_eq(__bfloat162float(__float2bfloat16_ru(1.003f)), 1.0078125f);
    cr_assert_eq(__nv_cvt_float_to_fp8(6.5f, __NV_SATFINITE, __NV_E4M3), 0x4d);
    cr_assert_eq(__nv_cvt_float_to_fp8(6.5f, __NV_SATFINITE, __NV_E5M2), 0x46);
}
#endif
