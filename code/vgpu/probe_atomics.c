/* code/vgpu/probe_atomics.c: from chapters/A-virtual-gpu-probe.md. Edit the chapter, or edit here and run "make untangle". */
/* Atomic operations of probed code. gcc replaces each by a call, so that the call must do
 * the operation, not only see it. They are done as the plain program would do them.
 */
#include "vgpu/probe_internal.h"

/* Notes are read later; who was first, and thereby who waited for whom, is known now. */
void dls_probe_tell_sync(const dls_probe_lane *l, const volatile void *p, unsigned what)
{
    unsigned thread = l->thread;
    for (int i = 0; i < DLS_PROBE_CONSUMERS; i++)
        if (dls_probe.consumer[i] && dls_probe.consumer[i]->sync)
            dls_probe.consumer[i]->sync(thread, (const void *)p,
                                        what != NOTE_ATOMIC_READ,
                                        what != NOTE_ATOMIC_WRITE);
}
/* note an atomic operation */
static void note_atomic(unsigned what, const volatile void *p, unsigned size,
                        const void *pc)
{
    dls_probe_lane *l = dls_probe_now;
    if (l == &dls_probe_nobody)
        return;
    if (dls_probe_note(l, pc, what, (uint64_t)p | (uint64_t)size << NOTE_SIZE_SHIFT))
        dls_probe_full(l);
    dls_probe_tell_sync(dls_probe_now, p, what);
}
/* load store and exchange */
#define CALLER __builtin_return_address(0)
#define LOADS_AND_STORES(T, bits)                                                 \
    T __tsan_atomic##bits##_load(const volatile T *p, int order);                 \
    T __tsan_atomic##bits##_load(const volatile T *p, int order)                  \
    {                                                                             \
        if (order != __ATOMIC_RELAXED)                                            \
            note_atomic(NOTE_ATOMIC_READ, p, sizeof(T), CALLER);                  \
        return __atomic_load_n(p, __ATOMIC_SEQ_CST);                              \
    }                                                                             \
    void __tsan_atomic##bits##_store(volatile T *p, T value, int order);          \
    void __tsan_atomic##bits##_store(volatile T *p, T value, int order)           \
    {                                                                             \
        (void)order;                                                              \
        note_atomic(NOTE_ATOMIC_WRITE, p, sizeof(T), CALLER);                     \
        __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                             \
    }
/* update by an operation */
#define UPDATE(T, bits, name, builtin)                                            \
    T __tsan_atomic##bits##_##name(volatile T *p, T value, int order);            \
    T __tsan_atomic##bits##_##name(volatile T *p, T value, int order)             \
    {                                                                             \
        (void)order;                                                              \
        note_atomic(NOTE_ATOMIC_UPDATE, p, sizeof(T), CALLER);                    \
        return builtin(p, value, __ATOMIC_SEQ_CST);                               \
    }
#define UPDATES(T, bits)                                                          \
    UPDATE(T, bits, exchange, __atomic_exchange_n)                                \
    UPDATE(T, bits, fetch_add, __atomic_fetch_add)                                \
    UPDATE(T, bits, fetch_sub, __atomic_fetch_sub)                                \
    UPDATE(T, bits, fetch_and, __atomic_fetch_and)                                \
    UPDATE(T, bits, fetch_or, __atomic_fetch_or)                                  \
    UPDATE(T, bits, fetch_xor, __atomic_fetch_xor)                                \
    UPDATE(T, bits, fetch_nand, __atomic_fetch_nand)
/* compare and exchange */
#define COMPARE(T, bits, name)                                                    \
    int __tsan_atomic##bits##_##name(volatile T *p, T *expected, T value, int order, \
                                     int failed);                                 \
    int __tsan_atomic##bits##_##name(volatile T *p, T *expected, T value, int order, \
                                     int failed)                                  \
    {                                                                             \
        (void)order, (void)failed;                                                \
        note_atomic(NOTE_ATOMIC_UPDATE, p, sizeof(T), CALLER);                    \
        return __atomic_compare_exchange_n(p, expected, value, 0, __ATOMIC_SEQ_CST, \
                                           __ATOMIC_SEQ_CST);                     \
    }
#define COMPARE_VALUE(T, bits)                                                    \
    T __tsan_atomic##bits##_compare_exchange_val(volatile T *p, T expected, T value, \
                                                 int order, int failed);          \
    T __tsan_atomic##bits##_compare_exchange_val(volatile T *p, T expected, T value, \
                                                 int order, int failed)           \
    {                                                                             \
        (void)order, (void)failed;                                                \
        note_atomic(NOTE_ATOMIC_UPDATE, p, sizeof(T), CALLER);                    \
        __atomic_compare_exchange_n(p, &expected, value, 0, __ATOMIC_SEQ_CST,     \
                                    __ATOMIC_SEQ_CST);                            \
        return expected;                                                          \
    }
/* define the atomics of all sizes */
#define ALL_ATOMICS(T, bits)                                                      \
    LOADS_AND_STORES(T, bits)                                                     \
    UPDATES(T, bits)                                                              \
    COMPARE(T, bits, compare_exchange_strong)                                     \
    COMPARE(T, bits, compare_exchange_weak)                                       \
    COMPARE_VALUE(T, bits)
ALL_ATOMICS(uint8_t, 8)
ALL_ATOMICS(uint16_t, 16)
ALL_ATOMICS(uint32_t, 32)
ALL_ATOMICS(uint64_t, 64)

void __tsan_atomic_thread_fence(int order);
void __tsan_atomic_thread_fence(int order)
{
    dls_probe_lane *l = dls_probe_now;
    if (l)
        dls_probe_cut(l);
    for (int i = 0; l && i < DLS_PROBE_CONSUMERS; i++)
        if (dls_probe.consumer[i] && dls_probe.consumer[i]->fence)
            dls_probe.consumer[i]->fence(dls_probe_now->thread,
                                         order == __ATOMIC_SEQ_CST);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void __tsan_atomic_signal_fence(int order);
void __tsan_atomic_signal_fence(int order) { (void)order; }
