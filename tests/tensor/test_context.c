/* tests/tensor/test_context.c: from chapters/02-tensor-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Element types, device memory with its purpose, and the context. */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <criterion/criterion.h>

#include "tensor/bf16.h"
#include "tensor/tensor.h"

/* test element types */
Test(tensor, dtype_table)
{
    dls_dtype dtype;
    cr_expect_eq(dls_dtype_size(DLS_F32), sizeof(float));
    cr_expect_eq(dls_dtype_size(DLS_F64), sizeof(double));
    cr_expect_eq(dls_dtype_size(DLS_BF16), sizeof(dls_bfloat16));
    cr_expect_eq(dls_dtype_size((dls_dtype)77), 0);
    cr_expect_eq(dls_dtype_accumulator(DLS_BF16), DLS_F32);
    cr_expect_eq(dls_dtype_accumulator(DLS_F64), DLS_F64);
    cr_expect_eq(dls_dtype_parse("f64", &dtype), DLS_OK);
    cr_expect_eq(dtype, DLS_F64);
    cr_expect_str_eq(dls_dtype_name(dtype), "f64");
    cr_expect_eq(dls_dtype_parse("f46", &dtype), DLS_ERR_INPUT);
    cr_expect_str_eq(dls_status_message(),
                     "element type: expected f32, f64 or bf16, got \"f46\"");
}

/* Each number is its own rounding; the middle of it and the next goes to the even one,
 * and what is a little nearer to one of them goes there. */
Test(tensor, bf16_rounds_to_nearest_even)
{
    for (unsigned bits = 0; bits < 0x7f80; bits++)
        for (unsigned sign = 0; sign <= 0x8000; sign += 0x8000) {
            dls_bfloat16 low = {(uint16_t)(bits | sign)};
            dls_bfloat16 high = {(uint16_t)(low.bits + 1)};
            uint32_t middle = (uint32_t)low.bits << 16 | 0x8000;
            float tie, below, above;
            memcpy(&tie, &middle, sizeof tie);
            memcpy(&below, &(uint32_t){middle - 1}, sizeof below);
            memcpy(&above, &(uint32_t){middle + 1}, sizeof above);
            cr_assert_eq(dls_narrow_bf16(dls_widen_bf16(low)).bits, low.bits);
            cr_assert_eq(dls_narrow_bf16(below).bits, low.bits);
            cr_assert_eq(dls_narrow_bf16(above).bits, high.bits);
            cr_assert_eq(dls_narrow_bf16(tie).bits, (bits & 1) ? high.bits : low.bits);
        }
}

Test(tensor, bf16_keeps_what_is_no_number)
{
    uint32_t patterns[] = {0x7f800001, 0x7fffffff, 0xffffffff, 0xff800001, 0x7fc00000};
    cr_expect_eq(dls_narrow_bf16(INFINITY).bits, 0x7f80);
    cr_expect_eq(dls_narrow_bf16(-INFINITY).bits, 0xff80);
    cr_expect_eq(dls_narrow_bf16(FLT_MAX).bits, 0x7f80, "past the largest number");
    cr_expect_eq(dls_narrow_bf16(-0.0f).bits, 0x8000);
    for (int i = 0; i < 5; i++) {
        float nan;
        memcpy(&nan, &patterns[i], sizeof nan);
        cr_expect_eq(dls_narrow_bf16(nan).bits, 0x7fff, "%08x", patterns[i]);
    }
}

/* test device memory */
Test(tensor, memory_is_entered_under_its_purpose)
{
    dls_gpu_memory m;
    void *p, *q;
    cr_assert_eq(dls_device_alloc(&p, 1000, DLS_F64, DLS_MEM_PARAMETERS), DLS_OK);
    cr_assert_eq(dls_device_alloc(&q, 0, DLS_F64, DLS_MEM_GRADIENTS), DLS_OK);
    cr_expect_null(q);
    cr_assert_eq(dls_gpu_memory_stats(0, &m), DLS_OK);
    cr_expect_geq(m.current[DLS_MEM_PARAMETERS], 8000);
    cr_expect_eq(m.current[DLS_MEM_GRADIENTS], 0);
    cr_expect_eq(dls_gpu_memory_purpose(DLS_MEM_OTHER), DLS_MEM_OTHER);
    dls_device_free(p);
    dls_device_free(q);
    cr_assert_eq(dls_gpu_memory_stats(0, &m), DLS_OK);
    cr_expect_eq(m.current[DLS_MEM_PARAMETERS], 0);
    cr_expect_geq(m.peak[DLS_MEM_PARAMETERS], 8000);
}

Test(tensor, memory_refuses_what_is_too_much)
{
    void *p, *q = &p;
    cr_assert_eq(dls_device_alloc(&p, 10000000, DLS_F32, DLS_MEM_PARAMETERS), DLS_OK);
    cr_expect_eq(dls_device_alloc(&q, 20000000000, DLS_F32, DLS_MEM_ACTIVATIONS),
                 DLS_ERR_MEMORY);
    cr_expect_str_eq(dls_status_message(),
                     "device memory: 80000000000 bytes for activations: 0.04 of 80.00 GB "
                     "in use (parameters 0.04)");
    cr_expect_null(q);
    cr_expect_eq(dls_device_alloc(&q, SIZE_MAX / 2, DLS_F32, DLS_MEM_OTHER),
                 DLS_ERR_MEMORY);
    cr_expect(strstr(dls_status_message(), "too many"));
    cr_expect_eq(dls_device_alloc(&q, 1, DLS_F32, DLS_MEM_OTHER), DLS_OK);
}

/* test the context */
Test(tensor, context_without_a_device)
{
    dls_ctx ctx;
    cr_expect_eq(dls_ctx_create(&ctx, 4711, DLS_F32), DLS_ERR_DEVICE);
    cr_expect_null(ctx.stream);
    dls_ctx_destroy(&ctx);
    dls_ctx_destroy(&ctx);
}

Test(tensor, context_enqueues_in_order)
{
    dls_ctx ctx;
    void *p;
    unsigned char byte = 0;
    cr_assert_eq(dls_ctx_create(&ctx, 0, DLS_F32), DLS_OK);
    cr_assert_eq(dls_device_alloc(&p, 1, DLS_F32, DLS_MEM_OTHER), DLS_OK);
    for (int i = 0; i <= 100; i++)
        cr_assert_eq((int)cudaMemsetAsync(p, i, 4, ctx.stream), 0);
    cr_assert_eq(dls_ctx_sync(&ctx), DLS_OK);
    cr_assert_eq((int)cudaMemcpy(&byte, p, 1, cudaMemcpyDeviceToHost), 0);
    cr_expect_eq(byte, 100);
    dls_device_free(p);
    dls_ctx_destroy(&ctx);
}
