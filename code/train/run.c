/* code/train/run.c: from chapters/09-transformer-training.md. Edit the chapter, or edit here and run "make untangle". */
/*
 * A run: steps until the last, with reports, evaluations, checkpoints and traces
 * when they are due, and the files that it leaves behind.
 */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "train/balance.h"
#include "train/pipelined.h"
#include "vgpu/trace.h"

/* define the report */
typedef struct report {
    FILE *metrics;              /* rank 0 only */
    dls_step_record *records;   /* [log_every] */
    double wall;                /* when the last line was printed */
    dls_ddp_times times;        /* of the last step */
    double trace_start;         /* virtual time; < 0: not tracing */
    char loads[80];             /* of the experts, for the next line */
} report;

/* know what is due */
static int due(const dls_trainer *t, int64_t every)
{
    return every > 0 && (t->step % every == 0 || t->step == t->config->steps);
}

/* cut back the metrics */
static size_t keep_lines(char *text, int64_t last_step)
{
    char *to = text;
    for (char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        long long step;
        n += line[n] == '\n';
        if (sscanf(line, "{\"step\":%lld", &step) == 1 && step <= last_step
            && line[n - 1] == '\n') {
            memmove(to, line, n);
            to += n;
        }
        line += n;
    }
    return (size_t)(to - text);
}

static dls_status cut_back(const char *path, int64_t last_step)
{
    char *text;
    size_t size;
    if (last_step == 0 || access(path, F_OK) != 0)
        return dls_file_write(path, "", 0);
    DLS_TRY(dls_file_read(path, &text, &size));
    size = keep_lines(text, last_step);
    dls_status s = dls_file_write(path, text, size);
    free(text);
    return s;
}

/* open the report */
static dls_status open_report(report *r, const dls_trainer *t)
{
    char path[PATH_MAX];
    r->records = calloc((size_t)t->config->log_every, sizeof *r->records);
    if (!r->records)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for the report");
    if (t->rank != 0)
        return DLS_OK;
    snprintf(path, sizeof path, "%s/metrics.jsonl", t->config->output);
    DLS_TRY(cut_back(path, t->step));
    r->metrics = fopen(path, "a");
    if (!r->metrics)
        return DLS_FAIL(DLS_ERR_IO, "%s: %s", path, strerror(errno));
    return DLS_OK;
}

/* write the metrics */
static void write_step(report *r, const dls_trainer *t, int64_t step,
                       const dls_step_record *s)
{
    const dls_train_config *c = t->config;
    double tokens = (double)c->global_batch * c->model.context;
    if (!r->metrics)
        return;
    fprintf(r->metrics,
            "{\"step\":%lld,\"loss\":%.17g,\"gradient_norm\":%.17g,"
            "\"learning_rate\":%.17g,\"tokens\":%lld,\"virtual_seconds\":%.9g",
            (long long)step, s->loss_sum / tokens, s->gradient_norm,
            dls_lr_schedule_at(&c->schedule, step), (long long)(tokens * step),
            s->seconds);
    if (step == t->step)
        fprintf(r->metrics, ",\"communication_seconds\":%.9g,\"exposed_seconds\":%.9g",
                r->times.busy, r->times.exposed);
    fprintf(r->metrics, "}\n");
}

/* judge a step */
static dls_status judge_step(const dls_trainer *t, int64_t step, dls_step_record *s)
{
    if (!isfinite(s->loss_sum))
        return DLS_FAIL(DLS_ERR_STATE, "step %lld: the loss is not finite; a smaller "
                        "train.learning_rate may help", (long long)step);
    if (!isfinite(s->gradient_norm)) {
        if (t->rank == 0)
            dls_log(DLS_LOG_WARN, "step %lld: the gradient is not finite; the step was "
                    "skipped", (long long)step);
        s->gradient_norm = -1;
    }
    return DLS_OK;
}

/* print the progress */
static double wall_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void print_progress(report *r, const dls_trainer *t, int n)
{
    const dls_train_config *c = t->config;
    double tokens = (double)c->global_batch * c->model.context, now = wall_clock();
    double seconds = 0, elapsed = now - r->wall;
    for (int i = 0; i < n; i++)
        seconds += r->records[i].seconds / n;
    printf("step %5lld/%lld  loss %.4f  %7.0f tokens/s  %.1f us/step (virtual)",
           (long long)t->step, (long long)c->steps, r->records[n - 1].loss_sum / tokens,
           elapsed > 0 ? n * tokens / elapsed : 0, seconds * 1e6);
    if (t->place.holders > 1 && !t->pipelined)
        printf("  %3.0f %% of %scommunication hidden", 100 * r->times.hidden,
               t->place.plain ? "" : "the data axis' ");
    printf("%s%s\n", *r->loads ? "  " : "", r->loads);
    fflush(stdout);
}
static dls_status report_loads(report *r, dls_trainer *t)
{
    dls_train_loads loads;
    dls_status s = dls_train_balance_read(t, &loads);
    if (s == DLS_OK)
        dls_train_loads_tell(&loads, r->loads, sizeof r->loads);
    if (s == DLS_OK && r->metrics)
        dls_train_loads_write(&loads, t->step, r->metrics);
    dls_train_loads_free(&loads);
    return s;
}

/* read the meter and report */
static dls_status report_steps(report *r, dls_trainer *t)
{
    int n = t->meter.n;
    if (t->pipelined)
        DLS_TRY(dls_pipelined_settle(t));
    DLS_TRY(dls_meter_read(&t->meter, t->comm, r->records));
    if (n > 0 && !t->pipelined)
        DLS_TRY(t->zero ? dls_zero_timing(t->zero, &r->times)
                        : dls_ddp_timing(t->ddp, &r->times));
    for (int i = 0; i < n; i++) {
        int64_t step = t->step - n + 1 + i;
        DLS_TRY(judge_step(t, step, &r->records[i]));
        write_step(r, t, step, &r->records[i]);
    }
    if (r->metrics && fflush(r->metrics) != 0)
        return DLS_FAIL(DLS_ERR_IO, "%s/metrics.jsonl: %s", t->config->output,
                        strerror(errno));
    if (n > 0 && t->config->model.moe.experts > 0)
        DLS_TRY(report_loads(r, t));
    if (t->rank == 0 && n > 0 && due(t, t->config->log_every))
        print_progress(r, t, n);
    r->wall = wall_clock();
    return DLS_OK;
}

/* report an evaluation */
static dls_status report_evaluation(report *r, dls_trainer *t)
{
    double loss;
    DLS_TRY(dls_trainer_evaluate(t, &loss));
    if (t->rank == 0) {
        printf("step %5lld/%lld  validation loss %.4f\n", (long long)t->step,
               (long long)t->config->steps, loss);
        fprintf(r->metrics, "{\"step\":%lld,\"validation_loss\":%.17g}\n",
                (long long)t->step, loss);
        fflush(r->metrics);
    }
    r->wall = wall_clock();
    return DLS_OK;
}

/* write the memory file */
static dls_status write_memory(const dls_trainer *t)
{
    size_t want[DLS_MEM_PURPOSES];
    dls_gpu_memory is;
    char path[PATH_MAX], text[4096];
    DLS_TRY(dls_train_predict_memory(t->config, t->rank, t->world, want));
    DLS_TRY(dls_gpu_memory_stats(t->ctx.device, &is));
    int n = snprintf(text, sizeof text, "{\"rank\":%d,\"world\":%d,\"purposes\":{",
                     t->rank, t->world);
    for (int i = 0; i < DLS_MEM_PURPOSES; i++)
        n += snprintf(text + n, sizeof text - (size_t)n,
                      "%s\"%s\":{\"predicted\":%zu,\"current\":%zu,\"peak\":%zu}",
                      i ? "," : "", dls_memory_purpose_name((dls_memory_purpose)i),
                      want[i], is.current[i], is.peak[i]);
    n += snprintf(text + n, sizeof text - (size_t)n,
                  "},\"total\":%zu,\"total_peak\":%zu,\"capacity\":%zu}\n", is.total,
                  is.total_peak, is.capacity);
    snprintf(path, sizeof path, "%s/memory-rank-%d.json", t->config->output, t->rank);
    return dls_file_write(path, text, (size_t)n);
}

/* trace and run */
/* begin the trace */
static dls_status begin_trace(report *r, dls_trainer *t)
{
    const dls_train_config *c = t->config;
    int64_t next = t->step + 1;
    if (r->trace_start >= 0 || next < c->trace_from || next > c->trace_to)
        return DLS_OK;
    DLS_TRY(report_steps(r, t));
    DLS_TRY(dls_ctx_sync(&t->ctx));
    r->trace_start = dls_gpu_host_time();
    dls_trace_enable(1);
    return DLS_OK;
}

/* end the trace */
static void trace_path(char *path, size_t size, const dls_trainer *t, int rank)
{
    snprintf(path, size, "%s/trace-rank-%d.json", t->config->output, rank);
}

static dls_status merge_traces(const report *r, const dls_trainer *t, double end)
{
    char paths[t->world][PATH_MAX], chrome[PATH_MAX], svg[PATH_MAX];
    const char *list[t->world];
    for (int i = 0; i < t->world; i++) {
        trace_path(paths[i], sizeof paths[i], t, i);
        list[i] = paths[i];
    }
    snprintf(chrome, sizeof chrome, "%s/trace.json", t->config->output);
    snprintf(svg, sizeof svg, "%s/timeline.svg", t->config->output);
    return dls_trace_merge(list, t->world, chrome, svg, r->trace_start, end);
}

static dls_status end_trace(report *r, dls_trainer *t)
{
    char path[PATH_MAX];
    int over = t->step == t->config->trace_to || t->step == t->config->steps;
    if (r->trace_start < 0 || !over)
        return DLS_OK;
    DLS_TRY(dls_ctx_sync(&t->ctx));
    double end = dls_gpu_host_time();
    dls_trace_enable(0);
    trace_path(path, sizeof path, t, t->rank);
    DLS_TRY(dls_trace_save(path));
    dls_trace_clear();
    DLS_TRY(dls_comm_barrier(t->comm));
    if (t->rank == 0)
        DLS_TRY(merge_traces(r, t, end));
    r->trace_start = -1;
    return DLS_OK;
}

/* run the training */
static dls_status one_round(report *r, dls_trainer *t)
{
    const dls_train_config *c = t->config;
    DLS_TRY(begin_trace(r, t));
    DLS_TRY(dls_trainer_step(t));
    DLS_TRY(end_trace(r, t));
    int evaluates = due(t, c->evaluate_every);
    int saves = due(t, c->checkpoint_every) || t->step == c->steps;
    if (evaluates || saves || due(t, c->log_every))
        DLS_TRY(report_steps(r, t));
    if (evaluates)
        DLS_TRY(report_evaluation(r, t));
    return saves ? dls_trainer_save(t) : DLS_OK;
}

static dls_status run_all(report *r, dls_trainer *t)
{
    if (t->rank == 0 && t->step > 0)
        printf("resuming after step %lld\n", (long long)t->step);
    r->wall = wall_clock();
    r->trace_start = -1;
    while (t->step < t->config->steps)
        DLS_TRY(one_round(r, t));
    DLS_TRY(dls_ctx_sync(&t->ctx));
    DLS_TRY(write_memory(t));
    return dls_comm_barrier(t->comm);
}

dls_status dls_train_run(const dls_train_config *config, dls_comm *comm)
{
    report r = {0};
    dls_trainer *t = NULL;
    dls_status s;
    DLS_TRY_GOTO(s, dls_trainer_create(&t, config, comm), done);
    DLS_TRY_GOTO(s, open_report(&r, t), done);
    s = run_all(&r, t);
done:
    if (r.metrics)
        fclose(r.metrics);
    free(r.records);
    dls_trainer_free(t);
    return s;
}
