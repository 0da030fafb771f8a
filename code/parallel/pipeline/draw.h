/* code/parallel/pipeline/draw.h: from chapters/05-pipeline-pictures.md. Edit the chapter, or edit here and run "make untangle". */
/* The picture of a pipeline, planned or measured: as SVG, and as text for a terminal.
 *
 *   rank 0   F0 F1 F2 F3 .. .. .. .. B0 == F4 ...      a row per rank, time to the right
 *   memory   _/-----\___/------                        what its forward passes hold
 *   axis     0        5        10
 *
 * Everything is computed in integers: a page and a program draw the same bytes. */
#ifndef DLS_PARALLEL_PIPELINE_DRAW_H
#define DLS_PARALLEL_PIPELINE_DRAW_H

#include "parallel/pipeline/evaluate.h"
#include "parallel/pipeline/text.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare a box */
typedef struct dls_box {
    int64_t start, end;           // ticks
    int rank, stage, microbatch;  // microbatch -1: belongs to none, a step or a reduction
    uint8_t kind;                 // dls_action_kind; sends and receives are not drawn
    uint8_t shade;                // which chunk of its rank: 0, 1 ...
    uint8_t half;                 // 1, 2: the upper and lower of two that run overlapped
} dls_box;

/* declare a drawing */
typedef struct dls_drawing {
    const char *title;
    const dls_box *boxes;  // rank after rank, each by start
    size_t count;
    int ranks, shades;     // shades: chunks of a rank, or directions
    const char *lighter;   // for the legend; NULL: "lighter: later chunks"
    int64_t unit;          // ticks of one unit of the axis, > 0
    const char *unit_name; // "" for units of cost, else "ms" ...
    int64_t hold, keep;    // memory of a forward pass, and how much of it I leaves to W
    int64_t one;           // memory called 1 in the picture; 0: no memory is drawn
    int64_t ideal;         // work of the busiest rank; 0: sum up what is drawn
    int64_t until;         // last time of the axis; 0: where the last box ends
    int width;             // of the picture in pixels, up to 4800; 0: 960
} dls_drawing;

/* declare what a drawing says */
typedef struct dls_draw_totals {
    int64_t from, to;   // first start and last end of all that is drawn
    int64_t first, last; // the same of F, I, W and B alone
    int64_t makespan;   // last - first
    int64_t span;       // the longest rank's, from its first pass to the end of its last
    int64_t ideal;      // work of the busiest rank
    int64_t step;       // every start and end is `from` plus a multiple of this
    int64_t peak;       // memory, of the rank that has most
    size_t drawn;       // boxes that are not messages
} dls_draw_totals;

/* DLS_ERR_INPUT for boxes out of order, of no rank, ending before they begin, or with
 * times beyond 2^43 ticks on either side of zero. */
dls_status dls_draw_total(const dls_drawing *d, dls_draw_totals *out);

/* Walks over one rank's memory: call with *w zeroed but for `rank`; 0 at the end. */
typedef struct dls_draw_walk {
    int rank, begun;
    size_t start, end, last; // boxes that begin and end next, and one past the rank's
    int64_t time, held;      // from `time` on, `held`
} dls_draw_walk;
int dls_draw_next(const dls_drawing *d, dls_draw_walk *w);

/* declare the two drawings */
/* Appends a whole SVG file; it has colours for light and dark, and no ids, so that
 * several can stand in one page. Many boxes become columns, see draw_svg.c. */
dls_status dls_draw_svg(const dls_drawing *d, dls_text *out);

/* Appends lines of at most `columns` characters; `colour`: with ANSI colours. */
dls_status dls_draw_terminal(const dls_drawing *d, int columns, int colour,
                             dls_text *out);

/* declare drawing a schedule */
/* A drawing of a schedule at these times, with units of a tick, and memory in activations
 * of a stage where a forward pass says what it holds. Its boxes are malloc'ed: free with
 * dls_draw_free. The title is the caller's to set; it is "" at first. */
dls_status dls_draw_schedule(const dls_schedule *s, const dls_evaluation *e,
                             dls_drawing *out);
void dls_draw_free(dls_drawing *d);

/* "zb-v: 4 ranks, 8 micro-batches, 2 chunks per rank". */
void dls_draw_title(const char *name, const dls_schedule *s, dls_text *out);

#ifdef __cplusplus
}
#endif
#endif
