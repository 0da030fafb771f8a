/* code/parallel/pipeline/schedule_dualpipe.c: from chapters/08-dualpipe.md. Edit the chapter, or edit here and run "make untangle". */
/* DualPipe and DualPipeV: forward passes beside backward ones, in pairs, so that each
 * computes while the other one's messages are under way.
 *
 * DeepSeek-AI 2024, "DeepSeek-V3 Technical Report", section 3.2.1: micro-batches enter at
 * both ends. A rank has its *own* half of them, kind 0, which enter at the end that is
 * nearer, and those of the *other* half, kind 1, which reach it late, near their loss.
 * On a V the two kinds are the two chunks of a rank.
 */
#include "parallel/pipeline/schedules.h"

/* count the passes of two kinds */
typedef struct dual {
    int far, distance, count;         // far: ranks up to the turn, this one's number
    int stage[2], first[2], stride;   // of kind 0 and 1: its k-th is first + k * stride
    int forward[2], backward[2];      // how many are done
    size_t weights;                   // of the list: no I before it lacks its W
    dls_actions *out;
} dual;
/* The next F, I or B of a kind. */
static dls_status add(dual *d, dls_action_kind kind, int of)
{
    int k = kind == DLS_DO_F ? d->forward[of]++ : d->backward[of]++;
    return dls_actions_add(d->out, kind, d->stage[of], d->first[of] + k * d->stride);
}

/* The W of the first I that has none yet. */
static dls_status add_weights(dual *d)
{
    while (d->out->list[d->weights].kind != DLS_DO_I)
        d->weights++;
    dls_action of = d->out->list[d->weights++];
    return dls_actions_add(d->out, DLS_DO_W, of.stage, of.microbatch);
}

/* play a phase of pairs */
/* Plays "F0+B1 W" `times` times: F of kind 0 paired with B of kind 1, then a W. */
static dls_status play(dual *d, int times, const char *phase)
{
    for (int i = 0; i < times; i++)
        for (const char *at = phase; *at; at += *at != 0) {
            dls_action_kind kind = *at == 'F' ? DLS_DO_F : *at == 'I' ? DLS_DO_I
                                                                      : DLS_DO_B;
            DLS_TRY(*at == 'W' ? add_weights(d) : add(d, kind, at[1] - '0'));
            at += *at == 'W' ? 1 : 2;
            if (*at == '+')
                dls_actions_pair(d->out);
        }
    return DLS_OK;
}

/* go through eight phases */
static dls_status go(dual *d)
{
    int inner = d->far - 1 - d->distance, outer = d->distance + 1;
    DLS_TRY(play(d, 2 * inner, "F0"));
    DLS_TRY(play(d, outer, "F0 F1"));
    DLS_TRY(play(d, inner, "I1 W F1"));
    DLS_TRY(play(d, 1, inner ? "F0+B1 F1+B0" : "F0 B1 F1+B0"));
    DLS_TRY(play(d, d->count - 2 * d->far + d->distance, "F0+B1 F1+B0"));
    DLS_TRY(play(d, inner, "B1 F1+B0"));
    DLS_TRY(play(d, outer / 2, "B1 B0"));
    DLS_TRY(play(d, outer % 2, "B1 I0"));
    DLS_TRY(play(d, outer / 2, "I1 I0"));
    DLS_TRY(play(d, inner, "W I0"));
    return play(d, outer, "W");
}

/* feed both ends */
dls_status dls_schedule_dualpipe(const dls_schedule_options *o, int rank,
                                 dls_actions *out)
{
    int mirror = o->ranks - 1 - rank, up = rank > mirror, least = 2 * o->ranks;
    int h = up ? mirror : rank, n = o->microbatches;
    if (o->ranks % 2)
        return DLS_FAIL(DLS_ERR_INPUT, "dualpipe: expected an even number of stages, "
                        "since each pair of ranks holds the same two, got %d: the "
                        "nearest is %d", o->ranks, o->ranks + 1);
    if (n % 2 || n < least)
        return DLS_FAIL(DLS_ERR_INPUT, "dualpipe: expected an even number of "
                        "micro-batches from %d on, 2 x %d stages, got %d: the nearest "
                        "is %d", least, o->ranks, n, n < least ? least : n + 1);
    dual d = {.far = o->ranks / 2, .distance = h, .count = n / 2,
              .stage = {h, o->ranks - 1 - h}, .first = {up, !up}, .stride = 2,
              .out = out};
    return go(&d);
}

/* cut dualpipe in half */
dls_status dls_schedule_dualpipev(const dls_schedule_options *o, int rank,
                                  dls_actions *out)
{
    int least = 2 * o->ranks;
    if (o->microbatches < least)
        return DLS_FAIL(DLS_ERR_INPUT, "dualpipev: expected micro-batches from %d on, "
                        "2 x %d stages, got %d: the nearest is %d", least, o->ranks,
                        o->microbatches, least);
    dual d = {.far = o->ranks, .distance = rank, .count = o->microbatches,
              .stage = {rank, 2 * o->ranks - 1 - rank}, .stride = 1, .out = out};
    return go(&d);
}
