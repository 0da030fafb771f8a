/* code/kernels/real.h: from chapters/09-transformer-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The element type of a host kernel. Each *_host.c file is compiled twice, with
 * -DDLS_REAL=32 and with -DDLS_REAL=64, and says `real` where it means the element type.
 * A public function is named through DLS_HOST_NAME, so that both versions can be linked
 * into one program.
 */
#ifndef DLS_KERNELS_REAL_H
#define DLS_KERNELS_REAL_H

/* choose the element type */
#if DLS_REAL == 32
typedef float real;
#define DLS_HOST_NAME(name) name##_f32
#elif DLS_REAL == 64
typedef double real;
#define DLS_HOST_NAME(name) name##_f64
#else
#error "compile host kernels with -DDLS_REAL=32 and again with -DDLS_REAL=64"
#endif

#endif
