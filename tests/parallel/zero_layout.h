/* tests/parallel/zero_layout.h: from chapters/04-data-parallelism-zero-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* ZeRO as a layout, for tests. */
#ifndef DLS_TESTS_PARALLEL_ZERO_LAYOUT_H
#define DLS_TESTS_PARALLEL_ZERO_LAYOUT_H

#include "layouts.h"
#include "parallel/data/zero.h"

/* A layout with these options (kept by pointer); its adamw comes from the proof. */
layout zero_layout(const char *name, const dls_zero_options *options);

/* One step over the passes of `rows`. */
dls_status zero_layout_step(dls_zero *z, const layout_rows *rows, double lr,
                            int64_t step);

#endif
