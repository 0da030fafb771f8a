/* code/parallel/mesh.c: from chapters/07-mesh.md. Edit the chapter, or edit here and run "make untangle". */
/* Coordinates and groups: positional notation, and nothing else. */
#include "parallel/mesh.h"

#include <stdio.h>
#include <string.h>

#include "parallel/pipeline/exact.h"

/* count along the axes */
const char *dls_axis_name(dls_axis axis)
{
    static const char *const names[] = {"tp", "cp", "pp", "dp", "etp", "ep", "edp"};
    return names[axis];
}

/* How far apart two neighbours along the axis are. */
static int distance(const dls_mesh *m, dls_axis axis)
{
    int far = 1;
    for (int i = 0; m->order[i] != axis; i++)
        far *= m->size[m->order[i]];
    return far;
}

int dls_mesh_world(const dls_mesh *m)
{
    int world = 1;
    for (int i = 0; i < DLS_AXES; i++)
        world *= m->size[i];
    return world;
}

/* fold the experts */
/* The number of a rank within its stage, in the order of the dense mesh. */
static int number_in_stage(const dls_mesh *m, int rank)
{
    int near = distance(m, DLS_AXIS_PP), stages = m->size[DLS_AXIS_PP];
    return rank % near + rank / (near * stages) * near;
}

static int expert_coordinate(const dls_mesh *m, int rank, dls_axis axis)
{
    int number = number_in_stage(m, rank);
    if (axis == DLS_AXIS_ETP)
        return number % m->etp;
    return axis == DLS_AXIS_EP ? number / m->etp % m->ep
                               : number / (m->etp * m->ep);
}

/* tell coordinates */
int dls_mesh_size(const dls_mesh *m, dls_axis axis)
{
    if (axis < DLS_AXES)
        return m->size[axis];
    if (axis == DLS_AXIS_EDP)
        return dls_mesh_world(m) / (m->size[DLS_AXIS_PP] * m->etp * m->ep);
    return axis == DLS_AXIS_ETP ? m->etp : m->ep;
}

int dls_mesh_coordinate(const dls_mesh *m, int rank, dls_axis axis)
{
    return axis < DLS_AXES ? rank / distance(m, axis) % m->size[axis]
                           : expert_coordinate(m, rank, axis);
}

int dls_mesh_rank(const dls_mesh *m, const int at[DLS_AXES])
{
    int rank = 0;
    for (int i = 0; i < DLS_AXES; i++)
        rank += at[i] * distance(m, (dls_axis)i);
    return rank;
}

/* gather groups */
enum {
    DENSE = DLS_BIT(DLS_AXES) - 1,
    EXPERT = DLS_BIT(DLS_AXIS_ETP) | DLS_BIT(DLS_AXIS_EP) | DLS_BIT(DLS_AXIS_EDP)
};

int dls_mesh_group_size(const dls_mesh *m, unsigned axes)
{
    int size = 1;
    for (int i = 0; i < DLS_AXES_ALL; i++)
        size *= axes >> i & 1 ? dls_mesh_size(m, (dls_axis)i) : 1;
    return size;
}

int dls_mesh_together(const dls_mesh *m, int a, int b, unsigned axes)
{
    unsigned mesh = axes & EXPERT ? EXPERT | DLS_BIT(DLS_AXIS_PP) : DENSE;
    for (int i = 0; i < DLS_AXES_ALL; i++)
        if ((mesh & ~axes) >> i & 1
            && dls_mesh_coordinate(m, a, (dls_axis)i)
                != dls_mesh_coordinate(m, b, (dls_axis)i))
            return 0;
    return 1;
}

int dls_mesh_group_ranks(const dls_mesh *m, int rank, unsigned axes, int *ranks)
{
    int n = 0, world = dls_mesh_world(m);
    for (int r = 0; r < world; r++)
        if (dls_mesh_together(m, rank, r, axes))
            ranks[n++] = r;
    return n;
}

/* split a communicator along the axes */
dls_status dls_mesh_split(const dls_mesh *m, dls_comm *comm, unsigned axes,
                          dls_comm **out)
{
    int rank = dls_comm_rank(comm), least = 0;
    *out = NULL;
    if (dls_mesh_group_size(m, axes) == 1)
        return DLS_OK;
    while (!dls_mesh_together(m, rank, least, axes))
        least++;
    return dls_comm_split(comm, least, rank, out);
}

/* find the nearest divisor */
int64_t dls_divisor_near(int64_t n, int64_t wanted)
{
    for (int64_t d = 0;; d++) {
        if (wanted - d >= 1 && wanted - d <= n && n % (wanted - d) == 0)
            return wanted - d;
        if (wanted + d >= 1 && wanted + d <= n && n % (wanted + d) == 0)
            return wanted + d;
    }
}

int64_t dls_mesh_least(const dls_mesh *m)
{
    int64_t a = (int64_t)m->size[DLS_AXIS_TP] * m->size[DLS_AXIS_CP];
    int64_t b = (int64_t)m->etp * m->ep;
    return m->size[DLS_AXIS_PP] * (a / dls_common_divisor(a, b) * b);
}

/* set the order */
dls_status dls_mesh_set_order(dls_mesh *m, const char *text)
{
    unsigned seen = 0;
    const char *at = text;
    for (int i = 0; i < DLS_AXES; i++) {
        int axis = 0;
        while (axis < DLS_AXES && strncmp(at, dls_axis_name((dls_axis)axis), 2) != 0)
            axis++;
        if (axis == DLS_AXES || seen >> axis & 1 || at[2] != (i < 3 ? ',' : '\0'))
            return DLS_FAIL(DLS_ERR_INPUT, "parallel.order: expected tp, cp, pp and dp, "
                            "each once, nearest first, such as tp,cp,pp,dp, got %s",
                            text);
        m->order[i] = (dls_axis)axis;
        seen |= DLS_BIT(axis);
        at += 3;
    }
    return DLS_OK;
}

void dls_mesh_order_text(const dls_mesh *m, char text[DLS_ORDER_TEXT])
{
    const dls_axis *o = m->order;
    snprintf(text, DLS_ORDER_TEXT, "%s,%s,%s,%s", dls_axis_name(o[0]),
             dls_axis_name(o[1]), dls_axis_name(o[2]), dls_axis_name(o[3]));
}

/* check a mesh */
static dls_status check_sizes(const dls_mesh *m)
{
    const int sizes[] = {m->size[0], m->size[1], m->size[2], m->size[3], m->etp, m->ep};
    for (int i = 0; i < DLS_AXIS_EDP; i++)
        if (sizes[i] < (i != DLS_AXIS_DP) || sizes[i] > DLS_MESH_MOST)
            return DLS_FAIL(DLS_ERR_INPUT, "parallel.%s: expected 1 to %d, got %d",
                            dls_axis_name((dls_axis)i), DLS_MESH_MOST, sizes[i]);
    return DLS_OK;
}

static dls_status check_world(const dls_mesh *m, int world)
{
    const int *s = m->size;
    int tp = s[DLS_AXIS_TP], cp = s[DLS_AXIS_CP];
    int pp = s[DLS_AXIS_PP], dp = s[DLS_AXIS_DP];
    int64_t replica = (int64_t)tp * cp * pp;
    if (dp >= 1 && replica <= DLS_MESH_MOST && replica * dp == world)
        return DLS_OK;
    if (world % replica == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "parallel.dp: expected %lld, as %d ranks / (tp %d "
                        "* cp %d * pp %d), got %d", (long long)(world / replica), world,
                        tp, cp, pp, dp);
    return DLS_FAIL(DLS_ERR_INPUT, "world size: expected tp %d * cp %d * pp %d * dp %d = "
                    "%.0f ranks, got %d", tp, cp, pp, dp, (double)replica * dp, world);
}

static dls_status check_experts(const dls_mesh *m)
{
    int stage = dls_mesh_world(m) / m->size[DLS_AXIS_PP], left = stage / m->etp;
    const int *s = m->size;
    if (stage % m->etp != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "parallel.etp: expected a divisor of tp %d * cp "
                        "%d * dp %d = %d, got %d; the nearest is %d", s[DLS_AXIS_TP],
                        s[DLS_AXIS_CP], s[DLS_AXIS_DP], stage, m->etp,
                        (int)dls_divisor_near(stage, m->etp));
    if (left % m->ep != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "parallel.ep: expected a divisor of tp %d * cp %d "
                        "* dp %d / etp %d = %d, got %d; the nearest is %d",
                        s[DLS_AXIS_TP], s[DLS_AXIS_CP], s[DLS_AXIS_DP], m->etp, left,
                        m->ep, (int)dls_divisor_near(left, m->ep));
    return DLS_OK;
}

dls_status dls_mesh_check(const dls_mesh *m, int world)
{
    DLS_TRY(check_sizes(m));
    DLS_TRY(check_world(m, world));
    return check_experts(m);
}

/* complete a mesh */
static dls_status leave_to_dp(dls_mesh *m, int world)
{
    const int *s = m->size;
    int64_t rest = (int64_t)s[DLS_AXIS_TP] * s[DLS_AXIS_CP] * s[DLS_AXIS_PP];
    int64_t near = (2 * world + rest - 1) / (2 * rest) * rest;
    if (world % rest != 0)
        return DLS_FAIL(DLS_ERR_INPUT, "world size: expected a multiple of tp %d * cp %d "
                        "* pp %d = %lld, got %d; the nearest is %lld", s[DLS_AXIS_TP],
                        s[DLS_AXIS_CP], s[DLS_AXIS_PP], (long long)rest, world,
                        (long long)(near ? near : rest));
    m->size[DLS_AXIS_DP] = (int)(world / rest);
    return DLS_OK;
}

dls_status dls_mesh_fit(dls_mesh *m, int world)
{
    int unordered = 1;
    for (int i = 0; i < DLS_AXES; i++) {
        unordered &= m->order[i] == 0;
        m->size[i] += m->size[i] == 0 && i != DLS_AXIS_DP;
    }
    for (int i = 0; unordered && i < DLS_AXES; i++)
        m->order[i] = (dls_axis)i;
    m->ep += m->ep == 0;
    m->etp += m->etp == 0;
    DLS_TRY(check_sizes(m));
    if (m->size[DLS_AXIS_DP] == 0)
        DLS_TRY(leave_to_dp(m, world));
    return dls_mesh_check(m, world);
}
