/* code/vgpu/probe_hooks.c: from chapters/A-virtual-gpu-probe.md. Edit the chapter, or edit here and run "make untangle". */
/* The hooks: what gcc calls in a program compiled with -fsanitize=thread and
 * -fsanitize-coverage=trace-pc. Each notes a place and an address, in a few instructions.
 * libtsan has functions of the same names; a probed program is linked without it.
 */
#include "vgpu/probe_internal.h"

#include <string.h>

int dls_probe_hears_host, dls_probe_attached;
dls_probe_lane dls_probe_nobody = {.end = -1};
__thread dls_probe_lane *dls_probe_now = &dls_probe_nobody;

/* note an access outside of kernels */
static void outside(unsigned what, uint64_t word, const void *pc)
{
    static const unsigned char size_of[] = {1, 2, 4, 8, 16, 1, 2, 4, 8, 16};
    if (!dls_probe_hears_host || what >= NOTE_BLOCK)
        return;
    size_t size = what < NOTE_READ_RANGE ? size_of[what] : word >> NOTE_SIZE_SHIFT;
    int write = what >= NOTE_WRITE && what != NOTE_READ_RANGE && what != NOTE_ATOMIC_READ;
    const void *address = (const void *)(word & (((uint64_t)1 << NOTE_SIZE_SHIFT) - 1));
    for (int i = 0; i < DLS_PROBE_CONSUMERS; i++)
        if (dls_probe.consumer[i] && dls_probe.consumer[i]->host)
            dls_probe.consumer[i]->host((uintptr_t)pc, address, size, write);
}

void dls_probe_outside(uint32_t code, uint64_t word)
{
    uint32_t offset = dls_probe_offset(code);
    outside(offset & ((1u << NOTE_BITS) - 1), word,
            (const void *)((uintptr_t)__executable_start + (offset >> NOTE_BITS)));
}
/* note an access */
static inline __attribute__((always_inline)) void note(unsigned what, uint64_t word,
                                                       const void *pc)
{
    dls_probe_lane *l = dls_probe_now;
    if (__builtin_expect(l == &dls_probe_nobody, 0)) {
        outside(what, word, pc);
        return;
    }
    if (__builtin_expect(dls_probe_note(l, pc, what, word), 0))
        dls_probe_full(l);
}
/* define the hooks of one size */
#define CALLER __builtin_return_address(0)
#define HOOK(name, what)                                                          \
    void name(const void *p);                                                     \
    void name(const void *p) { note(what, (uint64_t)p, CALLER); }
#define VOLATILE_HOOK(name, what, bytes)                                          \
    void name(const void *p);                                                     \
    void name(const void *p)                                                      \
    {                                                                             \
        note(what, (uint64_t)p | (uint64_t)(bytes) << NOTE_SIZE_SHIFT, CALLER);   \
        if (dls_probe_somebody())                                                 \
            dls_probe_tell_sync(dls_probe_now, p, what);                          \
    }
#define SIZED_HOOKS(bytes, log2)                                                  \
    HOOK(__tsan_read##bytes, NOTE_READ + log2)                                    \
    HOOK(__tsan_write##bytes, NOTE_WRITE + log2)                                  \
    VOLATILE_HOOK(__tsan_volatile_read##bytes, NOTE_ATOMIC_READ, bytes)           \
    VOLATILE_HOOK(__tsan_volatile_write##bytes, NOTE_ATOMIC_WRITE, bytes)
SIZED_HOOKS(1, 0)
SIZED_HOOKS(2, 1)
SIZED_HOOKS(4, 2)
SIZED_HOOKS(8, 3)
SIZED_HOOKS(16, 4)
/* define the hooks of ranges */
static inline uint64_t ranged(const void *p, uint64_t size)
{
    return (uint64_t)p | size << NOTE_SIZE_SHIFT;
}

static inline __attribute__((always_inline)) void note_range(unsigned what, const void *p,
                                                             size_t size, const void *pc)
{
    enum { MOST = 0x8000 };
    for (; size > MOST; size -= MOST, p = (const char *)p + MOST)
        note(what, ranged(p, MOST), pc);
    if (size)
        note(what, ranged(p, size), pc);
}

void __tsan_read_range(const void *p, size_t size);
void __tsan_read_range(const void *p, size_t size)
{
    note_range(NOTE_READ_RANGE, p, size, CALLER);
}

void __tsan_write_range(const void *p, size_t size);
void __tsan_write_range(const void *p, size_t size)
{
    note_range(NOTE_WRITE_RANGE, p, size, CALLER);
}
/* define the hooks of unaligned accesses */
#define UNALIGNED_HOOKS(bytes)                                                    \
    void __tsan_unaligned_read##bytes(const void *p);                             \
    void __tsan_unaligned_read##bytes(const void *p)                              \
    {                                                                             \
        note(NOTE_READ_RANGE, ranged(p, bytes), CALLER);                          \
    }                                                                             \
    void __tsan_unaligned_write##bytes(const void *p);                            \
    void __tsan_unaligned_write##bytes(const void *p)                             \
    {                                                                             \
        note(NOTE_WRITE_RANGE, ranged(p, bytes), CALLER);                         \
    }
UNALIGNED_HOOKS(2)
UNALIGNED_HOOKS(4)
UNALIGNED_HOOKS(8)
UNALIGNED_HOOKS(16)
/* define the hooks of control */
void __sanitizer_cov_trace_pc(void);
void __sanitizer_cov_trace_pc(void)
{
    if (dls_probe_somebody())
        note(NOTE_BLOCK, 0, CALLER);
}

void __tsan_vptr_update(void **p, void *value);
void __tsan_vptr_update(void **p, void *value) { (void)p, (void)value; }
void __tsan_vptr_read(void **p);
void __tsan_vptr_read(void **p) { (void)p; }
/* watch copies of memory */
/* On the caller's own stack: nobody else sees it. */
static int is_private(const void *p)
{
    return (uintptr_t)p - dls_probe.stacks < dls_probe.stacks_size;
}

void *dls_probed_memcpy(void *to, const void *from, size_t size);
void *dls_probed_memcpy(void *to, const void *from, size_t size)
{
    if (!is_private(from))
        note_range(NOTE_READ_RANGE, from, size, CALLER);
    if (!is_private(to))
        note_range(NOTE_WRITE_RANGE, to, size, CALLER);
    return memcpy(to, from, size);
}

void *dls_probed_memmove(void *to, const void *from, size_t size);
void *dls_probed_memmove(void *to, const void *from, size_t size)
{
    if (!is_private(from))
        note_range(NOTE_READ_RANGE, from, size, CALLER);
    if (!is_private(to))
        note_range(NOTE_WRITE_RANGE, to, size, CALLER);
    return memmove(to, from, size);
}

void *dls_probed_memset(void *to, int value, size_t size);
void *dls_probed_memset(void *to, int value, size_t size)
{
    if (!is_private(to))
        note_range(NOTE_WRITE_RANGE, to, size, CALLER);
    return memset(to, value, size);
}
/* hear of indices out of bounds */
typedef struct source_place {
    const char *file;
    uint32_t line, column;
} source_place;

typedef struct type_name {
    uint16_t kind, info;
    char name[];
} type_name;

typedef struct bounds_data {
    source_place at;
    const type_name *array, *index;
} bounds_data;

void dls_probe_out_of_bounds(bounds_data *data, uintptr_t index, const void *pc);
void dls_probe_out_of_bounds(bounds_data *data, uintptr_t index, const void *pc)
{
    for (int i = 0; i < DLS_PROBE_CONSUMERS; i++)
        if (dls_probe.consumer[i] && dls_probe.consumer[i]->bounds)
            dls_probe.consumer[i]->bounds((uintptr_t)pc, data->at.file,
                                          (int)data->at.line, (int)data->at.column,
                                          (long long)index, data->array->name);
}

void __ubsan_handle_out_of_bounds(bounds_data *data, uintptr_t index);
void __ubsan_handle_out_of_bounds(bounds_data *data, uintptr_t index)
{
    dls_probe_out_of_bounds(data, index, CALLER);
}
/* note what wrappers do */
void dls_probe_access(const void *p, size_t size, int write, const void *pc)
{
    unsigned log2 = (unsigned)__builtin_ctzll(size | 32);
    if (write == 2)
        note(NOTE_LANDING, (uint64_t)p | (uint64_t)size << NOTE_SIZE_SHIFT, pc);
    else if (size == (size_t)1 << log2 && ((uintptr_t)p & (size - 1)) == 0)
        note((write ? NOTE_WRITE : NOTE_READ) + log2, (uint64_t)p, pc);
    else
        note_range(write ? NOTE_WRITE_RANGE : NOTE_READ_RANGE, p, size, pc);
}

void dls_probe_flops(unsigned long long count, const void *pc)
{
    note(NOTE_FLOPS, count, pc);
}
