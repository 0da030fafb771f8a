/* code/parallel/pipeline/draw_internal.h: from chapters/05-pipeline-pictures.md. Edit the chapter, or edit here and run "make untangle". */
/* What the drawings share, and nobody else. */
#ifndef DLS_PARALLEL_PIPELINE_DRAW_INTERNAL_H
#define DLS_PARALLEL_PIPELINE_DRAW_INTERNAL_H

#include "parallel/pipeline/draw.h"

/* declare what the drawings share */
/* 0 F, 1 I, 2 W, 3 B, 4 another action that takes time, -1 a message. */
enum { DLS_DRAW_KINDS = 5 };
int dls_draw_kind(const dls_box *b);

#endif
