/* code/parallel/pipeline/schedules.c: from chapters/05-pipeline-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The table of schedules: a new one is a file and a line here. */
#include "parallel/pipeline/schedules.h"

#include <string.h>

/* name, summary, generate, plan, placement, chunks, step_every */
static const dls_schedule_entry entries[] = {
    /* list the schedules */
    {"gpipe", "all forward, then all backward", dls_schedule_gpipe, NULL,
     DLS_PLACE_LOOP, 1, 0},
    {"1f1b", "one forward, one backward: at most p in memory", dls_schedule_1f1b, NULL,
     DLS_PLACE_LOOP, 1, 0},
    {"1f1b-eager", "1f1b with twice the warm-up: hides the latency",
     dls_schedule_1f1b_eager, NULL, DLS_PLACE_LOOP, 1, 0},
    {"interleaved", "1f1b over several chunks: a smaller bubble",
     dls_schedule_interleaved, NULL, DLS_PLACE_LOOP, 0, 0},
    {"interleaved-lean", "the same with half the warm-up: less memory, more latency",
     dls_schedule_interleaved_lean, NULL, DLS_PLACE_LOOP, 0, 0},
    {"bfs", "all micro-batches through chunk after chunk", dls_schedule_bfs, NULL,
     DLS_PLACE_LOOP, 0, 0},
    {"chimera", "two pipelines in opposite directions, weights twice",
     dls_schedule_chimera, NULL, DLS_PLACE_BOTH, 1, 0},
    {"pipedream", "1f1b that steps after every micro-batch, weights stashed",
     dls_schedule_pipedream, NULL, DLS_PLACE_LOOP, 1, 1},
    {"pipedream-vertical", "the same, one version for all stages of a micro-batch",
     dls_schedule_pipedream, NULL, DLS_PLACE_LOOP, 1, 1},
    {"pipedream-2bw", "1f1b that steps after every group, two versions of the weights",
     dls_schedule_pipedream_2bw, NULL, DLS_PLACE_LOOP, 1, -1},
    {"forward-only", "inference and evaluation: no backward", dls_schedule_forward_only,
     NULL, DLS_PLACE_LOOP, 0, 0},
    /* list the zero bubble schedules */
    {"zb-h1", "1f1b with W where a rank would wait: memory of 1f1b", dls_schedule_zb_h1,
     NULL, DLS_PLACE_LOOP, 1, 0},
    {"zb-h2", "the same with twice the warm-up and the memory", dls_schedule_zb_h2, NULL,
     DLS_PLACE_LOOP, 1, 0},
    {"interleaved-zb", "zb-h1 over several chunks", dls_schedule_zb_h1, NULL,
     DLS_PLACE_LOOP, 0, 0},
    {"zb-v", "two chunks on a V: no bubble in the memory of 1f1b", dls_schedule_zb_v, NULL,
     DLS_PLACE_V, 2, 0},
    {"v-half", "on a V, half the memory", NULL, dls_schedule_v_half, DLS_PLACE_V, 2, 0},
    {"v-min", "on a V, a third of the memory", NULL, dls_schedule_v_min, DLS_PLACE_V, 2, 0},
    {"zb-auto", "made for these costs, in a limit of memory (2p)", NULL, dls_schedule_auto,
     DLS_PLACE_LOOP, 1, 0},
    {"zb-exact", "the best there is, for small cases", NULL, dls_schedule_exact,
     DLS_PLACE_LOOP, 1, 0},
    /* list the schedules of pairs */
    {"dualpipe", "fed from both ends, F beside B, weights twice", dls_schedule_dualpipe,
     NULL, DLS_PLACE_BOTH, 1, 0},
    {"dualpipev", "half of dualpipe, on a V: weights once", dls_schedule_dualpipev, NULL,
     DLS_PLACE_V, 2, 0},
};

const dls_schedule_entry *dls_schedule_at(int i)
{
    return i >= 0 && i < (int)(sizeof entries / sizeof *entries) ? &entries[i] : NULL;
}

const dls_schedule_entry *dls_schedule_find(const char *name)
{
    for (int i = 0; dls_schedule_at(i); i++)
        if (strcmp(entries[i].name, name) == 0)
            return &entries[i];
    return NULL;
}
