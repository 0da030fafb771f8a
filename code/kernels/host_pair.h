/* code/kernels/host_pair.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Declares all versions of the functions in a host header:
 *     #define DLS_HOST_HEADER "kernels/gelu_host.h"
 *     #include "kernels/host_pair.h"
 * Include it after every system header: while it is read, `real` and `acc` are macros.
 */
/* name the type of bf16 */
#ifndef DLS_HOST_BF16
#ifdef __cplusplus
#include <cuda_bf16.h>
#define DLS_HOST_BF16 __nv_bfloat16
#else
#include "tensor/bf16.h"
#define DLS_HOST_BF16 dls_bfloat16
#endif
#endif
#ifdef __cplusplus
extern "C" {
#endif
/* include the host header three times */
#define real float
#define acc float
#define DLS_HOST_NAME(name) name##_f32
#include DLS_HOST_HEADER
#undef real
#undef acc
#undef DLS_HOST_NAME
#define real double
#define acc double
#define DLS_HOST_NAME(name) name##_f64
#include DLS_HOST_HEADER
#undef real
#undef acc
#undef DLS_HOST_NAME
#define real DLS_HOST_BF16
#define acc float
#define DLS_HOST_NAME(name) name##_bf16
#include DLS_HOST_HEADER
#undef real
#undef acc
#undef DLS_HOST_NAME
#undef DLS_HOST_HEADER
#ifdef __cplusplus
}
#endif
