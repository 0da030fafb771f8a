/* tests/parallel/test_master.c: from chapters/04-data-parallelism-master.md. Edit the chapter, or edit here and run "make untangle". */
/* The master and its replicas against one device; the law of the links, exactly. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/rng.h"
#include "comm/launch.h"
#include "exact_model.h"
#include "parallel/data/master.h"
#include "vgpu/trace.h"

/* open a master */
#define OK(expr) \
    cr_assert_eq((expr), DLS_OK, "%s\n%s", dls_status_message(), dls_status_trace())

enum { ROWS = 7, IDS = ROWS * EXACT_T, MOST_ELEMENTS = 4096 };

typedef struct team {
    dls_ctx ctx[5];
    dls_transformer *replicas[5];
    dls_master *master;
    int *ids;               // tokens, then targets, on device 0
    int n;
} team;

static void open_team(team *t, int n)
{
    static double values[MOST_ELEMENTS];
    int ids[2 * IDS];
    *t = (team){.n = n};
    for (int i = 0; i < n; i++) {
        OK(dls_ctx_create(&t->ctx[i], i, DLS_F32));
        OK(exact_model_create(&t->replicas[i], &t->ctx[i], 0, ROWS));
    }
    cr_assert_eq(cudaSetDevice(0), cudaSuccess);
    exact_model_fill(&t->replicas[0]->params, values); // the others' come in the step
    OK(dls_params_put(&t->replicas[0]->params, values));
    for (int i = 0; i < 2 * IDS; i++)
        ids[i] = (int)(dls_rng_u32(5, 1, (uint64_t)i) % EXACT_V);
    OK(dls_device_alloc((void **)&t->ids, 2 * IDS, DLS_F32, DLS_MEM_OTHER));
    cudaMemcpy(t->ids, ids, sizeof ids, cudaMemcpyHostToDevice);
    OK(dls_master_create(&t->master, t->replicas, n, ROWS, EXACT_T));
}

static void close_team(team *t)
{
    dls_master_destroy(t->master);
    dls_device_free(t->ids);
    for (int i = 0; i < t->n; i++) {
        dls_transformer_free(t->replicas[i]);
        dls_ctx_destroy(&t->ctx[i]);
    }
}

/* test the master against one device */
static size_t numbers(int n, int rows, float *out)
{
    team t;
    open_team(&t, n);
    const dls_params *set = &t.replicas[0]->params;
    size_t count = set->elements;
    for (int step = 0; step < 2; step++) {
        OK(dls_master_step(t.master, t.ids, t.ids + IDS, rows, 1));
        OK(dls_ctx_sync(&t.ctx[0]));
        cudaMemcpy(out, set->grads, count * sizeof *out, cudaMemcpyDeviceToHost);
        cudaMemcpy(out + count, dls_master_losses(t.master),
                   (size_t)rows * EXACT_T * sizeof *out, cudaMemcpyDeviceToHost);
        float one = 1; // the first parameter changes: it must reach everybody
        cudaMemcpy(set->values, &one, sizeof one, cudaMemcpyHostToDevice);
    }
    close_team(&t);
    return count + (size_t)rows * EXACT_T;
}

Test(master, devices_together_equal_one)
{
    static float alone[MOST_ELEMENTS], together[MOST_ELEMENTS];
    for (int rows = 1; rows <= ROWS; rows += 3)
        for (int n = 2; n <= 5; n++) {
            size_t count = numbers(1, rows, alone);
            cr_assert_eq(numbers(n, rows, together), count);
            for (size_t i = 0; i < count; i++)
                cr_assert_eq(together[i], alone[i], "%d devices, %d rows: number %zu is "
                             "%g instead of %g", n, rows, i, together[i], alone[i]);
        }
}

/* test the law of the links */
static void check_links(int n)
{
    team t;
    double alpha, beta, out = 0, in = 0, expected;
    open_team(&t, n);
    OK(dls_cluster_link(dls_gpu_cluster(), 0, 1, &alpha, &beta));
    double bytes = 4.0 * (double)t.replicas[0]->params.elements;
    expected = (n - 1) * (2 * (alpha + beta * bytes) + 3 * alpha);
    dls_trace_enable(1);
    OK(dls_master_step(t.master, t.ids, t.ids + IDS, n, 1)); // a row each
    OK(dls_ctx_sync(&t.ctx[0]));
    dls_trace_enable(0);
    for (int i = 0; i < dls_trace_count(); i++) {
        const dls_trace_span *s = dls_trace_span_at(i);
        if (strcmp(s->name, "copy to peer") == 0)
            *(s->bytes == bytes ? &out : &in) += s->finish - s->start;
    }
    expected += (n - 1) * beta * 3 * EXACT_T * 4; // tokens, targets, losses
    cr_assert(fabs(out + in - expected) < 1e-12, "%d devices: %.12g s on the links, law "
              "%.12g", n, out + in, expected);
    dls_trace_clear();
    close_team(&t);
}

Test(master, links_take_the_time_of_the_law)
{
    for (int n = 2; n <= 5; n++)
        check_links(n);
}

/* The step of three devices, on the clock, by the kernels named in the environment. */
static dls_status time_a_step(int rank, void *seconds)
{
    team t;
    dls_master_times times;
    (void)rank;
    open_team(&t, 3);
    OK(dls_master_step(t.master, t.ids, t.ids + IDS, ROWS, 1));
    OK(dls_ctx_sync(&t.ctx[0]));
    OK(dls_master_timing(t.master, &times));
    *(double *)seconds = times.step;
    close_team(&t);
    return DLS_OK;
}

Test(master, time_passes_alike_with_and_without_values)
{
    const char *const kernels[] = {"host", "simt", "timed"};
    double *seconds = mmap(NULL, 3 * sizeof *seconds, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 3; i++) {
        setenv("DLS_KERNELS", kernels[i], 1);
        OK(dls_run_ranks(1, time_a_step, seconds + i));
        cr_assert_eq(seconds[i], seconds[0], "%s: %.9g s, host %.9g s", kernels[i],
                     seconds[i], seconds[0]);
    }
    cr_assert_gt(seconds[0], 0);
}

Test(master, two_replicas_on_one_device_are_refused)
{
    team t;
    dls_master *m;
    open_team(&t, 1);
    dls_transformer *twice[] = {t.replicas[0], t.replicas[0]};
    cr_assert_eq(dls_master_create(&m, twice, 2, 1, EXACT_T), DLS_ERR_INPUT);
    cr_assert_str_eq(dls_status_message(), "replicas 0 and 1 are both on device 0");
    close_team(&t);
}
