/* code/comm/fault.c: from chapters/04-data-parallelism-faults.md. Edit the chapter, or edit here and run "make untangle". */
/* Faults to order, for tests and for the reports in the book: three of the machine's,
 * before a call, and three of a program's, in a collective. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/comm_private.h"

/* read the fault */
static const char *const faults[] = {"", "kill", "stop", "spin", "skip", "count", "type"};
enum { NO_FAULT, KILL, STOP, SPIN, SKIP, COUNT, TYPE, FAULTS };

static int fault;           // the one that is still to come
static uint64_t fault_call; // instead of which call

static int fault_named(const char *name)
{
    for (int i = 1; i < FAULTS; i++)
        if (strcmp(faults[i], name) == 0)
            return i;
    return NO_FAULT;
}

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
    int which = fault_named(kind);
    if (n != 3 || which == NO_FAULT || victim < 0 || call < 1)
        return DLS_FAIL(DLS_ERR_INPUT, "DLS_FAULT=%s: expected kill, stop, spin, skip, "
                        "count or type, a rank and the number of its call, as in "
                        "kill:2:40", text);
    fault = rank == victim ? which : NO_FAULT;
    fault_call = call;
    return DLS_OK;
}

/* meet the fault */
void dls_fault_meet(uint64_t call)
{
    static volatile unsigned turns;
    if (fault == NO_FAULT || fault > SPIN || call != fault_call)
        return;
    if (fault == SPIN)
        for (;;)
            turns++;
    raise(fault == KILL ? SIGKILL : SIGSTOP);
}

/* err in a collective */
static int same_width(int dtype)
{
    return dls_comm_type_size(dtype) == 8 ? DLS_COMM_I64
           : dls_comm_type_size(dtype) == 4 ? DLS_COMM_I32 : DLS_COMM_F16;
}

int dls_fault_err(uint64_t call, size_t *count, int *dtype)
{
    int now = fault;
    if (now < SKIP || call < fault_call)
        return 0;
    fault = NO_FAULT;
    if (now == COUNT && *count > 0)
        --*count;
    if (now == TYPE)
        *dtype = same_width(*dtype);
    return now == SKIP;
}
