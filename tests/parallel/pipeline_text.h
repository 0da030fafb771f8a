/* tests/parallel/pipeline_text.h: from chapters/05-pipeline-evaluate-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* Schedules for tests, written as CSV. */
#ifndef PIPELINE_TEXT_H
#define PIPELINE_TEXT_H

#include "parallel/pipeline/schedule.h"

/* Asserts that the text can be read. */
dls_schedule schedule_of(const char *csv);

/* The CSV of a schedule; the caller frees it. */
char *text_of(const dls_schedule *s);

#endif
