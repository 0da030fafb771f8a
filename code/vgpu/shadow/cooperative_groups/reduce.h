/* code/vgpu/shadow/cooperative_groups/reduce.h: from chapters/A-virtual-gpu-simt-groups.md. Edit the chapter, or edit here and run "make untangle". */
/* cooperative_groups::reduce and its operations. */
#ifndef DLS_SHADOW_COOPERATIVE_GROUPS_REDUCE_H
#define DLS_SHADOW_COOPERATIVE_GROUPS_REDUCE_H

#include "../cooperative_groups.h"

namespace cooperative_groups {
#define DLS_GROUP_OPERATION(name, expression)                                     \
    template <class T> struct name {                                              \
        T operator()(T a, T b) const { return expression; }                       \
    };
DLS_GROUP_OPERATION(plus, a + b)
DLS_GROUP_OPERATION(less, b < a ? b : a)
DLS_GROUP_OPERATION(greater, a < b ? b : a)
DLS_GROUP_OPERATION(bit_and, a &b)
DLS_GROUP_OPERATION(bit_or, a | b)
DLS_GROUP_OPERATION(bit_xor, a ^ b)
#undef DLS_GROUP_OPERATION

template <unsigned N, class P, class T, class F>
static inline T reduce(const thread_block_tile<N, P> &tile, T v, F combine)
{
    for (unsigned by = N / 2; by > 0; by /= 2) {
        T other = tile.shfl_xor(v, by);
        v = tile.thread_rank() & by ? combine(other, v) : combine(v, other);
    }
    return v;
}

template <class T, class F>
static inline T reduce(const coalesced_group &group, T v, F combine)
{
    T sum = group.shfl(v, 0);
    for (unsigned rank = 1; rank < group.size(); rank++)
        sum = combine(sum, group.shfl(v, rank));
    return sum;
}
} // namespace cooperative_groups
#endif
