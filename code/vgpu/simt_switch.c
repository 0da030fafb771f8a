/* code/vgpu/simt_switch.c: from chapters/A-virtual-gpu-simt.md. Edit the chapter, or edit here and run "make untangle". */
/* The context switch: three versions of one function, in the order of preference.
 *
 *     void dls_fiber_switch(void **save, void *load);
 *     void dls_fiber_jump(void **save, void *load);    the same, predicted as a jump
 *
 * Saves the callee-saved registers on the present stack and its pointer in *save, then
 * continues where the stack `load` was left. dls_fiber_prepare() makes a stack that looks
 * as if it had been left just before entering dls_fiber_start. The floating-point control
 * word is not switched: kernels do not change the rounding mode.
 */
#include "vgpu/simt_internal.h"

#include <stdint.h>

#if defined(__x86_64__) && !defined(DLS_SIMT_UCONTEXT)
/* switch fibers on x86 64 */
#define FIBER_SWITCH(name, leave)                                         \
    __asm__(".text\n"                                                     \
            ".globl " name "\n"                                           \
            ".type " name ", @function\n"                                 \
            name ":\n"                                                    \
            "    .cfi_startproc\n"                                        \
            "    pushq %rbp\n    .cfi_adjust_cfa_offset 8\n"              \
            "    pushq %rbx\n    .cfi_adjust_cfa_offset 8\n"              \
            "    pushq %r12\n    .cfi_adjust_cfa_offset 8\n"              \
            "    pushq %r13\n    .cfi_adjust_cfa_offset 8\n"              \
            "    pushq %r14\n    .cfi_adjust_cfa_offset 8\n"              \
            "    pushq %r15\n    .cfi_adjust_cfa_offset 8\n"              \
            "    movq %rsp, (%rdi)\n"                                     \
            "    movq %rsi, %rsp\n"                                       \
            "    popq %r15\n    .cfi_adjust_cfa_offset -8\n"              \
            "    popq %r14\n    .cfi_adjust_cfa_offset -8\n"              \
            "    popq %r13\n    .cfi_adjust_cfa_offset -8\n"              \
            "    popq %r12\n    .cfi_adjust_cfa_offset -8\n"              \
            "    popq %rbx\n    .cfi_adjust_cfa_offset -8\n"              \
            "    popq %rbp\n    .cfi_adjust_cfa_offset -8\n"              \
            leave                                                         \
            "    .cfi_endproc\n"                                          \
            ".size " name ", .-" name "\n")

FIBER_SWITCH("dls_fiber_switch", "    ret\n");
FIBER_SWITCH("dls_fiber_jump", "    popq %rcx\n"
                               "    .cfi_adjust_cfa_offset -8\n"
                               "    .cfi_register rip, rcx\n"
                               "    jmpq *%rcx\n");
__asm__(".globl dls_fiber_start\n"
        ".type dls_fiber_start, @function\n"
        "dls_fiber_start:\n"
        "    .cfi_startproc\n"
        "    .cfi_undefined rip\n"
        "    call dls_fiber_main\n"
        "    ud2\n"
        "    .cfi_endproc\n"
        ".size dls_fiber_start, .-dls_fiber_start\n");

void *dls_fiber_prepare(void *bottom, void *top)
{
    extern void dls_fiber_start(void);
    (void)bottom;
    uintptr_t *sp = (uintptr_t *)((uintptr_t)top & ~(uintptr_t)15);
    *--sp = (uintptr_t)dls_fiber_start;
    for (int i = 0; i < 6; i++)
        *--sp = 0;
    return sp;
}
#elif defined(__aarch64__) && !defined(DLS_SIMT_UCONTEXT)
/* switch fibers on aarch64 */
__asm__(".text\n"
        ".globl dls_fiber_switch\n"
        ".type dls_fiber_switch, %function\n"
        "dls_fiber_switch:\n"
        "    .cfi_startproc\n"
        "    sub sp, sp, #160\n    .cfi_adjust_cfa_offset 160\n"
        "    stp x19, x20, [sp, #0]\n    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n    str x9, [x0]\n    mov sp, x1\n"
        "    ldp x19, x20, [sp, #0]\n    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n    .cfi_adjust_cfa_offset -160\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size dls_fiber_switch, .-dls_fiber_switch\n");
__asm__(".globl dls_fiber_start\n"
        ".type dls_fiber_start, %function\n"
        "dls_fiber_start:\n"
        "    .cfi_startproc\n"
        "    .cfi_undefined x30\n"
        "    bl dls_fiber_main\n"
        "    brk #0\n"
        "    .cfi_endproc\n"
        ".size dls_fiber_start, .-dls_fiber_start\n");
void *dls_fiber_prepare(void *bottom, void *top)
{
    extern void dls_fiber_start(void);
    (void)bottom;
    uintptr_t *sp = (uintptr_t *)((uintptr_t)top & ~(uintptr_t)15) - 20;
    for (int i = 0; i < 20; i++)
        sp[i] = 0;
    sp[11] = (uintptr_t)dls_fiber_start;
    return sp;
}
#else
/* switch fibers with ucontext */
#include <ucontext.h>

static __thread ucontext_t *current;  // the context of the running stack
static __thread ucontext_t home;      // that of the worker's own stack

void dls_fiber_switch(void **save, void *load)
{
    ucontext_t *from = current ? current : &home;
    *save = from;
    current = load;
    swapcontext(from, load);
}

void *dls_fiber_prepare(void *bottom, void *top)
{
    ucontext_t *c = (ucontext_t *)(((uintptr_t)top - sizeof *c) & ~(uintptr_t)63);
    getcontext(c);
    c->uc_stack.ss_sp = bottom;
    c->uc_stack.ss_size = (uintptr_t)c - (uintptr_t)bottom;
    c->uc_link = NULL;
    makecontext(c, dls_fiber_main, 0);
    return c;
}
#endif
