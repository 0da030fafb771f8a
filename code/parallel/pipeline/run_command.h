/* code/parallel/pipeline/run_command.h: from chapters/05-pipeline-runtime-measured.md. Edit the chapter, or edit here and run "make untangle". */
/* dls pipeline: a GPT's pipeline, timed on the virtual clock beside its evaluation. */
#ifndef DLS_PARALLEL_PIPELINE_RUN_COMMAND_H
#define DLS_PARALLEL_PIPELINE_RUN_COMMAND_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A subcommand as in cli/command.h. Every rank of the job runs it. */
dls_status dls_pipeline_command(int argc, char **argv, int *exit_code);

#ifdef __cplusplus
}
#endif
#endif
