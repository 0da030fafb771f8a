/* tests/vgpu/homework/transpose.cu: from chapters/A-virtual-gpu-profile.md. Edit the chapter, or edit here and run "make untangle". */
template <int PAD> __global__ void transpose(const float *in, float *out, int n)
{
    __shared__ float tile[32][32 + PAD];
    int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32 + threadIdx.y;
    tile[threadIdx.y][threadIdx.x] = in[y * n + x];
    __syncthreads();
    x = blockIdx.y * 32 + threadIdx.x;
    y = blockIdx.x * 32 + threadIdx.y;
    out[y * n + x] = tile[threadIdx.x][threadIdx.y];
}

int main()
{
    float *a, *b;
    int n = 128;
    cudaMalloc(&a, n * n * sizeof(float));
    cudaMalloc(&b, n * n * sizeof(float));
    cudaMemset(a, 0, n * n * sizeof(float));
    transpose<0><<<dim3(4, 4), dim3(32, 32)>>>(a, b, n);
    transpose<1><<<dim3(4, 4), dim3(32, 32)>>>(a, b, n);
    cudaDeviceSynchronize();
    cudaFree(a);
    cudaFree(b);
}
