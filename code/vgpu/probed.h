/* code/vgpu/probed.h: from chapters/A-virtual-gpu-probe.md. Edit the chapter, or edit here and run "make untangle". */
/* Included before everything else in a probed file (by probed.flags): the hooks that
 * matter, written into the code where gcc would call them.
 *
 *     call __tsan_read4   -->   four instructions that append to the log of the lane
 *
 * While probed code runs, r11 holds the log and r10 its `end`. gcc does not use the two
 * registers, and believes that a hook changes only rax and rdx, so that it keeps
 * everything else where it is.
 */
#ifndef DLS_VGPU_PROBED_H
#define DLS_VGPU_PROBED_H

#if defined(__x86_64__) && defined(__cplusplus) && !defined(DLS_PROBE_CALLS)
#pragma GCC system_header
/* take two registers */
register unsigned long dls_probe_count_register __asm__("r10");
register void *dls_probe_log_register __asm__("r11");
/* say what a hook changes */
#define DLS_HOOK(name, ...)                                                      \
    extern "C" __attribute__((no_sanitize("thread,bounds"), no_sanitize_coverage, \
                              noinline, no_reorder))                              \
    void __builtin_##name(__VA_ARGS__)                                            \
    {                                                                             \
        __asm__ volatile("ud2" ::: "rax", "rdx", "memory");                       \
    }
#define DLS_SIZED_HOOKS(bytes)                                                    \
    DLS_HOOK(__tsan_read##bytes, void *)                                          \
    DLS_HOOK(__tsan_write##bytes, void *)
DLS_SIZED_HOOKS(1)
DLS_SIZED_HOOKS(2)
DLS_SIZED_HOOKS(4)
DLS_SIZED_HOOKS(8)
DLS_SIZED_HOOKS(16)
DLS_HOOK(__sanitizer_cov_trace_pc)
DLS_HOOK(__ubsan_handle_out_of_bounds, void *, void *)
/* append a note in place */
__asm__(R"(
.macro dls_note what word slow
    movl $__executable_start - .Ldls_note_\@ + (\what << 27), 2040(%r11,%r10,4)
    movq \word, 6176(%r11,%r10,8)
    addq $1, %r10
    jns .Ldls_slow_\@
.Ldls_note_\@:
    .subsection 1
.Ldls_slow_\@:
    movl $__executable_start - .Ldls_note_\@ + (\what << 27), %eax
    callq \slow
    jmp .Ldls_note_\@
    .previous
.endm
.macro dls_load_log
    movq %fs:dls_probe_now@tpoff, %r11
    movslq (%r11), %r10
.endm
)");
/* follow the registers */
__asm__(R"(
.macro dls_call target:vararg
    movl %r10d, (%r11)
    callq \target
    dls_load_log
.endm
.macro ret
    movl %r10d, (%r11)
    retq
.endm
.macro endbr64
    dls_load_log
.endm
)");
/* replace calls of hooks */
__asm__(R"(
.macro dls_hook name what target:vararg
    .ifc \name,\target
        .set dls_what, \what
    .endif
    .ifc \name@PLT,\target
        .set dls_what, \what
    .endif
.endm
.macro dls_find_hook target:vararg
    .set dls_what, -1
    dls_hook __tsan_read1 0 \target
    dls_hook __tsan_read2 1 \target
    dls_hook __tsan_read4 2 \target
    dls_hook __tsan_read8 3 \target
    dls_hook __tsan_read16 4 \target
    dls_hook __tsan_write1 5 \target
    dls_hook __tsan_write2 6 \target
    dls_hook __tsan_write4 7 \target
    dls_hook __tsan_write8 8 \target
    dls_hook __tsan_write16 9 \target
    dls_hook __sanitizer_cov_trace_pc 16 \target
    dls_hook __ubsan_handle_out_of_bounds 33 \target
.endm
)");
__asm__(R"(
.macro call target:vararg
    dls_find_hook \target
    .if dls_what == 33
        movl %r10d, (%r11)
        callq dls_probe_bounds
    .elseif dls_what == 16
        nopl 0x646c73(%rax)
        dls_note dls_what, $0, dls_probe_slow_block
    .elseif dls_what >= 0
        dls_note dls_what, %rdi, dls_probe_slow
    .else
        dls_call \target
    .endif
.endm
)");
#endif
#endif
