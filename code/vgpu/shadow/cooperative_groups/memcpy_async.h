/* code/vgpu/shadow/cooperative_groups/memcpy_async.h: from chapters/A-virtual-gpu-simt-groups.md. Edit the chapter, or edit here and run "make untangle". */
/* Copies by a whole group from global to shared memory, which land at the wait. */
#ifndef DLS_SHADOW_COOPERATIVE_GROUPS_MEMCPY_ASYNC_H
#define DLS_SHADOW_COOPERATIVE_GROUPS_MEMCPY_ASYNC_H

#include "../cooperative_groups.h"
#include "../../ptx.cuh"

namespace cooperative_groups {
template <class G>
static inline void memcpy_async(const G &group, void *to, const void *from, size_t bytes,
                                const char *file = __builtin_FILE(),
                                int line = __builtin_LINE())
{
    size_t low = (size_t)to | (size_t)from | bytes;
    size_t piece = low % 16 ? low % 8 ? 4 : 8 : 16;
    char *out = (char *)to;
    const char *in = (const char *)from;
    size_t whole = low % 4 ? 0 : bytes, step = piece * group.size();
    for (size_t at = piece * group.thread_rank(); at < whole; at += step)
        dls_simt_copy_async(out + at, in + at, (int)piece, (int)piece, file, line);
    for (size_t at = whole + group.thread_rank(); at < bytes; at += group.size())
        out[at] = in[at];
    dls_simt_copy_commit();
}
template <class G, class T>
static inline void memcpy_async(const G &group, T *to, const T *from, size_t bytes,
                                const char *file = __builtin_FILE(),
                                int line = __builtin_LINE())
{
    memcpy_async(group, (void *)to, (const void *)from, bytes, file, line);
}

/* wait for the copies of a group */
template <class G>
static inline void wait(const G &group, const char *file = __builtin_FILE(),
                        int line = __builtin_LINE())
{
    dls_simt_copy_wait(-1);
    group.sync(file, line);
}
} // namespace cooperative_groups
#endif
