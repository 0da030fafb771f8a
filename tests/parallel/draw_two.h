/* tests/parallel/draw_two.h: from chapters/06-sequence-parallelism-overlap.md. Edit the chapter, or edit here and run "make untangle". */
/* The timelines of two ranks, STEM-0.json and STEM-1.json, as one picture, STEM.svg. */
#ifndef DLS_TESTS_PARALLEL_DRAW_TWO_H
#define DLS_TESTS_PARALLEL_DRAW_TWO_H

#include <stdio.h>

#include "vgpu/trace.h"

static dls_status draw_two(const char *stem)
{
    char paths[2][256], svg[256];
    const char *list[2] = {paths[0], paths[1]};
    for (int i = 0; i < 2; i++)
        snprintf(paths[i], sizeof paths[i], "%s-%d.json", stem, i);
    snprintf(svg, sizeof svg, "%s.svg", stem);
    return dls_trace_merge(list, 2, NULL, svg, 0, 0);
}

#endif
