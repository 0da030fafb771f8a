/* tests/kernels/homework/attention.cu: from chapters/10-flash-attention-tensor-cores.md. Edit the chapter, or edit here and run "make untangle". */
/* One head of attention on tensor cores, for the profiler and the checker: D T causal. */
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "kernels/attention_tensor.h"

int main(int argc, char **argv)
{
    dls_attention_shape s = {};
    s.B = s.H = s.Hk = 1;
    s.D = argc > 1 ? atoi(argv[1]) : 64;
    s.Tq = s.Tk = argc > 2 ? atoi(argv[2]) : 256;
    s.causal = argc > 3 && atoi(argv[3]);
    size_t n = (size_t)s.Tk * s.D;
    uint16_t *x;  // q, k, v, out
    float *lse;
    if (cudaMallocManaged(&x, 8 * n) || cudaMallocManaged(&lse, 4 * s.Tq))
        return 1;
    for (size_t i = 0; i < 3 * n; i++)  // bf16 with random signs and digits
        x[i] = (uint16_t)(0x3f00 | (dls_rng_u32(1, 1, i) & 0x80ff));
    if (dls_attention_tensor_forward(0, DLS_ATTENTION_BF16, &s, x + 3 * n, lse, x, x + n,
                                     x + 2 * n) || cudaDeviceSynchronize()) {
        fprintf(stderr, "%s\n", dls_status_message());
        return 1;
    }
    return cudaFree(x) || cudaFree(lse);
}
