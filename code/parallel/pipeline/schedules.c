/* code/parallel/pipeline/schedules.c: from chapters/05-pipeline-parallelism.md. Edit the chapter, or edit here and run "make untangle". */
/* The table of schedules: a new one is a file and a line here. */
#include "parallel/pipeline/schedules.h"

#include <string.h>

/* name, summary, generate, plan, placement, chunks, step_every */
static const dls_schedule_entry entries[] = {
    /* list the schedules */
    {"gpipe", "all forward, then all backward", dls_schedule_gpipe, NULL,
     DLS_PLACE_LOOP, 1, 0},
    /* list the zero bubble schedules */
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
