/* code/vgpu/gpu_virtual_graph_nodes.c: from chapters/A-virtual-gpu-calls.md. Edit the chapter, or edit here and run "make untangle". */
/* Captured graphs looked at as nodes: counting, copying, updating. */
#include "vgpu/graph.h"

#include <stdlib.h>
#include <string.h>

/* list the nodes */
/* Is there an operation on some way back from entry i? */
static int has_work_before(const struct CUgraph_st *g, int i)
{
    const entry *e = &g->entries[i];
    const int before[2] = {e->previous, e->target};
    for (int k = 0; k < 2; k++)
        if (before[k] >= 0 && (g->entries[before[k]].type == DLS_VGPU_WORK ||
                               has_work_before(g, before[k])))
            return 1;
    return 0;
}

static cudaError_t list_nodes(cudaGraph_t g, cudaGraphNode_t *nodes, size_t *count,
                              int roots_only)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (g == NULL || count == NULL))
        error = cudaErrorInvalidValue;
    size_t found = 0;
    for (int i = 0; !error && i < g->count; i++) {
        if (g->entries[i].type != DLS_VGPU_WORK || (roots_only && has_work_before(g, i)))
            continue;
        if (nodes && found < *count)
            nodes[found] = (cudaGraphNode_t)&g->entries[i];
        found++;
    }
    for (size_t i = found; !error && nodes && i < *count; i++)
        nodes[i] = NULL;
    if (!error && (nodes == NULL || found < *count))
        *count = found;
    return dls_vgpu_leave(error);
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count)
{
    return list_nodes(graph, nodes, count, 0);
}

cudaError_t cudaGraphGetRootNodes(cudaGraph_t graph, cudaGraphNode_t *nodes,
                                  size_t *count)
{
    return list_nodes(graph, nodes, count, 1);
}

static enum cudaGraphNodeType type_of(const entry *e)
{
    if (e->op.kind == DLS_GPU_HOST)
        return cudaGraphNodeTypeHost;
    if (e->op.kind != DLS_GPU_COPY)
        return cudaGraphNodeTypeKernel;
    return strcmp(e->op.name, "memset") == 0 ? cudaGraphNodeTypeMemset
                                             : cudaGraphNodeTypeMemcpy;
}

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, enum cudaGraphNodeType *type)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (node == NULL || type == NULL))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        *type = type_of((const entry *)node);
    return dls_vgpu_leave(error);
}

/* copy a graph */
cudaError_t cudaGraphClone(cudaGraph_t *clone, cudaGraph_t original)
{
    struct CUgraph_st *g = NULL;
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (clone == NULL || original == NULL))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess) {
        size_t bytes = ((size_t)original->count + 1) * sizeof *g->entries;
        g = malloc(sizeof *g);
        entry *entries = malloc(bytes);
        if (g == NULL || entries == NULL) {
            free(g);
            free(entries);
            return dls_vgpu_leave(cudaErrorMemoryAllocation);
        }
        *g = *original;
        memcpy(entries, original->entries, bytes - sizeof *entries);
        for (int i = 0; i < g->count; i++)
            entries[i].op.destroy = NULL;
        g->entries = entries;
        g->capacity = g->count + 1;
        g->refs = 1;
        g->original = original;
        original->refs++;
        *clone = g;
    }
    return dls_vgpu_leave(error);
}

/* update an executable graph */
static cudaGraphExecUpdateResult compare(const struct CUgraph_st *a,
                                         const struct CUgraph_st *b, int *at)
{
    *at = 0;
    if (a->count != b->count || a->lanes != b->lanes)
        return cudaGraphExecUpdateErrorTopologyChanged;
    for (int i = 0; i < a->count; i++) {
        const entry *x = &a->entries[i], *y = &b->entries[i];
        *at = i;
        if (x->type != y->type || x->lane != y->lane || x->previous != y->previous ||
            x->target != y->target)
            return cudaGraphExecUpdateErrorTopologyChanged;
        if (x->type == DLS_VGPU_WORK && type_of(x) != type_of(y))
            return cudaGraphExecUpdateErrorNodeTypeChanged;
    }
    return cudaGraphExecUpdateSuccess;
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo *info)
{
    int at = 0;
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && (exec == NULL || graph == NULL || info == NULL))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess) {
        *info = (cudaGraphExecUpdateResultInfo){.result = compare(exec->graph, graph,
                                                                  &at)};
        if (info->result != cudaGraphExecUpdateSuccess) {
            error = cudaErrorGraphExecUpdateFailure;
            if (at < graph->count)
                info->errorNode = (cudaGraphNode_t)&graph->entries[at];
        }
    }
    if (error == cudaSuccess)
        error = dls_vgpu_finish(exec->last, 0); // the old arguments may be in use
    if (error == cudaSuccess && exec->graph != graph) {
        graph->refs++;
        dls_vgpu_graph_drop(exec->graph);
        exec->graph = graph;
    }
    return dls_vgpu_leave(error);
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph,
                                          unsigned long long flags)
{
    return cudaGraphInstantiate(exec, graph, flags);
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && exec == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && dls_vgpu_stream(stream) == NULL)
        error = cudaErrorInvalidResourceHandle;
    return dls_vgpu_leave(error); // everything is where it is needed
}
