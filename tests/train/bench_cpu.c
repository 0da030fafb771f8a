/* tests/train/bench_cpu.c: from chapters/09-transformer-cpu.md. Edit the chapter, or edit here and run "make untangle". */
/* A training step of GPT-2 124M on the host's kernels, beside llm.c's CPU trainer:
 *
 *   bench_cpu [PEER [DIRECTORY]]
 *
 * PEER is the program made from peer_llmc.c. Both train the same random weights on the
 * same tokens, step by step in turn, so that whatever else the machine does disturbs
 * both; medians are compared. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"
#include "base/table.h"
#include "model/generate.h"
#include "model/transformer.h"
#include "train/optimizer.h"
#include "vgpu/host_times.h"

enum { B = 4, T = 64, N = B * T, ROUNDS = 9, ONES = 40 };

/* stop the benchmark on an error */
#define OK(expr) ok((int)(expr), #expr)

static void ok(int code, const char *what)
{
    if (code == 0)
        return;
    fprintf(stderr, "bench_cpu: %s: %s\n", what, dls_status_message());
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return (x[(n - 1) / 2] + x[n / 2]) / 2;
}
/* measure the bandwidth */
typedef struct bandwidth { double copy, read; } bandwidth; // bytes/s

/* STREAM's copy counts the bytes read and the bytes written. */
static bandwidth measure_bandwidth(void)
{
    const long n = 32 << 20;
    static float *a, *b;
    bandwidth best = {0, 0};
    a = a ? a : malloc((size_t)n * sizeof *a);
    b = b ? b : malloc((size_t)n * sizeof *b);
    #pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i++)
        a[i] = b[i] = 1;
    for (int run = 0; run < 7; run++) {
        double sum = 0, start = now();
        #pragma omp parallel for schedule(static)
        for (long i = 0; i < n; i++)
            b[i] = a[i];
        double copied = now();
        #pragma omp parallel for schedule(static) reduction(+ : sum)
        for (long i = 0; i < n; i += 1 << 12) {
            float part = 0;
            #pragma omp simd reduction(+ : part)
            for (long j = i; j < i + (1 << 12); j++)
                part += b[j];
            sum += part;
        }
        double end = now(), bytes = (double)n * sizeof *a;
        best.copy = fmax(best.copy, 2 * bytes / (copied - start));
        best.read = fmax(best.read, sum == n ? bytes / (end - copied) : 0);
    }
    return best;
}
/* make a trainee */
typedef struct trainee {
    dls_ctx ctx;
    dls_transformer *model;
    dls_optimizer *optimizer;
    int *tokens;           // device (B, T), then targets (B, T)
    long step;
    double times[ROUNDS];  // s
    double loss;
    dls_host_time spent[128];
    int names;
} trainee;

static int host_tokens[2 * N];

/* The same values for all types: masters, where there are any, are set with them. */
static void start_from_values(trainee *t)
{
    static float *values; // drawing 124 million normal numbers takes ten seconds
    if (values == NULL) {
        values = malloc(t->model->params.elements * sizeof *values);
        OK(values == NULL);
        dls_params_fill(&t->model->params, 1, values);
    }
    OK(dls_optimizer_put(t->optimizer, values));
}

static void make_trainee(trainee *t, dls_dtype type)
{
    dls_transformer_config c = dls_transformer_gpt2(50257, 1024, 12, 12, 768);
    dls_adamw_options adamw = {.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
    *t = (trainee){0};
    OK(dls_ctx_create(&t->ctx, 0, type));
    OK(dls_transformer_create(&t->model, &t->ctx, &c, B, T));
    OK(dls_optimizer_create(&t->optimizer, &t->ctx, &t->model->params, &adamw));
    start_from_values(t);
    for (int i = 0; i < 2 * N; i++)
        host_tokens[i] = (int)(dls_rng_u32(1, 2, (uint64_t)i) % 50257);
    OK(cudaMalloc((void **)&t->tokens, sizeof host_tokens));
    OK(cudaMemcpy(t->tokens, host_tokens, sizeof host_tokens, cudaMemcpyHostToDevice));
    OK(dls_ctx_sync(&t->ctx));
}
/* take a measured step */
static double mean_loss(trainee *t)
{
    float losses[N];
    double sum = 0;
    OK(cudaMemcpy(losses, dls_transformer_losses(t->model), sizeof losses,
                  cudaMemcpyDeviceToHost));
    for (int i = 0; i < N; i++)
        sum += losses[i];
    return sum / N;
}

static double train_step(trainee *t)
{
    double start = now();
    OK(dls_transformer_forward(t->model, t->tokens, t->tokens + N, B, T));
    OK(dls_params_renew_grads(&t->model->params, &t->ctx));
    OK(dls_transformer_backward(t->model, 1.0 / N, NULL));
    OK(dls_optimizer_step(t->optimizer, 1e-4, ++t->step));
    OK(dls_ctx_sync(&t->ctx));
    t->loss = mean_loss(t);
    return now() - start;
}

/* write the peers files */
typedef struct peer {
    pid_t pid;
    FILE *to, *from;
    char path[512];
    double times[ROUNDS], loss;
} peer;

static void write_floats(const dls_param *p, FILE *f, size_t pad)
{
    float *host = calloc(p->count + pad, sizeof *host);
    OK(host == NULL);
    OK(cudaMemcpy(host, p->value, p->count * sizeof *host, cudaMemcpyDeviceToHost));
    OK(fwrite(host, sizeof *host, p->count + pad, f) != p->count + pad);
    free(host);
}

static void write_parameter(const trainee *t, const char *name, FILE *f, size_t pad)
{
    const dls_param *p = dls_params_find(&t->model->params, name);
    if (p == NULL)
        fprintf(stderr, "bench_cpu: no parameter %s\n", name);
    OK(p == NULL);
    write_floats(p, f, pad);
}

/* Format 3: 256 integers, then the tensors, each for all blocks, the table padded to a
 * multiple of 128 rows; then our own tokens and targets. */
static void write_files(const trainee *t, const char *path)
{
    static const char *const parts[] = {
        "ln1.weight", "ln1.bias", "attention.qkv.weight", "attention.qkv.bias",
        "attention.proj.weight", "attention.proj.bias", "ln2.weight", "ln2.bias",
        "mlp.fc.weight", "mlp.fc.bias", "mlp.proj.weight", "mlp.proj.bias"};
    int header[256] = {20240326, 3, 1024, 50257, 12, 12, 768, 50304};
    char name[DLS_PARAM_NAME];
    FILE *f = fopen(path, "wb");
    OK(f == NULL || fwrite(header, sizeof header, 1, f) != 1);
    write_parameter(t, "wte.weight", f, (50304 - 50257) * 768);
    write_parameter(t, "wpe.weight", f, 0);
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++)
        for (int l = 0; l < 12; l++) {
            snprintf(name, sizeof name, "block.%d.%s", l, parts[k]);
            write_parameter(t, name, f, 0);
        }
    write_parameter(t, "ln_f.weight", f, 0);
    write_parameter(t, "ln_f.bias", f, 0);
    OK(fwrite(host_tokens, sizeof host_tokens, 1, f) != 1);
    OK(fclose(f));
}

/* run the peer */
/* Before the first use of a device: a process that has used one must not be forked. */
static void start_peer(peer *p, const char *program, const char *directory)
{
    int in[2], out[2];
    OK(pipe(in) || pipe(out));
    snprintf(p->path, sizeof p->path, "%s/gpt2_124M.bin", directory);
    p->pid = fork();
    OK(p->pid < 0);
    if (p->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[1]);
        close(out[0]);
        execl(program, program, p->path, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    p->to = fdopen(in[1], "w");
    p->from = fdopen(out[0], "r");
    OK(p->to == NULL || p->from == NULL);
}

static double peer_step(peer *p)
{
    double seconds;
    OK(fputs("step\n", p->to) < 0 || fflush(p->to));
    if (fscanf(p->from, "%lf %lf", &seconds, &p->loss) != 2) {
        fprintf(stderr, "bench_cpu: the peer has ended\n");
        exit(1);
    }
    return seconds;
}

static void send_weights(peer *p, const trainee *t)
{
    write_files(t, p->path);
    peer_step(p); // reads the file and warms up
}

static void stop_peer(peer *p)
{
    if (p->pid == 0)
        return;
    fclose(p->to);
    fclose(p->from);
    unlink(p->path);
    waitpid(p->pid, NULL, 0);
}

/* race the trainees */
static void keep_times(trainee *t)
{
    const dls_host_time *spent;
    int n = dls_host_times(&spent);
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < t->names && strcmp(t->spent[k].name, spent[i].name) != 0)
            k++;
        if (k == t->names)
            t->spent[t->names++] = (dls_host_time){.name = spent[i].name};
        t->spent[k].calls += spent[i].calls;
        t->spent[k].seconds += spent[i].seconds;
        t->spent[k].flops += spent[i].flops;
        t->spent[k].bytes += spent[i].bytes;
    }
}

static void race_once(trainee *ours, int n, peer *p, int round)
{
    if (p)
        p->times[round] = peer_step(p);
    for (int i = 0; i < n; i++) {
        dls_host_times_start();
        ours[i].times[round] = train_step(&ours[i]);
        dls_host_times_stop();
        keep_times(&ours[i]);
    }
}

static const dls_column race_columns[] = {
    {"step of GPT-2 124M, B 4, T 64", NULL}, {"median ms", "%.0f"}, {"best ms", "%.0f"},
    {"loss", "%.4f"}, {"times faster", "%.2f"}, {"at best", "%.2f"}};

static void add_racer(dls_table *t, const char *name, double *times, double loss,
                      const double peer[2])
{
    double middle = median(times, ROUNDS);
    dls_table_add_text(t, name);
    dls_table_add_real(t, 1e3 * middle);
    dls_table_add_real(t, 1e3 * times[0]);
    dls_table_add_real(t, loss);
    dls_table_add_real(t, peer ? peer[0] / middle : NAN);
    dls_table_add_real(t, peer ? peer[1] / times[0] : NAN);
}

static void race(trainee *ours, int n, peer *p)
{
    dls_table *table;
    double theirs[2];
    for (int i = 0; i < n; i++)
        train_step(&ours[i]); // the first step touches all memory
    for (int round = 0; round < ROUNDS; round++)
        race_once(ours, n, p, round);
    OK(dls_table_create(&table, race_columns, 6));
    if (p) {
        add_racer(table, "llm.c, f32", p->times, p->loss, NULL);
        theirs[0] = median(p->times, ROUNDS);
        theirs[1] = p->times[0];
    }
    for (int i = 0; i < n; i++)
        add_racer(table, dls_dtype_name(ours[i].ctx.dtype), ours[i].times, ours[i].loss,
                  p ? theirs : NULL);
    printf("%d threads\n", dls_gpu_threads());
    OK(dls_table_print(table, stdout, 0));
    dls_table_free(table);
}

/* print where the time goes */
static int longest_first(const void *a, const void *b)
{
    double x = ((const dls_host_time *)a)->seconds;
    double y = ((const dls_host_time *)b)->seconds;
    return (x < y) - (x > y);
}

static void print_times(trainee *t)
{
    const dls_column columns[] = {{dls_dtype_name(t->ctx.dtype), NULL}, {"calls", NULL},
                                  {"ms", "%.2f"}, {"share %", "%.1f"}, {"GB/s", "%.1f"},
                                  {"GFLOP/s", "%.0f"}};
    double all = 0, gemm = 0, whole = 0;
    dls_table *table;
    qsort(t->spent, (size_t)t->names, sizeof *t->spent, longest_first);
    for (int i = 0; i < ROUNDS; i++)
        whole += t->times[i];
    OK(dls_table_create(&table, columns, 6));
    for (int i = 0; i < t->names; i++) {
        const dls_host_time *h = &t->spent[i];
        dls_table_add_text(table, h->name);
        dls_table_add_int(table, h->calls / ROUNDS);
        dls_table_add_real(table, 1e3 * h->seconds / ROUNDS);
        dls_table_add_real(table, 100 * h->seconds / whole);
        dls_table_add_real(table, h->bytes / h->seconds * 1e-9);
        dls_table_add_real(table, h->flops / h->seconds * 1e-9);
        all += h->seconds;
        if (strncmp(h->name, "gemm", 4) == 0 || strncmp(h->name, "linear", 6) == 0)
            gemm += h->seconds;
    }
    printf("\n");
    OK(dls_table_print(table, stdout, 0));
    dls_table_free(table);
    printf("outside GEMM %.1f %%, of which between the operations %.2f %%\n",
           100 * (1 - gemm / whole), 100 * (1 - all / whole));
}

/* read the weights for one token */
typedef struct stamps { double at[ONES + 1]; int n; } stamps;

static dls_status stamp(void *self, int sequence, int token)
{
    stamps *s = self;
    (void)sequence, (void)token;
    s->at[s->n++] = now();
    return DLS_OK;
}

/* A model of one sequence that can not be trained, with the trainee's values. */
static dls_transformer *frozen_copy(trainee *t)
{
    dls_transformer *copy;
    dls_transformer_config c = t->model->config;
    size_t bytes = t->model->params.elements * dls_dtype_size(t->ctx.dtype);
    c.frozen = 1;
    OK(dls_transformer_create(&copy, &t->ctx, &c, 1, T));
    OK(cudaMemcpy(copy->params.values, t->model->params.values, bytes,
                  cudaMemcpyDeviceToDevice));
    return copy;
}

/* Seconds between tokens. */
static void time_generation(trainee *t, double *times)
{
    stamps s = {.n = 0};
    dls_generator *g;
    dls_transformer *model = frozen_copy(t);
    dls_prompt prompt = {.tokens = host_tokens, .n = T};
    dls_generate_options o = {.draw = {0, 0, 1, 1}, .tokens = ONES + 1, .emit = stamp,
                              .self = &s};
    OK(dls_generator_create(&g, model, 1));
    OK(dls_generator_run(g, &prompt, 1, &o));
    dls_generator_free(g);
    dls_transformer_free(model);
    for (int i = 0; i < ONES; i++)
        times[i] = s.at[i + 1] - s.at[i];
}

static void print_token(const char *what, const trainee *t, double *times, double bytes,
                        bandwidth b)
{
    double speed = bytes / median(times, ONES), best = bytes / times[0];
    printf("\n%s, %s: %.2f ms (best %.2f) for %.0f MB: %.1f GB/s (best %.1f)\n"
           "  copy %.1f GB/s (read and written bytes): %.0f %% (best %.0f %%); "
           "reading alone %.1f GB/s: %.0f %% (best %.0f %%)\n",
           what, dls_dtype_name(t->ctx.dtype), 1e3 * median(times, ONES), 1e3 * times[0],
           bytes * 1e-6, speed * 1e-9, best * 1e-9, b.copy * 1e-9, 100 * speed / b.copy,
           100 * best / b.copy, b.read * 1e-9, 100 * speed / b.read, 100 * best / b.read);
}

static void read_weights(trainee *t)
{
    double one[ONES], next[ONES], size = (double)dls_dtype_size(t->ctx.dtype);
    const dls_param *wpe = dls_params_find(&t->model->params, "wpe.weight");
    double bytes = size * (double)(t->model->params.elements - (wpe ? wpe->count : 0));
    double cache = size * 12 * 2 * 768 * (T + ONES / 2);
    bandwidth b = measure_bandwidth();
    for (int i = 0; i < ONES; i++) {
        double start = now();
        OK(dls_transformer_forward(t->model, t->tokens, NULL, 1, 1));
        OK(dls_ctx_sync(&t->ctx));
        one[i] = now() - start;
    }
    time_generation(t, next);
    bandwidth after = measure_bandwidth();
    b = (bandwidth){fmax(b.copy, after.copy), fmax(b.read, after.read)};
    print_token("forward, one token", t, one, bytes, b);
    print_token("generated behind 64 to 104 tokens", t, next, bytes + cache, b);
}

/* run the benchmark */
int main(int argc, char **argv)
{
    peer other = {0};
    trainee ours[2];
    int trainees = 0;
    if (argc > 1)
        start_peer(&other, argv[1], argc > 2 ? argv[2] : ".");
    for (dls_dtype type = DLS_F32; type < DLS_DTYPES; type++)
        if (type != DLS_F64)
            make_trainee(&ours[trainees++], type);
    if (argc > 1)
        send_weights(&other, &ours[0]);
    race(ours, trainees, argc > 1 ? &other : NULL);
    for (int i = 0; i < trainees; i++)
        print_times(&ours[i]);
    for (int i = 0; i < trainees; i++)
        read_weights(&ours[i]);
    stop_peer(&other);
    return 0;
}
