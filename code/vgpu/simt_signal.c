/* code/vgpu/simt_signal.c: from chapters/A-virtual-gpu-simt-memory.md. Edit the chapter, or edit here and run "make untangle". */
/* SIGSEGV and SIGBUS inside a kernel: a fault with an explanation, not the end.
 *
 * The handler runs on an alternate stack, notes the address and redirects the thread to
 * land(), which runs on the top of the faulting fiber's stack: the launch is given up, so
 * nobody needs what was there. Signals outside of kernels go to whoever had them before.
 */
#include "vgpu/simt_internal.h"
#include "vgpu/accounts.h"
#include "vgpu/space.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

/* describe a bad address */
/* "12 bytes past the end of …" for an address a little behind an allocation. */
static int describe_global(const char *p, char *out, size_t room)
{
    const dls_account_block *b = NULL;
    size_t back = 0;
    for (; !b && back <= 1 << 20; back = back ? 2 * back : 1)
        b = dls_account_at(p - back);
    if (!b)
        return snprintf(out, room, "not near any allocation");
    if (p < b->start + b->bytes)
        return snprintf(out, room, "byte %zu of an allocation of %zu bytes on device %d",
                        (size_t)(p - b->start), b->bytes, b->device);
    return snprintf(out, room, "%zu bytes past the end of an allocation of %zu bytes on "
                    "device %d", (size_t)(p - b->start) - b->bytes, b->bytes, b->device);
}

static void describe(const dls_simt_worker *w, const char *p, char *out, size_t room)
{
    const dls_arena *a = &w->arena;
    const size_t slack = 1 << 20;
    if ((uintptr_t)p < 65536)
        snprintf(out, room, "a null pointer");
    else if (dls_stack_guards(w, p))
        snprintf(out, room, "the stack of a thread has overflowed");
    else if (p >= a->end && p < a->end + slack)
        snprintf(out, room, "%zu bytes past the end of the block's %zu bytes of dynamic "
                 "shared memory", (size_t)(p - a->dynamic) - a->dynamic_bytes,
                 a->dynamic_bytes);
    else if (p < a->base && p + slack > a->base)
        snprintf(out, room, "%zu bytes before the block's shared memory",
                 (size_t)(a->base - p));
    else
        describe_global(p, out, room);
}
/* land after a signal */
static __thread const char *volatile bad_address, *volatile bad_code;

static _Noreturn void land(void)
{
    dls_simt_worker *w = dls_me;
    const char *p = bad_address;
    char near[256], place[256];
    describe(w, p, near, sizeof near);
    dls_space_where(bad_code + 1, place, sizeof place);
    dls_fault_as(w, cudaErrorIllegalAddress, "thread (%u,%u,%u): illegal access to "
                 "address %p at %s: %s", threadIdx.x, threadIdx.y, threadIdx.z,
                 (const void *)p, place, near);
}
/* handle a signal */
static struct sigaction previous[2];  // of SIGSEGV and SIGBUS

/* 1 when the interrupted thread will go on in land(). */
static int redirect(dls_simt_worker *w, ucontext_t *context)
{
    uintptr_t top = ((uintptr_t)w->running->top & ~(uintptr_t)15) - 4096;
#if defined(__x86_64__)
    bad_code = (const char *)context->uc_mcontext.gregs[REG_RIP];
    context->uc_mcontext.gregs[REG_RSP] = (greg_t)(top - 8);
    context->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)land;
    return 1;
#elif defined(__aarch64__)
    bad_code = (const char *)context->uc_mcontext.pc;
    context->uc_mcontext.sp = top;
    context->uc_mcontext.pc = (uintptr_t)land;
    return 1;
#else
    (void)top;
    (void)context;
    return 0;
#endif
}

static void handle(int number, siginfo_t *info, void *context)
{
    dls_simt_worker *w = dls_me;
    const struct sigaction *next = &previous[number == SIGBUS];
    if (w && w->running && info->si_code > 0) {
        bad_address = info->si_addr;
        if (dls_simt_probes)
            dls_simt_probes->interrupted(context);
        if (redirect(w, context))
            return;
    }
    if (next->sa_flags & SA_SIGINFO)
        next->sa_sigaction(number, info, context);
    else if (next->sa_handler != SIG_DFL && next->sa_handler != SIG_IGN)
        next->sa_handler(number);
    else
        signal(number, SIG_DFL);
}
/* catch signals */
static void install(void)
{
    struct sigaction ours = {.sa_sigaction = handle,
                             .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&ours.sa_mask);
    sigaction(SIGSEGV, &ours, &previous[0]);
    sigaction(SIGBUS, &ours, &previous[1]);
}

void dls_catch_signals(dls_simt_worker *w)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const stack_t stack = {.ss_sp = w->signal_stack, .ss_size = sizeof w->signal_stack};
    sigaltstack(&stack, NULL);
    pthread_once(&once, install);
}
