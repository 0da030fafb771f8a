/* tests/cli/homework/histogram.cu: from chapters/01-introduction-own-kernels.md. Edit the chapter, or edit here and run "make untangle". */
#include <stdio.h>
#include <string.h>

__global__ void count(const char *text, int n, unsigned *bins)
{
    int stride = blockDim.x * gridDim.x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride)
        if (text[i] >= 'a' && text[i] <= 'z')
            atomicAdd(&bins[text[i] - 'a'], 1u);
    if (blockIdx.x == 0 && threadIdx.x == 0)
        printf("counting %d letters\n", n);
}

int main()
{
    const char *text = "the quick brown fox jumps over the lazy dog";
    int n = (int)strlen(text);
    char *d_text;
    unsigned *d_bins, bins[26];
    float ms = -1;
    cudaEvent_t start, stop;
    cudaEventCreate(&start);
    cudaEventCreate(&stop);
    cudaMalloc(&d_text, n);
    cudaMalloc(&d_bins, sizeof bins);
    cudaMemcpy(d_text, text, n, cudaMemcpyHostToDevice);
    cudaMemset(d_bins, 0, sizeof bins);
    cudaEventRecord(start);
    count<<<1, 32>>>(d_text, n, d_bins);
    cudaEventRecord(stop);
    cudaEventSynchronize(stop);
    cudaEventElapsedTime(&ms, start, stop);
    cudaMemcpy(bins, d_bins, sizeof bins, cudaMemcpyDeviceToHost);
    printf("o: %u, time %s\n", bins['o' - 'a'], ms >= 0 ? "known" : "unknown");
    cudaFree(d_text);
    cudaFree(d_bins);
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
}
