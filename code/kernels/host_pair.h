/* code/kernels/host_pair.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* Declares both versions of the functions in a host header:
 *     #define DLS_HOST_HEADER "kernels/gelu_host.h"
 *     #include "kernels/host_pair.h"
 * Include it after every system header: while it is read, `real` is a macro.
 */
#ifdef __cplusplus
extern "C" {
#endif
/* include the host header twice */
#define real float
#define DLS_HOST_NAME(name) name##_f32
#include DLS_HOST_HEADER
#undef real
#undef DLS_HOST_NAME
#define real double
#define DLS_HOST_NAME(name) name##_f64
#include DLS_HOST_HEADER
#undef real
#undef DLS_HOST_NAME
#undef DLS_HOST_HEADER
#ifdef __cplusplus
}
#endif
