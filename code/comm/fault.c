/* code/comm/fault.c: from chapters/04-data-parallelism-faults.md. Edit the chapter, or edit here and run "make untangle". */
/* Faults to order, for tests and for the reports in the book. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm_private.h"

/* read the fault */
static enum { NO_FAULT, KILL, STOP, SPIN } fault;
static uint64_t fault_call; // the one that it comes instead of

dls_status dls_fault_open(int rank)
{
    const char *text = getenv("DLS_FAULT"), *restart = getenv("DLS_RESTART");
    char kind[8] = "", end;
    int victim;
    unsigned long long call;
    fault = NO_FAULT;
    if (!text || !*text || (restart && atoi(restart) > 0))
        return DLS_OK;
    int n = sscanf(text, "%7[a-z]:%d:%llu%c", kind, &victim, &call, &end);
    int which = !strcmp(kind, "kill") ? KILL : !strcmp(kind, "stop") ? STOP
                : !strcmp(kind, "spin") ? SPIN : NO_FAULT;
    if (n != 3 || which == NO_FAULT || victim < 0 || call < 1)
        return DLS_FAIL(DLS_ERR_INPUT, "DLS_FAULT=%s: expected kill, stop or spin, a "
                        "rank and the number of its call, as in kill:2:40", text);
    fault = rank == victim ? which : NO_FAULT;
    fault_call = call;
    return DLS_OK;
}

/* meet the fault */
void dls_fault_meet(uint64_t call)
{
    static volatile unsigned turns;
    if (fault == NO_FAULT || call != fault_call)
        return;
    if (fault == SPIN)
        for (;;)
            turns++;
    raise(fault == KILL ? SIGKILL : SIGSTOP);
}
