/* code/vgpu/shadow/cooperative_groups.h: from chapters/A-virtual-gpu-simt-groups.md. Edit the chapter, or edit here and run "make untangle". */
/* Cooperative groups: blocks, tiles, coalesced lanes, and the grid. */
#ifndef DLS_SHADOW_COOPERATIVE_GROUPS_H
#define DLS_SHADOW_COOPERATIVE_GROUPS_H

#include "cuda_runtime.h"

#define DLS_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()
namespace cooperative_groups {
/* define the block as a group */
class thread_block {
public:
    static void sync(DLS_HERE) { dls_simt_barrier(file, line); }
    static unsigned thread_rank() { return threadIdx.linear; }
    static unsigned num_threads() { return dls_simt_here.threads; }
    static unsigned size() { return num_threads(); }
    static dim3 group_index() { return dim3(blockIdx); }
    static dim3 thread_index() { return dim3(threadIdx.x, threadIdx.y, threadIdx.z); }
    static dim3 group_dim() { return blockDim; }
    static dim3 dim_threads() { return blockDim; }
};
static inline thread_block this_thread_block() { return thread_block(); }
/* define the grid as a group */
class grid_group {
public:
    static bool is_valid() { return dls_simt_is_cooperative(); }
    static void sync(DLS_HERE) { dls_simt_grid_barrier(file, line); }
    static unsigned long long block_rank()
    {
        return blockIdx.x + (unsigned long long)gridDim.x *
                                (blockIdx.y + (unsigned long long)gridDim.y * blockIdx.z);
    }
    static unsigned long long num_blocks()
    {
        return (unsigned long long)gridDim.x * gridDim.y * gridDim.z;
    }
    static unsigned long long thread_rank()
    {
        return block_rank() * dls_simt_here.threads + threadIdx.linear;
    }
    static unsigned long long num_threads()
    {
        return num_blocks() * dls_simt_here.threads;
    }
    static unsigned long long size() { return num_threads(); }
    static dim3 block_index() { return dim3(blockIdx); }
    static dim3 dim_blocks() { return gridDim; }
    static dim3 group_dim() { return gridDim; }
};
static inline grid_group this_grid() { return grid_group(); }
/* define groups of lanes */
class dls_lanes {
protected:
    unsigned mask = 0;
    explicit dls_lanes(unsigned lanes) : mask(lanes) {}

    unsigned lane_of(unsigned rank) const
    {
        unsigned rest = mask;
        for (rank %= num_threads(); rank > 0; rank--)
            rest &= rest - 1;
        return (unsigned)__builtin_ctz(rest);
    }
    /* The bits of lanes in the mask, moved together: bit r is that of rank r. */
    unsigned by_rank(unsigned lanes) const
    {
        unsigned r = 0, rank = 0;
        for (unsigned rest = mask; rest; rest &= rest - 1, rank++)
            r |= (lanes >> __builtin_ctz(rest) & 1) << rank;
        return r;
    }
    template <class T>
    T from_lane(T v, unsigned lane, const char *file, int line) const
    {
        static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 32, "too large");
        unsigned long long words[(sizeof(T) + 7) / 8] = {0};
        memcpy(words, (const void *)&v, sizeof v);
        for (auto &word : words)
            word = __shfl_sync(mask, word, (int)lane, 32, file, line);
        memcpy((void *)&v, words, sizeof v);
        return v;
    }

public:
    unsigned dls_mask() const { return mask; }
    /* do what lanes do together */
    unsigned num_threads() const { return (unsigned)__builtin_popcount(mask); }
    unsigned size() const { return num_threads(); }
    unsigned thread_rank() const
    {
        return (unsigned)__builtin_popcount(mask & ((1u << threadIdx.linear % 32) - 1));
    }
    void sync(DLS_HERE) const { __syncwarp(mask, file, line); }
    int any(int p, DLS_HERE) const { return __any_sync(mask, p, file, line); }
    int all(int p, DLS_HERE) const { return __all_sync(mask, p, file, line); }
    unsigned ballot(int p, DLS_HERE) const
    {
        return by_rank(__ballot_sync(mask, p, file, line));
    }
    template <class T> unsigned match_any(T v, DLS_HERE) const
    {
        return by_rank(__match_any_sync(mask, v, file, line));
    }
    template <class T> unsigned match_all(T v, int &all, DLS_HERE) const
    {
        return by_rank(__match_all_sync(mask, v, &all, file, line));
    }
    template <class T> T shfl(T v, unsigned rank, DLS_HERE) const
    {
        return from_lane(v, lane_of(rank), file, line);
    }
    template <class T> T shfl_up(T v, unsigned by, DLS_HERE) const
    {
        unsigned rank = thread_rank();
        return from_lane(v, lane_of(rank >= by ? rank - by : rank), file, line);
    }
    template <class T> T shfl_down(T v, unsigned by, DLS_HERE) const
    {
        unsigned rank = thread_rank(), from = rank + by;
        return from_lane(v, lane_of(from < num_threads() ? from : rank), file, line);
    }
};
/* define tiles */
class coalesced_group : public dls_lanes {
    unsigned part = 0, parts = 1;

public:
    explicit coalesced_group(unsigned lanes, unsigned rank = 0, unsigned count = 1)
        : dls_lanes(lanes), part(rank), parts(count) {}
    unsigned meta_group_rank() const { return part; }
    unsigned meta_group_size() const { return parts; }
};
static inline coalesced_group coalesced_threads(DLS_HERE)
{
    return coalesced_group(dls_simt_active_mask(file, line));
}

template <unsigned N, class Parent = void> class thread_block_tile;
template <unsigned N> class thread_block_tile<N, void> : public dls_lanes {
    static_assert(N >= 1 && N <= 32 && (N & (N - 1)) == 0, "1, 2, 4, 8, 16 or 32 lanes");
    unsigned part, parts;

public:
    thread_block_tile(unsigned first, unsigned rank, unsigned count)
        : dls_lanes((N == 32 ? ~0u : (1u << N % 32) - 1) << first), part(rank),
          parts(count) {}
    static constexpr unsigned num_threads() { return N; }
    static constexpr unsigned size() { return N; }
    unsigned meta_group_rank() const { return part; }
    unsigned meta_group_size() const { return parts; }
    template <class T> T shfl_xor(T v, unsigned with, DLS_HERE) const
    {
        return from_lane(v, lane_of(thread_rank() ^ with), file, line);
    }
};
template <unsigned N, class Parent>
class thread_block_tile : public thread_block_tile<N, void> {
public:
    using thread_block_tile<N, void>::thread_block_tile;
};
/* define any group */
class thread_group {
    unsigned mask = 0;

public:
    thread_group(const thread_block &) {}
    thread_group(const dls_lanes &lanes) : mask(lanes.dls_mask()) {}
    unsigned num_threads() const
    {
        return mask ? coalesced_group(mask).size() : thread_block::size();
    }
    unsigned size() const { return num_threads(); }
    unsigned thread_rank() const
    {
        return mask ? coalesced_group(mask).thread_rank() : thread_block::thread_rank();
    }
    void sync(DLS_HERE) const
    {
        if (mask)
            __syncwarp(mask, file, line);
        else
            dls_simt_barrier(file, line);
    }
};
template <class G> static inline void sync(const G &group, DLS_HERE)
{
    group.sync(file, line);
}
template <class G> static inline auto thread_rank(const G &group)
{
    return group.thread_rank();
}
template <class G> static inline auto group_size(const G &group) { return group.size(); }
/* partition groups */
template <unsigned N>
static inline thread_block_tile<N, thread_block> tiled_partition(const thread_block &)
{
    unsigned rank = threadIdx.linear;
    return {rank % 32 & ~(N - 1), rank / N, (thread_block::size() + N - 1) / N};
}

template <unsigned N, unsigned M, class P>
static inline thread_block_tile<N, thread_block_tile<M, P>>
tiled_partition(const thread_block_tile<M, P> &parent)
{
    static_assert(N <= M, "a part is not larger than the whole");
    return {threadIdx.linear % 32 & ~(N - 1), parent.thread_rank() / N, M / N};
}

/* Tiles of a size known at run time: the n-th `size` lanes of the group. */
template <class G> static inline coalesced_group dls_split(const G &parent, unsigned size)
{
    unsigned rank = parent.thread_rank(), own = rank / size, lanes = 0, r = 0;
    for (unsigned rest = parent.dls_mask(); rest; rest &= rest - 1, r++)
        lanes |= r / size == own ? rest & -rest : 0;
    return coalesced_group(lanes, own, (parent.size() + size - 1) / size);
}
static inline coalesced_group tiled_partition(const coalesced_group &g, unsigned size)
{
    return dls_split(g, size);
}
static inline thread_group tiled_partition(const thread_block &block, unsigned size)
{
    return dls_split(tiled_partition<32>(block), size);
}

template <class G, class L>
static inline coalesced_group labeled_partition(const G &group, L label, DLS_HERE)
{
    unsigned mask = group.dls_mask();
    unsigned own = __match_any_sync(mask, label, file, line);
    unsigned lane = threadIdx.linear % 32, first = (unsigned)__builtin_ctz(own);
    unsigned leaders = __ballot_sync(mask, lane == first, file, line);
    unsigned part = (unsigned)__builtin_popcount(leaders & ((1u << first) - 1));
    return coalesced_group(own, part, (unsigned)__builtin_popcount(leaders));
}

template <class G>
static inline coalesced_group binary_partition(const G &group, bool side, DLS_HERE)
{
    unsigned yes = __ballot_sync(group.dls_mask(), side, file, line);
    return coalesced_group(side ? yes : group.dls_mask() & ~yes, side, 2);
}
} // namespace cooperative_groups
#undef DLS_HERE
#endif
