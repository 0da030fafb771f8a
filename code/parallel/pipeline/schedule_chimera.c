/* code/parallel/pipeline/schedule_chimera.c: from chapters/05-pipeline-schedules.md. Edit the chapter, or edit here and run "make untangle". */
/* Chimera: two pipelines through the same ranks, one down and one up, so that the one
 * works while the other would wait. Even micro-batches go down. Li and Hoefler 2021.
 */
#include "parallel/pipeline/schedules.h"

/* what a rank does in a slot */
/* In slots of one pass each, a rank does every second slot, from slot `rank` on, forward
 * down and backward up, half a unit of each in turn; in the others, from slot
 * ranks - 1 - rank on, forward up and backward down. A unit is `ranks` micro-batches. */
static dls_status add_slot(const dls_schedule_options *o, int rank, int slot,
                           dls_actions *out)
{
    int mirror = o->ranks - 1 - rank, other = (slot - rank) % 2 != 0;
    int q = slot - (other ? mirror : rank), half = o->ranks / 2;
    if (q < 0)
        return DLS_OK;
    int nth = q / 2 % o->ranks, backward = nth >= half, up = other != backward;
    int microbatch = q / 2 / o->ranks * o->ranks + 2 * (nth % half) + up;
    if (microbatch >= o->microbatches)
        return DLS_OK;
    return dls_actions_add(out, backward ? DLS_DO_B : DLS_DO_F, up ? mirror : rank,
                           microbatch);
}

/* merge the two directions */
dls_status dls_schedule_chimera(const dls_schedule_options *o, int rank,
                                dls_actions *out)
{
    int units = (o->microbatches + o->ranks - 1) / o->ranks;
    if (o->ranks % 2)
        return DLS_FAIL(DLS_ERR_INPUT, "chimera: expected an even number of ranks, so "
                        "that the two directions take turns, got %d", o->ranks);
    for (int slot = 0; slot < (2 * units + 1) * o->ranks - 2; slot++)
        DLS_TRY(add_slot(o, rank, slot, out));
    return DLS_OK;
}
