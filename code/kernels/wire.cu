/* code/kernels/wire.cu: from chapters/04-data-parallelism-hooks.md. Edit the chapter, or edit here and run "make untangle". */
/* Conversions on the device, one thread per element. */
#include "kernels/wire.h"

#include <cuda_fp16.h>

#include "kernels/launch.cuh"

#define DLS_HOST_HEADER "kernels/wire_host.h"
#include "kernels/host_pair.h"

/* convert on the device */
template <typename a, typename b>
using through = std::conditional_t<sizeof(a) == 2 || sizeof(b) == 2, float, double>;

template <typename to, typename from>
__global__ void convert_kernel(to *out, const from *in, size_t n, double scale)
{
    using math = through<to, from>;
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = to(math(scale) * math(in[i]));
}

/* launch the conversions */
template <typename to, typename from>
static dls_status convert(dls_ctx *ctx, to *out, const from *in, size_t n, double scale)
{
    convert_kernel<<<dls_blocks(n, 256), 256, 0, ctx->stream>>>(out, in, n, scale);
    return dls_launched();
}

static void cost_of_conversion(const char *name, size_t n, size_t bytes)
{
    dls_gpu_cost_of(DLS_WORK_ELEMENTWISE, name, 1.0 * n, 1.0 * n * bytes);
}

static size_t wire_size(dls_wire_type type)
{
    return type == DLS_WIRE_F64 ? 8 : type == DLS_WIRE_F32 ? 4 : 2;
}

/* choose the type on the wire */
#define BY_WIRE_TYPE(type, ...)                                                      \
    [&]() -> dls_status {                                                            \
        switch (type) {                                                              \
        case DLS_WIRE_F32: { using wire = float; return __VA_ARGS__; }               \
        case DLS_WIRE_F64: { using wire = double; return __VA_ARGS__; }              \
        case DLS_WIRE_BF16: { using wire = __nv_bfloat16; return __VA_ARGS__; }      \
        default: { using wire = __half; return __VA_ARGS__; }                        \
        }                                                                            \
    }()

template <typename real>
static dls_status to_wire(dls_ctx *ctx, void *out, dls_wire_type type, const real *in,
                          size_t n, double scale)
{
    if (n == 0)
        return DLS_OK;
    cost_of_conversion("to wire", n, sizeof(real) + wire_size(type));
    DLS_RUN_ON_HOST(ctx, dls_to_wire, out, (int)type, in, n, scale);
    return BY_WIRE_TYPE(type, convert(ctx, (wire *)out, in, n, scale));
}

template <typename real>
static dls_status from_wire(dls_ctx *ctx, real *out, const void *in, dls_wire_type type,
                            size_t n, double scale)
{
    if (n == 0)
        return DLS_OK;
    cost_of_conversion("from wire", n, sizeof(real) + wire_size(type));
    DLS_RUN_ON_HOST(ctx, dls_from_wire, out, in, (int)type, n, scale);
    return BY_WIRE_TYPE(type, convert(ctx, out, (const wire *)in, n, scale));
}

extern "C" dls_status dls_to_wire(dls_ctx *ctx, void *out, dls_wire_type type,
                                  const void *in, size_t n, double scale)
{
    return DLS_BY_TYPE(ctx, to_wire(ctx, out, type, (const real *)in, n, scale));
}

extern "C" dls_status dls_from_wire(dls_ctx *ctx, void *out, const void *in,
                                    dls_wire_type type, size_t n, double scale)
{
    return DLS_BY_TYPE(ctx, from_wire(ctx, (real *)out, in, type, n, scale));
}
