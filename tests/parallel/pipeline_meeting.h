/* tests/parallel/pipeline_meeting.h: from chapters/05-pipeline-evaluate-tests.md. Edit the chapter, or edit here and run "make untangle". */
/* A second opinion on lowered schedules: ranks that meet at their messages. */
#ifndef PIPELINE_MEETING_H
#define PIPELINE_MEETING_H

#include "parallel/pipeline/schedule.h"

/* 1 when all ranks come to the end of their lists, every action has what it needs when
 * its turn comes, and every pass is done once. */
int meeting_ends(const dls_schedule *s);

#endif
