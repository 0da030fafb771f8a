/* code/tensor/ladder/quad.cuh: from chapters/02-gemm-ladder.md. Edit the chapter, or edit here and run "make untangle". */
/* Four neighbouring floats of a row at once, or one by one where that is not aligned. */
#ifndef DLS_TENSOR_QUAD_CUH
#define DLS_TENSOR_QUAD_CUH

#include "tensor/ladder/ladder.cuh"

/* view four floats as a quad */
static __device__ inline float4 &as_quad(float *four)  // 16-byte aligned
{
    return *reinterpret_cast<float4 *>(four);
}

/* read a quad or zero */
/* X[r][c ... c+3], zeros outside; c is a multiple of 4. */
static __device__ inline float4 quad_or_zero(const float *X, int rows, int columns, int r,
                                             int c)
{
    const float *x = X + (size_t)r * columns + c;
    if (r >= rows || c >= columns)
        return make_float4(0, 0, 0, 0);
    if (columns % 4 == 0)
        return *reinterpret_cast<const float4 *>(x);
    float4 q = make_float4(x[0], 0, 0, 0);
    if (c + 1 < columns)
        q.y = x[1];
    if (c + 2 < columns)
        q.z = x[2];
    if (c + 3 < columns)
        q.w = x[3];
    return q;
}

/* store a quad */
/* C[r][c ... c+3] = alpha sum + beta C, what lies inside, unread when beta is 0. */
static __device__ inline void store_quad(float *C, int rows, int columns, int r, int c,
                                         float alpha, const float sum[4], float beta)
{
    float *at = C + (size_t)r * columns + c;
    if (r >= rows || c >= columns)
        return;
    if (columns % 4 != 0) {
        for (int e = 0; e < 4; e++)
            if (c + e < columns)
                store(at, e, alpha * sum[e], beta);
        return;
    }
    float4 q = make_float4(alpha * sum[0], alpha * sum[1], alpha * sum[2],
                           alpha * sum[3]);
    if (beta != 0) {
        float4 old = as_quad(at);
        q = make_float4(q.x + beta * old.x, q.y + beta * old.y, q.z + beta * old.z,
                        q.w + beta * old.w);
    }
    as_quad(at) = q;
}

#endif
