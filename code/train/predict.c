/* code/train/predict.c: from chapters/07-planner-time.md. Edit the chapter, or edit here and run "make untangle". */
/* Causes: what a step would gain without each. */
#include "train/predict.h"

/* name the causes */
const char *dls_cause_name(dls_cause cause)
{
    static const char *const name[DLS_CAUSES] = {
        "compute", "recompute", "update", "bubble", "tensor", "data", "hops", "launch"};
    return name[cause];
}

/* add up the passes */
/* The passes and the update of the mean rank, without any wait; and what all execute. */
static void add_up(const dls_step_costs *k, double *passes, double *update,
                   double *flops)
{
    const dls_schedule *s = &k->schedule;
    int n = s->options.ranks, whole = k->microbatches - 1;
    *passes = *update = *flops = 0;
    for (int i = 0; i < s->stages; i++) {
        const dls_planned_unit *f = &k->stage[i].full, *r = &k->stage[i].rest;
        *passes += (whole * (f->F.device + f->B.device - f->F.talk - f->B.talk)
                    + r->F.device + r->B.device - r->F.talk - r->B.talk) / n;
        double share = k->c->sharded && k->stage[i].sums
            ? 1.0 / k->ways : 1;
        *update += (f->clear.device + share * (f->square.device + f->apply.device)) / n;
        *flops += whole * (f->F.flops + f->B.flops) + r->F.flops + r->B.flops;
    }
    *flops *= dls_mesh_group_size(&k->mesh, DLS_BIT(DLS_AXIS_TP) | DLS_BIT(DLS_AXIS_CP))
        * (double)k->mesh.size[DLS_AXIS_DP];
}

/* take the causes away one by one */
static dls_status find_causes(const dls_step_costs *k, dls_predicted *out)
{
    static const struct { dls_cause cause; int without; } gone[] = {
        {DLS_CAUSE_LAUNCH, DLS_WITHOUT_LAUNCHES}, {DLS_CAUSE_DATA, DLS_WITHOUT_DATA},
        {DLS_CAUSE_TENSOR, DLS_WITHOUT_TALK}, {DLS_CAUSE_HOPS, DLS_WITHOUT_HOPS}};
    double passes, left = out->seconds, now;
    int without = 0;
    for (int i = 0; i < 4; i++) {
        without |= gone[i].without;
        DLS_TRY(dls_predict_play(k, without, &now));
        out->cause[gone[i].cause] = left - now;
        left = now;
    }
    add_up(k, &passes, &out->cause[DLS_CAUSE_UPDATE], &out->flops);
    out->cause[DLS_CAUSE_COMPUTE] = passes;
    out->cause[DLS_CAUSE_BUBBLE] = left - passes - out->cause[DLS_CAUSE_UPDATE];
    return DLS_OK;
}

/* The same passes of the model that keeps everything. */
static dls_status find_recomputation(dls_planner *planner, const dls_train_config *c,
                                     int world, dls_predicted *out)
{
    dls_train_config keeps = *c;
    dls_step_costs k;
    double passes, update;
    keeps.model.recompute = DLS_RECOMPUTE_NONE;
    out->model_flops = out->flops;
    if (c->model.recompute == DLS_RECOMPUTE_NONE
        || dls_predict_costs(planner, &keeps, world, &k) != DLS_OK)
        return DLS_OK;          // it would not fit: nothing to compare with
    add_up(&k, &passes, &update, &out->model_flops);
    out->cause[DLS_CAUSE_RECOMPUTE] = out->cause[DLS_CAUSE_COMPUTE] - passes;
    out->cause[DLS_CAUSE_COMPUTE] = passes;
    dls_predict_costs_free(&k);
    return DLS_OK;
}

dls_status dls_predict_step(dls_planner *planner, const dls_train_config *c, int world,
                            dls_predicted *out)
{
    dls_step_costs k;
    *out = (dls_predicted){0};
    DLS_TRY(dls_predict_costs(planner, c, world, &k));
    dls_status s = dls_predict_play(&k, 0, &out->seconds);
    if (s == DLS_OK)
        s = find_causes(&k, out);
    if (s == DLS_OK)
        s = find_recomputation(planner, c, world, out);
    dls_work work = c->dtype == DLS_BF16 ? DLS_WORK_GEMM_BF16
        : c->dtype == DLS_F64 ? DLS_WORK_GEMM_F64 : DLS_WORK_GEMM_F32;
    out->mfu = out->model_flops
        / (out->seconds * world * dls_cluster_peak(&k.device, work));
    dls_predict_costs_free(&k);
    return s;
}
