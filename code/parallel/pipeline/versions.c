/* code/parallel/pipeline/versions.c: from chapters/05-pipeline-schedules-asynchronous.md. Edit the chapter, or edit here and run "make untangle". */
/* The version rules of PipeDream, with and without vertical sync, and of 2BW. */
#include "parallel/pipeline/versions.h"

#include <string.h>

/* say how late the weights are */
/* In optimizer steps, behind the weights that training one by one would use. */
static int lateness(const dls_schedule *s, int stage)
{
    if (s->step_every == 0)
        return 0;
    if (strcmp(s->options.name, "pipedream-2bw") == 0)
        return 1;
    if (strcmp(s->options.name, "pipedream-vertical") == 0)
        return s->options.ranks - 1;
    return s->options.ranks - 1 - stage;
}

/* number the version */
int dls_schedule_version(const dls_schedule *s, int stage, int microbatch)
{
    if (s->step_every == 0)
        return 0;
    int version = microbatch / s->step_every - lateness(s, stage);
    return version > 0 ? version : 0;
}

int dls_schedule_versions_held(const dls_schedule *s, int stage)
{
    return lateness(s, stage) + 1;
}
