/* tests/parallel/mesh_experts.c: from chapters/08-expert-proof-cases.md. Edit the chapter, or edit here and run "make untangle". */
/* Drawing the experts of a case. */
#include "mesh_case.h"

#include <stdio.h>

#include "base/rng.h"

/* draw a number for experts */
typedef struct dice { uint64_t stream, at; } dice;

static int draw(dice *d, int n)
{
    return (int)(dls_rng_u32(19, d->stream, d->at++) % (unsigned)n);
}

/* draw how many experts */
static void draw_sizes(dls_moe *m, int ep, int etp, dice *d)
{
    int most;
    m->experts = ep * (1 + draw(d, 3));
    m->experts += m->experts == 1 ? 1 + draw(d, 4) : 0;
    most = m->experts < 3 ? m->experts : 3;
    m->chosen = 1 + draw(d, most);
    m->hidden = etp * ((3 + etp) / etp + draw(d, 2));
}

static void draw_groups(dls_moe *m, dice *d)
{
    for (int g = 2; g <= 4; g++)
        if (m->experts % g == 0 && m->experts / g > 1 && m->chosen <= m->experts / g) {
            m->groups = g;
            m->group_limit = 1 + draw(d, g - 1);
        }
}

/* draw a length for experts */
static void draw_length(mesh_case *c, dice *d)
{
    int slices = c->split_rows ? c->mesh.size[DLS_AXIS_TP] : 1, T = 4 << draw(d, 2);
    if (draw(d, 3) && c->mesh.size[DLS_AXIS_CP] == 1 && T % slices == 0
        && c->rows * T <= MESH_TOKENS)
        c->T = T;
}

/* draw losses of experts */
static int one_set_of_rows(const mesh_case *c)
{
    int dp = c->mesh.size[DLS_AXIS_DP];
    return dp == 1 || (c->rows + dp - 1) / dp <= c->micro;
}

int mesh_case_pass(const mesh_case *c)
{
    return c->moe.aux_batch > 0 && c->mesh.size[DLS_AXIS_DP] > 1 ? c->rows : c->micro;
}

static void draw_losses(mesh_case *c, dice *d)
{
    dls_moe *m = &c->moe;
    int whole = c->mesh.size[DLS_AXIS_CP] == 1;
    double capacity[] = {0, 0, 0.5, 1, 1.25};
    m->capacity = whole ? capacity[draw(d, 5)] : 0;
    m->padded = m->capacity > 0 && draw(d, 2);
    m->aux_sequence = whole && draw(d, 2) ? 0.125 : 0;
    m->aux_batch = one_set_of_rows(c) && draw(d, 2) ? 0.25 : 0;
    m->z_loss = draw(d, 2) ? 0.0625 : 0;
}

/* ask whether groups are even */
static int is_even_over_nodes(const dls_mesh *m)
{
    int ranks[MESH_MOST];
    for (int r = 0; r < dls_mesh_world(m); r++) {
        int n = dls_mesh_group_ranks(m, r, DLS_BIT(DLS_AXIS_EP), ranks), near = 0;
        for (int i = 0; i < n; i++)
            near += ranks[i] < 8;
        if (near > 0 && near < n && 2 * near != n)
            return 0;
    }
    return 1;
}

/* draw the experts of a case */
void mesh_case_draw_experts(mesh_case *c, int ep, int etp, int attempt)
{
    const int *s = c->mesh.size;
    dice d = {(((uint64_t)s[0] * 17 + s[1]) * 17 + s[2]) * 17 + s[3],
              10000 * (uint64_t)ep + 1000 * etp + 50 * (uint64_t)attempt};
    dls_moe *m = &c->moe;
    int deep = c->llama && draw(&d, 2);
    c->mesh.ep = ep;
    c->mesh.etp = etp;
    draw_length(c, &d);
    draw_sizes(m, ep, etp, &d);
    draw_losses(c, &d);
    m->gate = deep ? DLS_GATE_SIGMOID : DLS_GATE_SOFTMAX;
    m->normalised = c->llama && m->chosen > 1;
    m->scale = deep ? 2.5 : 0;
    m->shared = deep ? 1 + draw(&d, 2) : 0;
    m->dense_layers = deep ? draw(&d, 2) : 0;
    m->bias_rate = deep || draw(&d, 3) == 0 ? 0.125 : 0;
    if (deep)
        draw_groups(m, &d);
    c->dispatch = ep > 1 ? (dls_dispatch_way)draw(&d, 3) : DLS_DISPATCH_FLAT;
    if (c->dispatch == DLS_DISPATCH_NODES && !is_even_over_nodes(&c->mesh))
        c->dispatch = DLS_DISPATCH_FLAT;
}

/* keep what is exact of experts */
static int is_power_of_two(int n)
{
    return (n & (n - 1)) == 0;
}

dls_moe mesh_exact_experts(const mesh_case *c)
{
    dls_moe m = c->moe;
    int choices = m.chosen * c->T, P = mesh_case_pass(c);
    int whole = is_power_of_two(choices);
    m.gate = DLS_GATE_IDENTITY;
    m.normalised = 0;
    m.scale = m.scale > 0 ? 2 : 0;
    m.bias_rate = m.bias_rate > 0 ? 1 : 0;
    m.aux_sequence = m.aux_sequence > 0 && whole ? choices : 0;
    m.aux_batch = m.aux_batch > 0 && whole && P <= 2 ? choices * P : 0;
    m.z_loss = 0;
    return m;
}

/* list the features of experts */
void mesh_case_features_of_experts(const mesh_case *c, int *of)
{
    const dls_moe *m = &c->moe;
    const int all[MESH_FEATURES - MESH_DENSE] = {
        c->mesh.ep > 1, c->mesh.etp > 1, dls_mesh_size(&c->mesh, DLS_AXIS_EDP) > 1,
        m->gate, m->capacity > 0 ? 1 + m->padded : 0, m->shared > 0, m->aux_sequence > 0,
        m->aux_batch > 0, m->z_loss > 0, m->bias_rate > 0, c->dispatch};
    for (int i = 0; i < MESH_FEATURES - MESH_DENSE; i++)
        of[i] = m->experts ? all[i] : -1;
}

/* write the experts of a case */
static const char *const gates[] = {"softmax", "sigmoid", "identity"};
static const char *const dispatches[] = {"flat", "nodes", "one-sided"};

void mesh_case_text_experts(const mesh_case *c, char *text, size_t room)
{
    const dls_moe *m = &c->moe;
    snprintf(text, room, " | ep%d etp%d E%d k%d F%d %s%s shared%d dense%d groups%d/%d "
             "capacity%g%s aux%g,%g z%g bias%g %s", c->mesh.ep, c->mesh.etp, m->experts,
             m->chosen, m->hidden, gates[m->gate], m->normalised ? " normalised" : "",
             m->shared, m->dense_layers, m->group_limit, m->groups, m->capacity,
             m->padded ? " padded" : "", m->aux_sequence, m->aux_batch, m->z_loss,
             m->bias_rate, dispatches[c->dispatch]);
}
