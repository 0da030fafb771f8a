/* code/vgpu/graph.h: from chapters/A-virtual-gpu-graphs.md. Edit the chapter, or edit here and run "make untangle". */
/* Private to code/vgpu, virtual backend: what a graph consists of. */
#ifndef DLS_VGPU_GRAPH_H
#define DLS_VGPU_GRAPH_H

#include "vgpu/vgpu_internal.h"

/* describe a graph */
enum { LANES = 32 };

typedef struct entry {
    dls_vgpu_type type;
    int lane, previous; // the entry before it in the lane, -1: none
    int target;         // WAIT: the RECORD that it waits for
    int after_work;     // some WORK comes before it: it starts after a gap
    dls_gpu_op op;
    void *arg;
    double duration;
} entry;

struct CUgraph_st {
    int refs; // the program's handle, every executable graph and every clone
    struct CUgraph_st *original; // of a clone: it owns the arguments
    entry *entries;
    int count, capacity;
    int lanes;
    struct lane { int last, worked; } lane[LANES]; // last entry or -1
};

struct CUgraphExec_st {
    struct CUgraph_st *graph;
    cudaStream_t branch[LANES]; // [0] unused: the launching stream
    dls_vgpu_mark *last;        // of the latest launch
};

void dls_vgpu_graph_drop(struct CUgraph_st *g); // one reference less

#endif
