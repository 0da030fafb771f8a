/* code/vgpu/simt_trap.c: from chapters/A-virtual-gpu-simt-intrinsics.md. Edit the chapter, or edit here and run "make untangle". */
/* How a kernel ends itself: assert, __trap, and launch bounds that do not hold. */
#include "vgpu/simt_internal.h"

#include <stdio.h>
#include <stdlib.h>

void dls_simt_trap(const char *file, int line)
{
    dls_fault(dls_me, "thread (%u,%u,%u) executed __trap at %s:%d", threadIdx.x,
              threadIdx.y, threadIdx.z, file, line);
}

void dls_simt_bounds_exceeded(unsigned most)
{
    dls_fault_as(dls_me, cudaErrorInvalidValue, "%u threads a block are more than its "
                 "__launch_bounds__(%u) allow", dls_me->threads, most);
}

/* What the C library's assert calls. Its linkage and arguments are the library's. */
_Noreturn void __assert_fail(const char *expression, const char *file, unsigned line,
                             const char *function);
_Noreturn void __assert_fail(const char *expression, const char *file, unsigned line,
                             const char *function)
{
    if (dls_me && dls_me->running)
        dls_fault_as(dls_me, cudaErrorAssert, "thread (%u,%u,%u): %s:%u: %s: assertion "
                     "`%s` failed", threadIdx.x, threadIdx.y, threadIdx.z, file, line,
                     function, expression);
    fprintf(stderr, "%s:%u: %s: Assertion `%s' failed.\n", file, line, function,
            expression);
    abort();
}
