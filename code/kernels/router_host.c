/* code/kernels/router_host.c: from chapters/08-router-kernels.md. Edit the chapter, or edit here and run "make untangle". */
/* The router in plain C, row by row: probabilities, the choice, the places, and back. */
#include "kernels/router.h"

#include "kernels/parallel.h"
#include "kernels/real_math.h"

#include "kernels/router_host.h"

/* find probabilities on the host */
/* What a row's probabilities are made of. */
typedef struct row {
    acc p[DLS_ROUTER_EXPERTS]; // of the gate
    acc most, sum;             // largest score; sum of exp(score - most)
    acc whole;                 // sum of p
    int fault;                 // 1: some score is no finite number
} row;

static void see(row *w, const dls_router *r, const acc *s)
{
    /* find the largest score of a row */
    w->most = -INFINITY;
    w->fault = 0;
    for (int e = 0; e < r->E; e++) {
        w->most = s[e] > w->most ? s[e] : w->most;
        w->fault |= !isfinite(s[e]);
    }
    /* take the probabilities of a row */
    w->sum = w->whole = 0;
    for (int e = 0; e < r->E; e++)
        w->sum += w->p[e] = acc_exp(s[e] - w->most);
    for (int e = 0; e < r->E; e++) {
        w->p[e] = r->gate == DLS_GATE_SOFTMAX ? w->p[e] / w->sum
                : r->gate == DLS_GATE_SIGMOID ? 1 / (1 + acc_exp(-s[e])) : s[e];
        w->whole += w->p[e];
    }
}
/* choose a row on the host */
/* The sum of a group's two best, or its only one. */
static acc group_score(const acc *key, int size)
{
    acc best = key[0], second = 0;
    for (int i = 1; i < size; i++) {
        acc lower = key[i] > best ? best : key[i];
        second = i == 1 || lower > second ? lower : second;
        best = key[i] > best ? key[i] : best;
    }
    return best + second;
}

/* closed[e] := 1 for experts of groups that may not be used. */
static void close_groups(const dls_router *r, const acc *key, char *closed)
{
    int size = r->E / r->groups;
    acc score[DLS_ROUTER_GROUPS];
    for (int g = 0; g < r->groups; g++)
        score[g] = group_score(key + g * size, size);
    for (int g = 0; g < r->groups; g++) {
        int better = 0;
        for (int h = 0; h < r->groups; h++)
            better += score[h] > score[g] || (score[h] == score[g] && h < g);
        memset(closed + g * size, better >= r->group_limit, (size_t)size);
    }
}
/* What the experts are compared by; all the same where a score is no number. */
static void make_keys(acc *key, const dls_router *r, const row *w, const acc *s,
                      const acc *bias)
{
    int plain = !bias && r->group_limit == 0;
    for (int e = 0; e < r->E; e++)
        key[e] = w->fault ? 0 : plain ? s[e] : w->p[e] + (bias ? bias[e] : 0);
}

static void choose(int *index, const dls_router *r, const row *w, const acc *s,
                   const acc *bias)
{
    acc key[DLS_ROUTER_EXPERTS];
    char closed[DLS_ROUTER_EXPERTS] = {0};
    make_keys(key, r, w, s, bias);
    if (r->group_limit > 0)
        close_groups(r, key, closed);
    for (int j = 0; j < r->k; j++) {
        int best = -1;
        for (int e = 0; e < r->E; e++)
            if (!closed[e] && (best < 0 || key[e] > key[best]))
                best = e;
        index[j] = best;
        closed[best] = 1;
    }
}
/* choose rows on the host */
/* The divisor of a row's weights: the sum of the chosen, where it is wanted and there. */
static acc divisor(const dls_router *r, const row *w, const int *index)
{
    acc sum = 0;
    for (int j = 0; j < r->k; j++)
        sum += w->p[index[j]];
    return r->normalised && sum > 0 ? sum : 1;
}

static void weigh(acc *weight, const dls_router *r, const row *w, const int *index)
{
    acc factor = (acc)r->scale / divisor(r, w, index);
    for (int j = 0; j < r->k; j++)
        weight[j] = factor * w->p[index[j]];
}
void DLS_HOST_NAME(dls_router_choose)(dls_router r, int *index, acc *weight, int *chosen,
                                      const acc *scores, const acc *bias)
{
    memset(chosen, 0, ((size_t)r.B * r.E + 1) * sizeof *chosen);
    for (int i = 0; i < r.N; i++) {
        row w;
        const acc *s = scores + (size_t)i * r.E;
        int *to = index + (size_t)i * r.k, *of = chosen + (r.first + i) / r.T * r.E;
        see(&w, &r, s);
        if (!r.balanced)
            choose(to, &r, &w, s, bias);
        /* count the choices of a row */
        for (int j = 0; j < r.k; j++) {
            if (r.balanced)
                to[j] = (int)(((long long)(r.first + i) * r.k + j) % r.E);
            of[to[j]]++;
        }
        weigh(weight + (size_t)i * r.k, &r, &w, to);
        if (w.fault && chosen[r.B * r.E] == 0)
            chosen[r.B * r.E] = r.N - i;
    }
}
/* place rows on the host */
/* Of a sequence and an expert: rows chosen on earlier ranks. */
static int chosen_before(const dls_router *r, const int *before, int earlier, int s,
                         int e)
{
    int sum = 0;
    for (int q = 0; q < earlier; q++)
        sum += before[(size_t)q * (r->B * r->E + 1) + s * r->E + e];
    return sum;
}

/* Sequences of which this rank has rows: from *from on. */
static int sequences_here(const dls_router *r, int *from)
{
    *from = r->N > 0 ? r->first / r->T : 0;
    return r->N > 0 ? (r->first + r->N - 1) / r->T - *from + 1 : 0;
}
/* next[e]: the next row of expert e; counts[e]: all of them. */
static void start_experts(const dls_router *r, int *next, int *counts, const int *chosen,
                          const int *before, int earlier)
{
    int from, n = sequences_here(r, &from), at = 0;
    for (int e = 0; e < r->E; e++) {
        int kept = 0;
        for (int s = from; s < from + n; s++)
            kept += dls_router_kept(r->capacity,
                                    chosen_before(r, before, earlier, s, e),
                                    chosen[s * r->E + e]);
        counts[e] = r->padded ? n * r->capacity : kept;
        next[e] = at;
        at += counts[e];
    }
}
void DLS_HOST_NAME(dls_router_place)(dls_router r, int *place, int *counts,
                                     const int *index, const int *chosen,
                                     const int *before, int earlier)
{
    int next[DLS_ROUTER_EXPERTS], seen[DLS_ROUTER_EXPERTS], last = -1;
    start_experts(&r, next, counts, chosen, before, earlier);
    for (int i = 0; i < r.N; i++) {
        int s = (r.first + i) / r.T;
        for (int e = 0; s != last && e < r.E; e++)
            seen[e] = chosen_before(&r, before, earlier, s, e);
        last = s;
        /* put a row in its places */
        for (int j = 0; j < r.k; j++) {
            int e = index[(size_t)i * r.k + j];
            int full = r.capacity > 0 && seen[e]++ >= r.capacity;
            place[(size_t)i * r.k + j] = full ? -1 : next[e]++;
        }
    }
    if (chosen[r.B * r.E] > 0)
        counts[0] = -1 - (r.first + r.N - chosen[r.B * r.E]);
}
/* gather counts on the host */
void DLS_HOST_NAME(dls_router_gather)(int *out, const int *chosen, int B, int E)
{
    for (int e = 0; e < E; e++) {
        out[e] = 0;
        for (int s = 0; s < B; s++)
            out[e] += chosen[(size_t)s * E + e];
    }
}
/* push auxiliary losses on the host */
/* f of the two losses: share of an expert in the choices, times E. */
static acc batch_share(const dls_router *r, const dls_router_aux *a, int e, acc all)
{
    return a->in_batch ? (acc)r->E * a->in_batch[e] / all : 0;
}

static acc sequence_share(const dls_router *r, const dls_router_aux *a, int i, int e)
{
    const int *in = a->in_sequence;
    return in ? (acc)r->E * in[(r->first + i) / r->T * r->E + e] / ((acc)r->k * a->tokens)
              : 0;
}

/* All choices of the micro-batch. */
static acc batch_choices(const dls_router *r, const dls_router_aux *a)
{
    long long sum = 0;
    for (int e = 0; a->in_batch && e < r->E; e++)
        sum += a->in_batch[e];
    return (acc)sum;
}
/* dp[e] := the gradient of scale * (batch and sequence loss of row i) for p[e]. */
static void push_balance(acc *dp, const dls_router *r, const dls_router_aux *a, acc scale,
                         const row *w, int i, acc all)
{
    acc dot = 0, whole = r->gate == DLS_GATE_SIGMOID ? w->whole : 1;
    for (int e = 0; e < r->E; e++) {
        dp[e] = scale * ((acc)a->batch * batch_share(r, a, e, all) +
                         (acc)a->sequence * sequence_share(r, a, i, e));
        dot += dp[e] * w->p[e] / whole;
    }
    for (int e = 0; r->gate == DLS_GATE_SIGMOID && e < r->E; e++)
        dp[e] = (dp[e] - dot) / whole;
}
/* go back through a row on the host */
/* dp[e] += what the weights' gradients give. */
static void push_weights(acc *dp, const dls_router *r, const row *w, const acc *dweight,
                         const int *index, const int *place)
{
    acc by = divisor(r, w, index), dot = 0;
    for (int j = 0; j < r->k; j++)
        dot += place[j] < 0 ? 0 : dweight[j] * w->p[index[j]] / by;
    for (int j = 0; j < r->k; j++) {
        acc own = place[j] < 0 ? 0 : dweight[j];
        dp[index[j]] += (acc)r->scale * (own - (r->normalised ? dot : 0)) / by;
    }
}

/* ds := through the gate, and the z-loss. */
static void push_scores(real *ds, const dls_router *r, const row *w, const acc *dp,
                        const acc *s, acc z)
{
    acc dot = 0, lse = w->most + acc_log(w->sum);
    for (int e = 0; e < r->E; e++)
        dot += dp[e] * w->p[e];
    for (int e = 0; e < r->E; e++) {
        /* go back through the gate */
        acc d = r->gate == DLS_GATE_SOFTMAX ? w->p[e] * (dp[e] - dot)
              : r->gate == DLS_GATE_SIGMOID ? dp[e] * w->p[e] * (1 - w->p[e]) : dp[e];
        if (z != 0)
            d += 2 * z * lse * acc_exp(s[e] - w->most) / w->sum;
        ds[e] = narrow(d);
    }
}
void DLS_HOST_NAME(dls_router_backward)(dls_router r, dls_router_aux aux, acc scale,
                                        real *dscores, const acc *dweight,
                                        const acc *scores, const int *index,
                                        const int *place)
{
    acc all = batch_choices(&r, &aux);
    DLS_PARALLEL((size_t)r.N * r.E)
    for (int i = 0; i < r.N; i++) {
        row w;
        acc dp[DLS_ROUTER_EXPERTS];
        const acc *s = scores + (size_t)i * r.E;
        size_t at = (size_t)i * r.k;
        see(&w, &r, s);
        push_balance(dp, &r, &aux, scale, &w, i, all);
        push_weights(dp, &r, &w, dweight + at, index + at, place + at);
        push_scores(dscores + (size_t)i * r.E, &r, &w, dp, s, scale * (acc)aux.z);
    }
}
/* tally rows on the host */
/* Adds the losses and the entropy of row i. */
static void tally_row(acc *sums, const dls_router *r, const dls_router_aux *a,
                      const row *w, int i, acc all)
{
    acc lse = w->most + acc_log(w->sum);
    acc whole = r->gate == DLS_GATE_SIGMOID ? w->whole : 1;
    for (int e = 0; e < r->E; e++) {
        acc p = w->p[e] / whole;
        sums[DLS_TALLY_BATCH] += batch_share(r, a, e, all) * p;
        sums[DLS_TALLY_SEQUENCE] += sequence_share(r, a, i, e) * p;
        if (r->gate != DLS_GATE_IDENTITY && p > 0)
            sums[DLS_TALLY_ENTROPY] -= p * acc_log(p);
    }
    sums[DLS_TALLY_TOKENS]++;
    sums[DLS_TALLY_Z] += lse * lse;
}
void DLS_HOST_NAME(dls_router_tally)(dls_router r, dls_router_aux aux, acc *tally,
                                     const acc *scores, const int *chosen,
                                     const int *before, int earlier)
{
    acc all = batch_choices(&r, &aux);
    /* count the chosen and the dropped */
    for (int s = 0; s < r.B; s++)
        for (int e = 0; e < r.E; e++) {
            int n = chosen[s * r.E + e];
            tally[e] += n;
            tally[r.E + e] += n - dls_router_kept(
                r.capacity, chosen_before(&r, before, earlier, s, e), n);
        }
    for (int i = 0; i < r.N; i++) {
        row w;
        see(&w, &r, scores + (size_t)i * r.E);
        tally_row(tally + 2 * r.E, &r, &aux, &w, i, all);
    }
}
/* step the bias on the host */
void DLS_HOST_NAME(dls_router_bias)(acc *bias, const acc *tally, int E, acc rate)
{
    double sum = 0;
    for (int e = 0; e < E; e++)
        sum += tally[e];
    for (int e = 0; e < E; e++) {
        double less = sum - (double)E * tally[e];
        bias[e] += less > 0 ? rate : less < 0 ? -rate : 0;
    }
}
