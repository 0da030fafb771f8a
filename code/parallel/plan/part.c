/* code/parallel/plan/part.c: from chapters/07-planner-record.md. Edit the chapter, or edit here and run "make untangle". */
/* The algebra of parts, and the fold of a recording into one. */
#include "parallel/plan/part.h"

#include <math.h>
#include <stdlib.h>

/* put parts together */
dls_part dls_part_nothing(void)
{
    return (dls_part){.late = -INFINITY};
}

dls_part dls_part_then(dls_part a, dls_part b)
{
    return (dls_part){
        .device = a.device + b.device, .host = a.host + b.host,
        .late = fmax(a.late + b.device, a.host + b.late), .talk = a.talk + b.talk,
        .flops = a.flops + b.flops};
}

dls_part dls_part_times(dls_part a, int n)
{
    dls_part all = dls_part_nothing();
    for (; n > 0; n /= 2, a = dls_part_then(a, a))
        if (n % 2)
            all = dls_part_then(all, a);
    return all;
}

void dls_part_run(const dls_part *part, double *host, double *free)
{
    *free = fmax(*free + part->device, *host + part->late);
    *host += part->host;
}

/* play the notes */
enum { STREAMS = 64 };

/* How the notes are played: when the host begins (-INFINITY: it is far ahead), and
 * whether communication takes time. */
typedef struct play { double host, latency; int silent; } play;

/* The end of `stream`, whose device is free at 0. end[n]: room. */
static double play_notes(const dls_gpu_note *notes, int n, int stream, const play *how,
                         double *end)
{
    double free[STREAMS] = {0};
    for (int i = 0; i < n; i++) {
        const dls_gpu_note *o = &notes[i];
        double *at = &free[o->stream % STREAMS];
        double launched = how->host + o->enqueued + how->latency;
        int waits = o->type == DLS_NOTE_WAIT;
        double from = waits ? o->awaited < 0 ? 0 : end[o->awaited] : launched;
        int still = how->silent && o->kind == DLS_GPU_COMMUNICATION;
        end[i] = *at = fmax(*at, from) + (still || waits ? 0 : o->duration);
    }
    return free[stream % STREAMS];
}

/* fold a recording */
dls_status dls_part_fold(const dls_gpu_note *notes, int n, double host, int stream,
                         double latency, dls_part *out)
{
    const play ahead = {-INFINITY, latency, 0}, silent = {-INFINITY, latency, 1};
    const play behind = {0, latency, 0};
    double *end = calloc((size_t)n + 1, sizeof *end);
    if (!end)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory to fold %d operations", n);
    *out = dls_part_nothing();
    out->host = host;
    if (n > 0) {
        out->device = play_notes(notes, n, stream, &ahead, end);
        out->talk = out->device - play_notes(notes, n, stream, &silent, end);
        out->late = play_notes(notes, n, stream, &behind, end);
    }
    for (int i = 0; i < n; i++)
        out->flops += notes[i].flops;
    free(end);
    return DLS_OK;
}
