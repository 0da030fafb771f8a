/* code/vgpu/probe_inline.c: from chapters/A-virtual-gpu-probe.md. Edit the chapter, or edit here and run "make untangle". */
/* What the hooks in place leave to functions: to enter a basic block, a log without room,
 * host code, an index out of bounds. gcc believes that these change rax and rdx only.
 */
#include "vgpu/probe_internal.h"

#include <stddef.h>
#include <ucontext.h>

#if defined(__x86_64__)
/* check the numbers in the macros */
_Static_assert(offsetof(dls_probe_lane, end) == 0, "probed.h");
_Static_assert(offsetof(dls_probe_lane, code[PROBE_FULL]) == 2040, "probed.h");
_Static_assert(offsetof(dls_probe_lane, address[PROBE_FULL]) == 6176, "probed.h");
_Static_assert(NOTE_BITS == 5 && NOTE_READ == 0 && NOTE_WRITE == 5, "probed.h");
_Static_assert(NOTE_BLOCK == 16, "below");
/* keep all registers */
/* Calls a function of C with all registers kept but rax, rdx, r10 and r11. The 2688 bytes
 * that xsave fills (without those of matrix tiles) lie below them, its header at 512. */
#define KEEPING(arguments, function)                                             \
    "    pushq %rbp\n    .cfi_adjust_cfa_offset 8\n    .cfi_offset rbp, -16\n"   \
    "    movq %rsp, %rbp\n    .cfi_def_cfa_register rbp\n"                       \
    "    pushq %rcx\n    pushq %rsi\n    pushq %rdi\n    pushq %r8\n"            \
    "    pushq %r9\n" arguments                                                  \
    "    leaq -2688(%rsp), %rsp\n    andq $-64, %rsp\n"                          \
    "    movl $8, %ecx\n"                                                        \
    "1:  movq $0, 504(%rsp,%rcx,8)\n    subl $1, %ecx\n    jnz 1b\n"             \
    "    movl $0xe7, %eax\n    xorl %edx, %edx\n    xsave64 (%rsp)\n"            \
    "    movq %r10, %rdx\n    call " function "\n"                               \
    "    movl $0xe7, %eax\n    xorl %edx, %edx\n    xrstor64 (%rsp)\n"           \
    "    movq -8(%rbp), %rcx\n    movq -16(%rbp), %rsi\n"                        \
    "    movq -24(%rbp), %rdi\n    movq -32(%rbp), %r8\n"                        \
    "    movq -40(%rbp), %r9\n    leave\n    .cfi_def_cfa rsp, 8\n" LOADED       \
    "    ret\n    .cfi_endproc\n"
#define LOADED "    movq %fs:dls_probe_now@tpoff, %r11\n    movslq (%r11), %r10\n"
#define FUNCTION(name)                                                           \
    ".text\n    .p2align 4\n    .globl " name "\n    .type " name ", @function\n" \
    name ":\n    .cfi_startproc\n"
/* leave the quick way */
/* No consumer: nobody's log begins again, 64 notes before its end. */
#define UNHEARD                                                                  \
    "    cmpl $0, dls_probe_attached(%rip)\n    jne 3f\n"                        \
    "    movq $-65, %r10\n    movl %r10d, (%r11)\n    ret\n3:\n"

__asm__(FUNCTION("dls_probe_slow")               // eax: code, rdi: word
        "    leaq dls_probe_nobody(%rip), %rdx\n"
        "    cmpq %rdx, %r11\n    je dls_probe_host\n"
        "    movl %r10d, (%r11)\n"
        KEEPING("    movq %r11, %rdi\n", "dls_probe_full")
        ".size dls_probe_slow, .-dls_probe_slow\n");

__asm__(FUNCTION("dls_probe_slow_block")
        "    leaq dls_probe_nobody(%rip), %rdx\n"
        "    cmpq %rdx, %r11\n    jne dls_probe_slow\n" UNHEARD
        "    subq $1, %r10\n    ret\n"
        "    .cfi_endproc\n"
        ".size dls_probe_slow_block, .-dls_probe_slow_block\n");

__asm__(FUNCTION("dls_probe_host") UNHEARD
        "    subq $1, %r10\n"
        "    cmpl $0, dls_probe_hears_host(%rip)\n    jne 2f\n"
        "    ret\n"
        "2:\n"
        KEEPING("    movq %rdi, %rsi\n    movl %eax, %edi\n", "dls_probe_outside")
        ".size dls_probe_host, .-dls_probe_host\n");

__asm__(FUNCTION("dls_probe_bounds")             // rdi: what, rsi: index
        "    movq (%rsp), %r10\n"
        KEEPING("", "dls_probe_out_of_bounds")
        ".size dls_probe_bounds, .-dls_probe_bounds\n");
#endif
/* take the count from a signal */
void dls_probe_interrupted(const void *context)
{
#if defined(__x86_64__)
    const greg_t *r = ((const ucontext_t *)context)->uc_mcontext.gregs;
    dls_probe_lane *l = dls_probe_now;
    if (r[REG_R11] == (greg_t)(uintptr_t)l && r[REG_R10] > l->end && r[REG_R10] < 0)
        l->end = (int32_t)r[REG_R10];
#else
    (void)context;
#endif
}
