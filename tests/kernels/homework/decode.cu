/* tests/kernels/homework/decode.cu: from chapters/10-flash-attention-decode.md. Edit the chapter, or edit here and run "make untangle". */
/* The time of a decoding on the virtual clock: "B parts microseconds". */
#include <stdio.h>

#include "kernels/attention_decode.h"

static float time_of(dls_ctx *ctx, const dls_attention_shape *s, int splits, char *memory)
{
    size_t q = (size_t)s->B * s->H * s->D * 2;
    size_t cache = (size_t)s->B * s->Tk * s->Hk * s->D;
    cudaEvent_t begin, end;
    float ms = -1;
    cudaEventCreate(&begin);
    cudaEventCreate(&end);
    cudaEventRecord(begin, ctx->stream);
    dls_status status = dls_attention_decode(ctx, s, splits, memory, NULL,
                                             memory + 2 * q + 4 * cache, memory + q,
                                             memory + 2 * q, memory + 2 * q + 2 * cache);
    cudaEventRecord(end, ctx->stream);
    if (status || cudaEventSynchronize(end) || cudaEventElapsedTime(&ms, begin, end))
        fprintf(stderr, "%s\n", dls_status_message());
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return 1000 * ms;
}

/* time all numbers of parts */
int main()
{
    dls_ctx ctx;
    char *memory;
    if (dls_ctx_create(&ctx, 0, DLS_BF16))
        return 1;
    for (int B = 1; B <= 16; B *= 4) {
        dls_attention_shape s = {};
        s.B = B, s.Tq = 1, s.Tk = 16384, s.H = 32, s.Hk = 8, s.D = 128;
        size_t bytes = (size_t)B * 16384 * 8 * 128 * 4 + (size_t)B * 32 * 128 * 4 +
                       dls_attention_decode_temporary(&s, DLS_BF16, 64);
        if (cudaMalloc(&memory, bytes) || cudaMemset(memory, 0, bytes))
            return 1;
        for (int splits = 1; splits <= 64; splits *= 2)
            printf("%d %d %.1f\n", B, splits, time_of(&ctx, &s, splits, memory));
        printf("%d %d %.1f chosen\n", B, dls_attention_splits(&s),
               time_of(&ctx, &s, dls_attention_splits(&s), memory));
        cudaFree(memory);
    }
    dls_ctx_destroy(&ctx);
    return 0;
}
