/* tests/parallel/mesh_pairs.c: from chapters/07-proof-cases.md. Edit the chapter, or edit here and run "make untangle". */
/* All layouts, with choices such that nearly every pair of them occurs. */
#include "mesh_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* list the features */
const char *const mesh_feature_names[MESH_FEATURES] = {
    "family", "dp", "pp", "tp", "cp", "schedule", "zero", "rows sliced", "overlap",
    "keys", "tokens", "recompute", "tied", "dropout", "ep", "etp", "edp", "gate",
    "capacity", "shared", "sequence loss", "batch loss", "z-loss", "bias", "dispatch"};

static int schedule_number(const char *name)
{
    for (int i = 0; dls_schedule_at(i); i++)
        if (strcmp(dls_schedule_at(i)->name, name) == 0)
            return i;
    return -1;
}

void mesh_case_features(const mesh_case *c, int of[MESH_FEATURES])
{
    const int *size = c->mesh.size;
    int tp = size[DLS_AXIS_TP] > 1, cp = size[DLS_AXIS_CP] > 1;
    const int all[MESH_DENSE] = {
        c->llama, size[DLS_AXIS_DP] > 1, size[DLS_AXIS_PP] > 1, tp, cp,
        c->schedule ? schedule_number(c->schedule) : -1, c->zero,
        tp ? c->split_rows : -1, tp ? c->overlap : -1,
        cp ? (c->ulysses ? 3 : (int)c->way) : -1, cp ? (int)c->order : -1,
        (int)c->recompute, !c->untied, c->drops};
    memcpy(of, all, sizeof all);
    mesh_case_features_of_experts(c, of + MESH_DENSE);
}

/* count pairs */
enum { SIDE = MESH_FEATURES * MESH_VALUES };

typedef struct pair_table { char has[SIDE * SIDE]; } pair_table;

/* How many pairs of c the table lacks; enter: 1: it has them from now on. */
static int lacks(pair_table *t, const mesh_case *c, int enter)
{
    int of[MESH_FEATURES], n = 0;
    mesh_case_features(c, of);
    for (int a = 0; a < MESH_FEATURES; a++)
        for (int b = a + 1; b < MESH_FEATURES; b++) {
            int at = (a * MESH_VALUES + of[a]) * SIDE + b * MESH_VALUES + of[b];
            if (of[a] < 0 || of[b] < 0 || t->has[at])
                continue;
            n++;
            t->has[at] = (char)enter;
        }
    return n;
}

/* count a refusal */
static void count_refusal(mesh_cases *out, const char *message)
{
    char field[MESH_FIELD] = "";
    int i = 0;
    snprintf(field, sizeof field, "%.*s", (int)strcspn(message, ":"), message);
    while (i < MESH_FIELDS - 1 && out->because[i] && strcmp(out->field[i], field) != 0)
        i++;
    strcpy(out->field[i], field);
    out->because[i]++;
    out->refused++;
}

/* draw the best of several */
enum { DRAWS = 16 };

/* A layout and a family; ep 0: without experts. */
typedef struct wanted { int size[DLS_AXES], llama, ep, etp; } wanted;

static int draw_best(mesh_cases *out, pair_table *t, const wanted *w)
{
    mesh_case c[DRAWS];
    int tried[DRAWS] = {0};
    for (int i = 0; i < DRAWS; i++) {
        mesh_case_draw(&c[i], w->size, w->llama, i);
        if (w->ep)
            mesh_case_draw_experts(&c[i], w->ep, w->etp, i);
    }
    for (int k = 0; k < DRAWS; k++) {
        int best = -1, most = -1;
        for (int i = 0; i < DRAWS; i++) {
            int new = tried[i] ? -1 : lacks(t, &c[i], 0);
            best = new > most ? i : best;
            most = new > most ? new : most;
        }
        tried[best] = 1;
        if (mesh_case_check(&c[best]) == DLS_OK) {
            out->list[out->n++] = c[best];
            out->pairs += lacks(t, &c[best], 1);
            return 1;
        }
        count_refusal(out, dls_status_message());
    }
    return 0;
}

/* make all cases */
/* What is wanted of one quadruple of sizes. */
static int draw_all(mesh_cases *out, pair_table *t, wanted w, int experts)
{
    int ok = 1, ranks = w.size[DLS_AXIS_TP] * w.size[DLS_AXIS_CP] * w.size[DLS_AXIS_DP];
    for (w.llama = 0; w.llama < 2 && ok && !experts; w.llama++)
        ok = draw_best(out, t, &w);
    for (w.ep = 1; w.ep <= MESH_MOST_EP && experts; w.ep++)
        for (w.etp = 1; w.etp <= MESH_MOST_ETP && ok; w.etp++) {
            if (ranks % (w.ep * w.etp) != 0)
                continue;
            w.llama = out->n % 3 > 0;
            ok = draw_best(out, t, &w);
        }
    return ok;
}

/* Calls for every quadruple with a product of at most `most`. */
static int for_all_sizes(mesh_cases *out, pair_table *t, int most, int experts)
{
    wanted w = {.ep = 0};
    int *size = w.size, ok = 1;
    for (size[0] = 1; size[0] <= most; size[0]++)
        for (size[1] = 1; size[0] * size[1] <= most; size[1]++)
            for (size[2] = 1; size[0] * size[1] * size[2] <= most; size[2]++)
                for (size[3] = 1; ok && size[0] * size[1] * size[2] * size[3] <= most;
                     size[3]++)
                    ok = draw_all(out, t, w, experts);
    return ok;
}

static dls_status make(mesh_cases *out, int most, int experts)
{
    pair_table *t = calloc(1, sizeof *t);
    *out = (mesh_cases){.list = calloc(2048, sizeof *out->list)};
    int ok = t && out->list && for_all_sizes(out, t, most, experts);
    free(t);
    dls_status_clear();
    return ok ? DLS_OK : DLS_FAIL(DLS_ERR_STATE, "a layout is refused whatever else is "
                                  "chosen");
}

dls_status mesh_cases_make(mesh_cases *out, int most)
{
    return make(out, most, 0);
}

dls_status mesh_expert_cases_make(mesh_cases *out, int most)
{
    return make(out, most, 1);
}

void mesh_cases_free(mesh_cases *cases)
{
    free(cases->list);
}
