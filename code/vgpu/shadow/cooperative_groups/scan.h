/* code/vgpu/shadow/cooperative_groups/scan.h: from chapters/A-virtual-gpu-simt-groups.md. Edit the chapter, or edit here and run "make untangle". */
/* Sums of the values of all threads with lower ranks, with or without one's own. */
#ifndef DLS_SHADOW_COOPERATIVE_GROUPS_SCAN_H
#define DLS_SHADOW_COOPERATIVE_GROUPS_SCAN_H

#include "reduce.h"

namespace cooperative_groups {
template <class G, class T, class F>
static inline T inclusive_scan(const G &group, T v, F combine)
{
    unsigned rank = group.thread_rank();
    for (unsigned by = 1; by < group.size(); by *= 2) {
        T other = group.shfl_up(v, by);
        if (rank >= by)
            v = combine(other, v);
    }
    return v;
}
template <class G, class T> static inline T inclusive_scan(const G &group, T v)
{
    return inclusive_scan(group, v, plus<T>());
}

template <class G, class T, class F>
static inline T exclusive_scan(const G &group, T v, F combine)
{
    T before = group.shfl_up(inclusive_scan(group, v, combine), 1);
    return group.thread_rank() ? before : T();
}
template <class G, class T> static inline T exclusive_scan(const G &group, T v)
{
    return exclusive_scan(group, v, plus<T>());
}
} // namespace cooperative_groups
#endif
