/* tests/kernels/test_wire.c: from chapters/04-data-parallelism-hooks-tests.md. Edit the chapter, or edit here and run "make untangle". */
#include "support.h"

#include "kernels/wire.h"

/* test the conversions */
static double through(const kcase *k, dls_wire_type type, double x)
{
    const dls_precision *formats[] = {&dls_f32, &dls_f64, &dls_bf16, &dls_f16};
    double narrow = type == DLS_WIRE_F64 ? x : (float)x; // 16 bits: by way of f32
    return kcase_round(k, dls_precision_round(formats[type], narrow));
}

KERNEL_TEST(wire_conversions)
{
    enum { N = 1003 };
    double *x = kcase_random(k, N, 3, -2, 2), *want = kcase_zeros(k, N);
    double odd[] = {0, -0.0, 1 + 0x1p-8, 1 + 3 * 0x1p-8, 1 + 0x1p-11, 70000, -1e-8,
                    0x1p-24, 3 * 0x1p-26, INFINITY};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        x[i] = kcase_round(k, odd[i]);
    void *from = kcase_put(k, x, N), *wire, *to = kcase_space(k, N);
    OK(dls_device_alloc(&wire, N, DLS_F64, DLS_MEM_OTHER));
    for (dls_wire_type type = DLS_WIRE_F32; type <= DLS_WIRE_F16; type++) {
        OK(dls_to_wire(&k->ctx, wire, type, from, N, 0.5));
        OK(dls_from_wire(&k->ctx, to, wire, type, N, 2));
        for (int i = 0; i < N; i++)
            want[i] = 2 * through(k, type, 0.5 * x[i]);
        expect_within(kcase_get(k, to, N), want, 0, N, "there and back");
    }
    dls_device_free(wire);
}
