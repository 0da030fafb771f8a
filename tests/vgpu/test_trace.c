/* tests/vgpu/test_trace.c: from chapters/A-virtual-gpu-traces.md. Edit the chapter, or edit here and run "make untangle". */
/* Traces: spans and ranges of a known program, the merged files, the drawing. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../comm/world.h"
#include "base/file.h"
#include "trace_check.h"
#include "vgpu/gpu.h"
#include "vgpu/trace.h"

#define OK(expr) cr_assert_eq((expr), 0, "%s: %s", #expr, dls_status_message())

#ifdef DLS_VIRTUAL_GPU // times, orders and capacities of the emulation
/* run a backward pass with reductions */
enum { LAYERS = 4 };
static const double COMPUTE = 120e-6, REDUCE = 90e-6; // s per layer

static void reduce_on(cudaStream_t stream)
{
    dls_gpu_op op = {.name = "all-reduce", .kind = DLS_GPU_COMMUNICATION,
                     .flops = REDUCE * 53.6e12};
    OK(dls_gpu_enqueue(stream, &op, NULL));
}

static void backward(cudaStream_t compute, cudaStream_t comm)
{
    static const char *const names[LAYERS] = {"layer 1", "layer 2", "layer 3", "layer 4"};
    cudaEvent_t ready;
    OK(cudaEventCreate(&ready));
    dls_trace_range_push("backward");
    for (int layer = LAYERS - 1; layer >= 0; layer--) {
        dls_gpu_op op = {.kind = DLS_GPU_COMPUTE};
        dls_trace_range_push(names[layer]);
        dls_gpu_cost("gradient", COMPUTE * 53.6e12, 1e6);
        OK(dls_gpu_enqueue(compute, &op, NULL));
        dls_trace_range_pop();
        OK(cudaEventRecord(ready, compute));
        OK(cudaStreamWaitEvent(comm, ready, 0));
        reduce_on(comm);
    }
    dls_trace_range_pop();
    OK(cudaDeviceSynchronize());
    OK(cudaEventDestroy(ready));
}

/* One rank's trace of the program, in a process of its own. */
static void trace_rank(int rank, int overlap, uint64_t seed, const char *path)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dls_gpu_options o = {.rank = rank, .local_rank = rank, .world = 4, .seed = seed};
        cudaStream_t compute, comm;
        OK(dls_gpu_init(&o));
        dls_trace_enable(1);
        OK(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking));
        OK(cudaStreamCreateWithFlags(&comm, cudaStreamNonBlocking));
        OK(dls_gpu_name_stream(compute, "compute"));
        OK(dls_gpu_name_stream(comm, "comm"));
        backward(compute, overlap ? comm : compute);
        OK(dls_trace_save(path));
        _exit(0);
    }
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* read a trace back */
static json_t *load(const char *path)
{
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    cr_assert_not_null(root, "%s: %s", path, error.text);
    return json_object_get(root, "traceEvents");
}

/* The k-th complete event of this process and name, or NULL. */
static json_t *find(json_t *events, int pid, const char *name, int k)
{
    size_t i;
    json_t *e;
    json_array_foreach(events, i, e)
        if (strcmp(json_string_value(json_object_get(e, "ph")), "X") == 0 &&
            json_integer_value(json_object_get(e, "pid")) == pid &&
            strcmp(json_string_value(json_object_get(e, "name")), name) == 0 && k-- == 0)
            return e;
    return NULL;
}

static double number(json_t *event, const char *key)
{
    return json_number_value(json_object_get(event, key));
}

/* test spans of the overlap */
static char folder[] = "/tmp/trace-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[8][256];
    static int made, next;
    if (!made)
        cr_assert_not_null(mkdtemp(folder));
    made = 1;
    next = (next + 1) % 8;
    snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
    return path[next];
}

Test(vgpu, trace_has_the_spans)
{
    const char *file = in_folder("rank.json");
    trace_rank(2, 1, 1, file);
    json_t *events = load(file);
    for (int k = 0; k < LAYERS; k++) {
        json_t *g = find(events, 2, "gradient", k), *r = find(events, 2, "all-reduce", k);
        cr_assert(g && r);
        cr_assert_float_eq(number(g, "ts"), 6.7 + 120 * k, 1e-6);
        cr_assert_float_eq(number(g, "dur"), 120, 1e-6);
        cr_assert_float_eq(number(r, "ts"), 6.7 + 120 * (k + 1), 1e-6);
        cr_assert_str_eq(json_string_value(json_object_get(r, "cat")), "communication");
    }
    cr_assert_null(find(events, 2, "gradient", LAYERS));
    json_t *range = find(events, 2, "backward", 0);
    json_t *inner = find(events, 2, "layer 2", 0);
    cr_assert_float_eq(number(range, "ts"), 6.7, 1e-6);
    cr_assert_float_eq(number(range, "dur"), 480, 1e-6);
    cr_assert_eq(number(inner, "tid"), 1000001);
    cr_assert_float_eq(number(inner, "ts"), 246.7, 1e-6);
}

/* test that traces are reproducible */
Test(vgpu, traces_do_not_depend_on_the_seed)
{
    char *first, *other;
    size_t n, m;
    trace_rank(0, 1, 1, in_folder("first.json"));
    OK(dls_file_read(in_folder("first.json"), &first, &n));
    for (uint64_t seed = 2; seed < 20; seed++) {
        trace_rank(0, 1, seed, in_folder("other.json"));
        OK(dls_file_read(in_folder("other.json"), &other, &m));
        cr_assert(n == m && memcmp(first, other, n) == 0, "seed %d", (int)seed);
        free(other);
    }
    free(first);
}

/* test the drawing */
static size_t occurrences(const char *text, const char *what)
{
    size_t n = 0;
    while ((text = strstr(text, what)) != NULL) {
        text += strlen(what);
        n++;
    }
    return n;
}

/* Ranks 0 and 1 one after the other, ranks 2 and 3 overlapped. */
Test(vgpu, overlap_is_drawn)
{
    const char *files[4], *figures = getenv("DLS_FIGURES");
    char svg[512], *text;
    size_t size;
    for (int rank = 0; rank < 4; rank++) {
        char name[16];
        snprintf(name, sizeof name, "%d.json", rank);
        files[rank] = in_folder(name);
        trace_rank(rank, rank >= 2, 1, files[rank]);
    }
    snprintf(svg, sizeof svg, "%s/overlap.svg", figures ? figures : folder);
    OK(dls_trace_merge(files, 4, in_folder("merged.json"), svg, 0, 0));
    json_t *events = load(in_folder("merged.json"));
    cr_assert_float_eq(number(find(events, 1, "all-reduce", 3), "ts"), 6.7 + 750, 1e-6);
    cr_assert_float_eq(number(find(events, 3, "all-reduce", 3), "ts"), 6.7 + 480, 1e-6);
    OK(dls_file_read(svg, &text, &size));
    cr_assert_eq(occurrences(text, "<rect class=\"k0\""), 16 + 1, "bars and legend");
    cr_assert_eq(occurrences(text, "<rect class=\"k2\""), 16 + 1);
    cr_assert_eq(occurrences(text, ">rank "), 4);
    cr_assert_eq(occurrences(text, "<rect class=\"range"), 4 * (LAYERS + 1));
    cr_assert_eq(occurrences(text, "nan") + occurrences(text, "inf"), 0);
    free(text);
}

static void trace_launches(int rank, double first, const char *path)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dls_gpu_options o = {.rank = rank, .local_rank = rank, .world = 2};
        cudaStream_t s;
        OK(dls_gpu_init(&o));
        dls_trace_enable(1);
        OK(cudaStreamCreate(&s));
        OK(dls_gpu_name_stream(s, rank ? "one long" : "all short"));
        for (int i = 0; i < 8; i++) {
            dls_gpu_op op = {.name = i ? "" : "first", .flops = i ? 0 : first * 53.6e12};
            OK(dls_gpu_enqueue(s, &op, NULL));
        }
        OK(cudaStreamSynchronize(s));
        OK(dls_trace_save(path));
        _exit(0);
    }
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

Test(vgpu, launches_are_drawn)
{
    const char *files[2] = {in_folder("short.json"), in_folder("long.json")};
    const char *figures = getenv("DLS_FIGURES");
    char svg[512], *text;
    size_t size;
    trace_launches(0, 0, files[0]);
    trace_launches(1, 20e-6, files[1]);
    snprintf(svg, sizeof svg, "%s/launches.svg", figures ? figures : folder);
    OK(dls_trace_merge(files, 2, NULL, svg, 0, 45e-6));
    OK(dls_file_read(svg, &text, &size));
    cr_assert_eq(occurrences(text, "<rect class=\"k0\""), 16 + 1);
    cr_assert_eq(occurrences(text, "first, 6.7 to 26.7"), 1);
    free(text);
}

static void write_text(const char *path, const char *text)
{
    OK(dls_file_write(path, text, strlen(text)));
}

static char *drawing_of(const char *json, double from, double to)
{
    const char *file = in_folder("hand.json"), *svg = in_folder("hand.svg");
    char *text;
    size_t size;
    write_text(file, json);
    OK(dls_trace_merge(&file, 1, NULL, svg, from, to));
    OK(dls_file_read(svg, &text, &size));
    return text;
}

Test(vgpu, drawings_survive_odd_traces)
{
    char *empty = drawing_of("{\"traceEvents\":[]}", 0, 0);
    cr_assert(strstr(empty, "</svg>") && !strstr(empty, "nan"));
    char *odd = drawing_of("{\"traceEvents\":[{\"ph\":\"X\",\"name\":\"a<b&\\\"c\\\"\","
                           "\"cat\":\"copy\",\"pid\":0,\"tid\":1,\"ts\":0,"
                           "\"dur\":9000}]}", 1e-3, 2e-3);
    cr_assert(strstr(odd, "a&lt;b&amp;&quot;c&quot;") && !strstr(odd, "a<b"));
    cr_assert(strstr(odd, "x=\"132.00\"") && strstr(odd, "width=\"812.00\""), "clipped");
    char *point = drawing_of("{\"traceEvents\":[{\"ph\":\"X\",\"cat\":\"host\",\"pid\":0,"
                             "\"tid\":1,\"ts\":5,\"dur\":0}]}", 0, 0);
    cr_assert_eq(occurrences(point, "class=\"k3\""), 0, "no bar without length");
    free(empty);
    free(odd);
    free(point);
}

Test(vgpu, long_traces_make_small_drawings)
{
    char *json = malloc(20 << 20), *end = json;
    end += sprintf(end, "{\"traceEvents\":[");
    for (int i = 0; i < 100000; i++)
        end += sprintf(end, "%s{\"ph\":\"X\",\"name\":\"k\",\"cat\":\"compute\","
                       "\"pid\":0,\"tid\":1,\"ts\":%d,\"dur\":9}", i ? "," : "", 10 * i);
    sprintf(end, "]}");
    char *text = drawing_of(json, 0, 0);
    cr_assert_lt(strlen(text), 200000, "%zu bytes", strlen(text));
    free(text);
    free(json);
}

/* test the arrows */
static int exchange(void *arg, double *earliest)
{
    int rank = *(int *)arg;
    dls_trace_message(1, rank, 1 - rank, 7, 0, 10e-6);
    dls_trace_message(0, 1 - rank, rank, 7, 0, rank ? 30e-6 : 60e-6);
    *earliest = 0;
    return 1;
}

static int exchanged(void *arg, double start, double *finish)
{
    (void)arg;
    (void)start;
    *finish = 60e-6;
    return 0;
}

static void trace_exchange(int rank, const char *path)
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dls_gpu_options o = {.rank = rank, .local_rank = rank, .world = 2};
        dls_gpu_op op = {.name = "exchange", .kind = DLS_GPU_COMMUNICATION,
                         .ready = exchange, .run = exchanged};
        OK(dls_gpu_init(&o));
        dls_trace_enable(1);
        OK(dls_gpu_enqueue(NULL, &op, &rank));
        OK(cudaDeviceSynchronize());
        OK(dls_trace_save(path));
        _exit(0);
    }
    waitpid(child, &status, 0);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

Test(vgpu, arrows_join_causes_and_effects)
{
    const char *files[2] = {in_folder("0.json"), in_folder("1.json")};
    const char *merged = in_folder("merged.json"), *svg = in_folder("arrows.svg");
    int messages, waits;
    char *text;
    size_t size;
    trace_rank(0, 1, 1, files[0]);
    check_trace(files[0], &messages, &waits);
    cr_assert_eq(waits, LAYERS);
    cr_assert_eq(messages, 0);
    trace_exchange(0, files[0]);
    trace_exchange(1, files[1]);
    OK(dls_trace_merge(files, 2, merged, svg, 0, 0));
    check_trace(merged, &messages, &waits);
    cr_assert_eq(messages, 2);
    cr_assert_eq(waits, 0);
    OK(dls_file_read(svg, &text, &size));
    cr_assert_eq(occurrences(text, "class=\"arrow\""), 2);
    cr_assert_eq(occurrences(text, "class=\"head\""), 2);
    free(text);
}

static char ring_files[4][256];

static dls_status ring_rank(int rank, void *arg)
{
    const double us[4] = {10, 20, 60, 30};
    cudaStream_t compute, comm_stream;
    dls_comm *comm;
    float *buffer;
    (void)arg;
    DLS_TRY(test_world(NULL, &comm));
    DLS_TRY(test_buffer(&buffer, 1 << 20));
    DLS_CUDA(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking));
    DLS_CUDA(cudaStreamCreateWithFlags(&comm_stream, cudaStreamNonBlocking));
    DLS_CUDA(dls_gpu_name_stream(compute, "compute"));
    DLS_CUDA(dls_gpu_name_stream(comm_stream, "ring"));
    dls_trace_enable(1);
    dls_gpu_op op = {.name = "compute", .flops = us[rank] * 1e-6 * 53.6e12};
    cudaEvent_t ready;
    DLS_CUDA(cudaEventCreate(&ready));
    DLS_CUDA(dls_gpu_enqueue(compute, &op, NULL));
    DLS_CUDA(cudaEventRecord(ready, compute));
    DLS_CUDA(cudaStreamWaitEvent(comm_stream, ready, 0));
    DLS_TRY(dls_comm_all_reduce(comm, buffer, 1 << 18, DLS_F32, DLS_SUM, comm_stream));
    DLS_CUDA(cudaDeviceSynchronize());
    DLS_TRY(dls_trace_save(ring_files[rank]));
    dls_comm_destroy(comm);
    return DLS_OK;
}

Test(vgpu, messages_of_a_ring_are_drawn)
{
    const char *figures = getenv("DLS_FIGURES"), *files[4];
    const char *merged = in_folder("merged.json");
    char svg[512], *text;
    int messages, waits;
    size_t size;
    for (int rank = 0; rank < 4; rank++) {
        snprintf(ring_files[rank], sizeof ring_files[rank], "%s/ring-%d", folder, rank);
        files[rank] = ring_files[rank];
    }
    setenv("DLS_ALGORITHM", "all_reduce:ring", 1); // the cost model prefers another
    OK(dls_run_ranks(4, ring_rank, NULL));
    snprintf(svg, sizeof svg, "%s/ring.svg", figures ? figures : folder);
    OK(dls_trace_merge(files, 4, merged, svg, 0, 0));
    check_trace(merged, &messages, &waits);
    cr_assert_eq(messages, 2 * 3 * 4);
    cr_assert_eq(waits, 4);
    OK(dls_file_read(svg, &text, &size));
    cr_assert_eq(occurrences(text, "class=\"arrow\""), 24);
    cr_assert_eq(occurrences(text, "class=\"arrow event\""), 4);
    free(text);
}

Test(vgpu, counters_follow_the_spans)
{
    const char *file = in_folder("rank.json");
    double value = -1, last = -1;
    size_t i;
    json_t *e;
    trace_rank(0, 1, 1, file);
    json_array_foreach(load(file), i, e) {
        if (strcmp(event_text(e, "ph"), "C") != 0 ||
            strcmp(event_text(e, "name"), "arithmetic") != 0)
            continue;
        last = json_number_value(json_object_get(json_object_get(e, "args"), "TFLOP/s"));
        value = event_number(e, "ts") <= 200 ? last : value;
    }
    cr_assert_float_eq(value, 53.6, 1e-6);
    cr_assert_eq(last, 0);
}

/* test bad traces */
Test(vgpu, bad_traces_are_refused)
{
    static const char *const cases[][2] = {
        {"{\"traceEvents\": [", "not JSON"},
        {"[1, 2]", "expected an object with an array \"traceEvents\""},
        {"{\"traceEvents\": {}}", "expected an object with an array"},
        {"{\"traceEvents\": [{\"ph\": \"X\", \"name\": \"k\", \"ts\": 1}]}",
         "event 0 'k': expected numbers ts and dur >= 0"},
        {"{\"traceEvents\": [{\"ph\":\"X\",\"ts\":1,\"dur\":-1}]}", "expected numbers"},
        {"", "not JSON"},
    };
    const char *file = in_folder("bad.json"), *svg = in_folder("bad.svg");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_text(file, cases[i][0]);
        cr_assert_eq(dls_trace_merge(&file, 1, NULL, svg, 0, 0), DLS_ERR_INPUT);
        cr_assert(strstr(dls_status_message(), cases[i][1]) &&
                      strncmp(dls_status_message(), file, strlen(file)) == 0,
                  "case %zu: %s", i, dls_status_message());
        cr_assert_neq(access(svg, F_OK), 0, "nothing is drawn");
    }
}
#endif
