/* tests/vgpu/test_space.c: from chapters/A-virtual-gpu-space.md. Edit the chapter, or edit here and run "make untangle". */
/* Device memory is out of the host's reach, and its addresses are managed rightly. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vgpu/gpu.h"

#ifdef DLS_VIRTUAL_GPU
#include "vgpu/space.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s", #expr)

/* run a crime in a child */
/* Runs the crime in a child. Returns the signal that ended it; its stderr in `words`. */
static int observe(void (*crime)(void), char words[1024])
{
    int ends[2], status = 0;
    size_t used = 0;
    ssize_t n;
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        crime();
        _exit(0);
    }
    close(ends[1]);
    while ((n = read(ends[0], words + used, 1023 - used)) > 0)
        used += (size_t)n;
    words[used] = '\0';
    close(ends[0]);
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* test what the fence catches */
static volatile float sink;

static float *allocate(void)
{
    float *x;
    if (cudaMalloc((void **)&x, 4096) != cudaSuccess)
        _exit(1);
    return x;
}

static void read_it(void) { sink = allocate()[3]; }
static void write_it(void) { ((volatile float *)allocate())[1] = 1; }
static void read_after_a_copy(void)
{
    float *x = allocate(), h[4] = {0};
    cudaMemcpy(x, h, sizeof h, cudaMemcpyHostToDevice);
    cudaDeviceSynchronize();
    sink = x[0];
}

static void read_after_free(void)
{
    float *x = allocate();
    cudaFree(x);
    sink = x[0];
}


Test(vgpu, host_code_can_not_touch_device_memory)
{
    char words[1024];
    cr_expect_eq(observe(read_it, words), SIGSEGV);
    cr_expect(strstr(words, "host code read device memory: byte 12 of the 4096 bytes of "
                     "device 0"), "%s", words);
    cr_expect(strstr(words, "chapters/A-virtual-gpu-space.md:"), "%s", words);
    cr_expect_eq(observe(write_it, words), SIGSEGV);
    cr_expect(strstr(words, "host code wrote device memory: byte 4 of"), "%s", words);
    cr_expect_eq(observe(read_after_a_copy, words), SIGSEGV);
    cr_expect(strstr(words, "host code read device memory: byte 0 of"), "%s", words);
    cr_expect_eq(observe(read_after_free, words), SIGSEGV);
    cr_expect(strstr(words, "nobody has allocated"), "%s", words);
}

/* test what the fence lets through */
static float *volatile nothing;

static void read_null(void) { sink = nothing[2]; }

Test(vgpu, the_fence_leaves_other_faults_alone)
{
    char words[1024];
    cr_expect_eq(observe(read_null, words), SIGSEGV);
    cr_expect_str_eq(words, "");
}

static void use_what_is_shared(void)
{
    float *managed, *pinned;
    if (cudaMallocManaged((void **)&managed, 64, cudaMemAttachGlobal) ||
        cudaMallocHost((void **)&pinned, 64))
        _exit(1);
    managed[0] = pinned[0] = 1;
    cudaMemset(managed, 0, 64);
    cudaDeviceSynchronize();
    if (managed[0] != 0 || pinned[0] != 1)
        abort();
}

static void use_without_guard(void)
{
    setenv("DLS_HOST_GUARD", "0", 1);
    float *x = allocate();
    x[0] = 7;
    if (x[0] != 7)
        abort();
}

Test(vgpu, the_host_may_touch_what_is_its_own)
{
    char words[1024];
    cr_expect_eq(observe(use_what_is_shared, words), 0, "%s", words);
    cr_expect_eq(observe(use_without_guard, words), 0, "%s", words);
}

/* test how often it opens */
Test(vgpu, the_fence_opens_once_per_wait)
{
    char *x;
    OK(cudaMalloc((void **)&x, 4096));
    unsigned long before = dls_space_openings();
    for (int i = 0; i < 10; i++)
        OK(cudaMemsetAsync(x, i, 4096, NULL));
    cr_expect_eq(dls_space_openings(), before, "nothing has run yet");
    OK(cudaDeviceSynchronize());
    cr_expect_eq(dls_space_openings(), before + 1);
    OK(cudaDeviceSynchronize()); // nothing to run: nothing to open
    cr_expect_eq(dls_space_openings(), before + 1);
}

/* test the addresses */
Test(vgpu, holes_are_joined)
{
    char *a, *b, *c, *d, *all;
    OK(cudaMalloc((void **)&a, 1000)); // 1024 bytes and a gap of 256
    OK(cudaMalloc((void **)&b, 1));    // 256 and 256
    OK(cudaMalloc((void **)&c, 256));  // 256 and 256
    OK(cudaMalloc((void **)&d, 256));
    cr_expect_eq(b - a, 1280);
    cr_expect_eq(c - b, 512);
    OK(cudaFree(a));
    OK(cudaFree(c));
    OK(cudaFree(b));
    OK(cudaMalloc((void **)&all, 1280 + 512 + 256));
    cr_expect_eq(all, a);
    cr_expect_eq((size_t)a % 256, 0);
    OK(cudaMalloc((void **)&b, 256)); // no room below d any more
    cr_expect_gt(b, d);
}

Test(vgpu, devices_have_their_own_addresses)
{
    char *x[2];
    for (int d = 0; d < 2; d++) {
        OK(cudaSetDevice(d));
        OK(cudaMalloc((void **)&x[d], 16));
        cr_expect(dls_space_has(x[d]));
    }
    cr_expect_eq((size_t)(x[1] - x[0]), DLS_SPACE_EACH);
    cr_expect(!dls_space_has(&x));
}
#endif
