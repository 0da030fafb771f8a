/* code/vgpu/check.h: from chapters/A-virtual-gpu-check.md. Edit the chapter, or edit here and run "make untangle". */
/* The checker of probed programs: finds wrong accesses and races, and explains them.
 *
 * A program started with DLS_CHECK=1 is checked from its first CUDA call to its end; then
 * the reports are printed and a run with errors ends with status DLS_CHECK_STATUS. A test
 * may start the checker itself and look at the reports.
 */
#ifndef DLS_VGPU_CHECK_H
#define DLS_VGPU_CHECK_H

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* declare the classes of reports */
typedef enum dls_check_class {
    DLS_CHECK_GLOBAL_BOUNDS, DLS_CHECK_SHARED_BOUNDS, DLS_CHECK_LOCAL_BOUNDS,
    DLS_CHECK_MISALIGNED, DLS_CHECK_UNINITIALISED, DLS_CHECK_AFTER_FREE,
    DLS_CHECK_DOUBLE_FREE, DLS_CHECK_INVALID_FREE, DLS_CHECK_LEAK,
    DLS_CHECK_HOST_ACCESS,   // the host touched device memory
    DLS_CHECK_HOST_MEMORY,   // a kernel touched the host's
    DLS_CHECK_SHARED_RACE, DLS_CHECK_GLOBAL_RACE, DLS_CHECK_STREAM_RACE,
    DLS_CHECK_BARRIER, DLS_CHECK_DEADLOCK, DLS_CHECK_MASK,
    DLS_CHECK_SOURCE_LANE, DLS_CHECK_NEVER_RECORDED, // these and the next are notes
    DLS_CHECK_API_ERROR, DLS_CHECK_LAUNCH_ERROR,
    DLS_CHECK_CLASSES
} dls_check_class;

typedef enum dls_check_severity {
    DLS_CHECK_NOTE, DLS_CHECK_WARNING, DLS_CHECK_ERROR
} dls_check_severity;
/* declare a report */
/* One of the two sides of a mistake. */
typedef struct dls_check_party {
    char what[160];          // "written by thread (3,0,0) of block (0,0,0)"
    const char *function, *file;
    int line;                // 0: the place is not known
    unsigned place;          // a number that becomes the three above when asked
} dls_check_party;

typedef struct dls_check_report {
    dls_check_class kind;
    dls_check_severity severity;
    unsigned long count;     // how often it was seen
    char title[200], memory[240], hint[240];
    dls_check_party here, there;   // there.what is empty where there is only one
    dls_check_party origin[2];     // where the memory was allocated, and freed
} dls_check_report;
/* declare the functions of the checker */
enum { DLS_CHECK_STATUS = 86 };

/* Before the first CUDA call of the process: 0, or -1 when it can not be done. */
int dls_check_start(void);
void dls_check_if_asked(void);   // the same when the environment has DLS_CHECK

unsigned dls_check_count(void);  // reports, notes included
const dls_check_report *dls_check_report_number(unsigned i);
void dls_check_forget(void);     // all of them
const char *dls_check_name(dls_check_class kind);

/* Looks for leaks and for launches that failed unseen. */
void dls_check_look_at_the_end(void);

/* All reports, as text or as JSON. Returns the number of errors and warnings. */
unsigned dls_check_print(FILE *out);
unsigned dls_check_print_json(FILE *out);

#ifdef __cplusplus
}
#endif
#endif
