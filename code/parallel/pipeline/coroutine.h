/* code/parallel/pipeline/coroutine.h: from chapters/08-dualpipe-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* A function that stops in its midst and goes on later, on a stack of its own.
 *
 *   resumer    ──resume──┐        ┌── resume ──┐         ┌── alive: 0, result
 *   coroutine            └─ yield─┘            └─ return ┘
 */
#ifndef DLS_PARALLEL_PIPELINE_COROUTINE_H
#define DLS_PARALLEL_PIPELINE_COROUTINE_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* declare the coroutines */
typedef struct dls_coroutine dls_coroutine;
typedef dls_status dls_coroutine_body(void *arg);

/* One with a stack, for one body after the other. Free when none is under way. */
dls_status dls_coroutine_create(dls_coroutine **out);
void dls_coroutine_free(dls_coroutine *c);

/* Puts it before the first line of body(arg). DLS_ERR_STATE: another is under way. */
dls_status dls_coroutine_start(dls_coroutine *c, dls_coroutine_body *body, void *arg);

/* Runs it until it yields or ends; yield returns `with` there. */
void dls_coroutine_resume(dls_coroutine *c, dls_status with);

/* 1: it has not come to its end; what the body has returned. */
int dls_coroutine_alive(const dls_coroutine *c);
dls_status dls_coroutine_result(const dls_coroutine *c);

/* Called inside: back to who resumed. Outside of any coroutine: DLS_OK, at once. */
dls_status dls_coroutine_yield(void);

#ifdef __cplusplus
}
#endif
#endif
