/* code/tensor/accumulator.cuh: from chapters/02-preliminaries.md. Edit the chapter, or edit here and run "make untangle". */
/* The type that stored elements are computed in. Included by .cu files only. */
#ifndef DLS_TENSOR_ACCUMULATOR_CUH
#define DLS_TENSOR_ACCUMULATOR_CUH

#include <cuda_bf16.h>

template <typename real> struct dls_accumulator_of { typedef real type; };
template <> struct dls_accumulator_of<__nv_bfloat16> { typedef float type; };
template <typename real> using dls_acc = typename dls_accumulator_of<real>::type;

#endif
