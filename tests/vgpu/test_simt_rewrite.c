/* tests/vgpu/test_simt_rewrite.c: from chapters/A-virtual-gpu-simt-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* vgpu-rewrite: what it changes, what it leaves alone, where it puts its errors. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef DLS_BACKEND_cuda  // nvcc needs no rewriter, so none is built for it
/* run the rewriter on a text */
/* Standard output and error of the rewriter for `source`; returns its exit status. */
static int rewrite(const char *source, char *out, size_t room)
{
    char path[] = "/tmp/dls-rewrite-XXXXXX", command[256];
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    cr_assert_eq(write(fd, source, strlen(source)), (ssize_t)strlen(source));
    close(fd);
    snprintf(command, sizeof command, "build/bin/vgpu-rewrite %s 2>&1", path);
    FILE *pipe = popen(command, "r");
    size_t n = fread(out, 1, room - 1, pipe);
    out[n] = 0;
    int status = pclose(pipe);
    unlink(path);
    return WEXITSTATUS(status);
}
/* test texts that are rewritten */
static const char *const CASES[][2] = {
    {"k<<<1, 2>>>();", "dls_simt_launch(DLS_SIMT_KERNEL(k), 1, 2)();"},
    {"return k <<< g, b , 0, s >>> (x);",
     "return dls_simt_launch(DLS_SIMT_KERNEL(k ),  g, b , 0, s ) (x);"},
    {"a::k<float, sizeof(b)>\n  <<<g(1, 2),\n b>>>\n(x);",
     "dls_simt_launch(DLS_SIMT_KERNEL(a::k<float, sizeof(b)>\n  ), g(1, 2),\n b)\n(x);"},
    {"t[i]<<<1, 2>>>(x);", "dls_simt_launch(DLS_SIMT_KERNEL(t[i]), 1, 2)(x);"},
    {"#define GO(k) k<<<1, 2>>>()",
     "#define GO(k) dls_simt_launch(DLS_SIMT_KERNEL(k), 1, 2)()"},
    {"// k<<<1, 2>>>()\n/* <<< */ char c = '\"', *s = \"<<<\", *r = R\"x(<<<\")x\";",
     NULL},
    {"int m = 1'000, n = x << 3; operator<<<T>(a);", NULL},
    {"void f() { extern __shared__ float s[]; }",
     "void f() { float *s = dls_simt_dynamic_shared(); }"},
    {"void f() { extern __shared__ __align__(16) int s[][4]; }",
     "void f() { __align__(16) int (*s)[4] = dls_simt_dynamic_shared(); }"},
    {"namespace n { extern __shared__ T s[]; }",
     "namespace n { static dls_simt_dynamic_array<T > s; }"},
    {"void f() { __shared__ float a[2][3], b; }",
     "void f() { typedef float dls_type_a[2][3], dls_type_b; DLS_SIMT_SHARED(a) "
     "DLS_SIMT_SHARED(b) }"},
    /* texts with unusual shared variables */
    {"void f() { static __shared__ pair<int, T> p; }",
     "void f() {  typedef pair<int, T> dls_type_p; DLS_SIMT_SHARED(p) }"},
    {"void f() { alignas(16) volatile float __shared__ x; }",
     "void f() { __align__(16) volatile float typedef dls_type_x; "
     "DLS_SIMT_SHARED(x) }"},
    {"void f() { alignas(16) __shared__ struct { int a, b; } x[N]; }",
     "void f() { __align__(16) typedef struct { int a, b; } dls_type_x[N]; "
     "DLS_SIMT_SHARED(x) }"},
    {"__shared__ alignas(64) int x;",
     "typedef __align__(64) int dls_type_x; DLS_SIMT_SHARED_GLOBAL(x)"},
    /* texts with bounds and calls */
    {"f(cudaLaunchCooperativeKernel((const void*) k<2, 3>, g(1, 2), b, args));",
     "f(cudaLaunchCooperativeKernel(DLS_SIMT_NAMED(k<2, 3>), g(1, 2), b, args));"},
    {"x = cudaLaunchKernel(k, 1, 2, a);",
     "x = cudaLaunchKernel(DLS_SIMT_NAMED(k), 1, 2, a);"},
    {"void __launch_bounds__(N, 2) k(int a); void __launch_bounds__(4) k(f(x)) { y; }",
     "void __launch_bounds__(N, 2) k(int a); void __launch_bounds__(4) k(f(x)) { "
     "DLS_SIMT_BOUNDS(4) y; }"},
    {"#define S __shared__ int x;", NULL},
    {"#pragma unroll\n#pragma unroll 4\n#pragma unroll N\n#pragma nounroll\n#pragma once",
     "#pragma GCC unroll 16\n#pragma GCC unroll 4\n#pragma GCC unroll 8\n"
     "#pragma GCC unroll 1\n#pragma once"}};

Test(vgpu, simt_rewrites)
{
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char source[512], out[1024];
        snprintf(source, sizeof source, "#line 1 \"x.md\"\n%s", CASES[i][0]);
        cr_assert_eq(rewrite(source, out, sizeof out), 0, "case %zu: %s", i, out);
        cr_assert_str_eq(out + strlen("#line 1 \"x.md\"\n"),
                         CASES[i][CASES[i][1] != NULL], "case %zu: %s", i, out);
    }
}
/* test launches that are wrong */
static const char *const WRONG[][2] = {
    {"k<<<1, 2>>(x);\n", "x.md:9: error: this <<< has no >>> before the statement ends"},
    {"k<<<1, f(2>>>(x);\n", "x.md:9: error: this <<< has no >>>"},
    {"\n\nk<<<1>>>(x);\n", "x.md:11: error: a launch needs <<<grid, block>>>"},
    {"k<<<1, 2>>>;\n", "x.md:9: error: a launch needs an argument list"},
    {"k<<<1, 2>>>(x;\n}", "x.md:9: error: the argument list of this launch is never"},
    {"= <<<1, 2>>>(x);\n", "x.md:9: error: a launch needs a kernel's name"},
    {"void f() { extern __shared__ int s[4]; }\n", "x.md:9: error: a dynamic shared"},
    {"void f() { __shared__ int s[4] }\n", "x.md:9: error: this __shared__ declaration"}};

Test(vgpu, simt_rewriter_errors)
{
    for (size_t i = 0; i < sizeof WRONG / sizeof *WRONG; i++) {
        char source[512], out[1024];
        snprintf(source, sizeof source, "int a;\n#line 9 \"x.md\"\n%s", WRONG[i][0]);
        cr_assert_eq(rewrite(source, out, sizeof out), 1, "case %zu passed: %s", i, out);
        cr_assert(strstr(out, WRONG[i][1]), "case %zu: %s", i, out);
    }
}
#endif
