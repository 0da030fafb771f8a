/* tests/cli/homework/transpose.cu: from chapters/01-introduction-own-kernels.md. Edit the chapter, or edit here and run "make untangle". */
#include <iostream>
#include <vector>

__global__ void transpose(const float *in, float *out, int rows, int columns)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < columns && y < rows)
        out[x * rows + y] = in[y * columns + x];
}

int main()
{
    const int rows = 60, columns = 100;
    std::vector<float> m(rows * columns);
    for (size_t i = 0; i < m.size(); i++)
        m[i] = (float)i;
    float *in, *out;
    size_t bytes = m.size() * sizeof(float);
    cudaMalloc((void **)&in, bytes);
    cudaMalloc((void **)&out, bytes);
    cudaMemcpy(in, m.data(), bytes, cudaMemcpyHostToDevice);
    transpose<<<dim3(4, 2), dim3(32, 32)>>>(in, out, rows, columns);
    cudaMemcpy(m.data(), out, bytes, cudaMemcpyDeviceToHost);
    std::cout << m[1] << " " << m[rows] << "\n";
    cudaFree(in);
    cudaFree(out);
    return 0;
}
