/* code/train/search.h: from chapters/07-planner-search.md. Edit the chapter, or edit here and run "make untangle". */
/* The best layout of a model on a cluster: all that can be, the promising ones played. */
#ifndef DLS_TRAIN_SEARCH_H
#define DLS_TRAIN_SEARCH_H

#include "train/predict.h"

#ifdef __cplusplus
extern "C" {
#endif

/* define the search of a layout */
/* A layout that was found: the run it is, what it takes. */
typedef struct dls_found {
    dls_train_config c;
    double bound;           // s: a step is hardly ever shorter
    dls_predicted is;
    size_t bytes;           // of the rank that has most
} dls_found;

enum { DLS_FOUND_MOST = 32 };

typedef struct dls_layout_search {
    const dls_train_config *base;   // model, batch, type; the rest is looked for
    int world;
    double memory;          // bytes that a rank may take
    int wanted;             // how many of the best are to be kept
    /* what came out */
    dls_found best[DLS_FOUND_MOST]; // the best first
    int found;
    int64_t considered, refused, too_large, played; // layouts
} dls_layout_search;

/* declare the search of a layout */
/* Finds the layouts with the shortest steps that fit. DLS_ERR_INPUT: none does, with the
 * one that came nearest. */
dls_status dls_search_layouts(dls_planner *planner, dls_layout_search *s);

/* "tp 8, pp 16, dp 8, micro-batch 1, interleaved x 3, zero1". */
enum { DLS_LAYOUT_TEXT = 160 };
void dls_layout_text(const dls_train_config *c, char text[DLS_LAYOUT_TEXT]);

#ifdef __cplusplus
}
#endif
#endif
