/* code/vgpu/gpu_virtual_waits.c: from chapters/A-virtual-gpu-waits.md. Edit the chapter, or edit here and run "make untangle". */
/* What the host and the streams wait for: call sites, host threads, queues. */
#include "vgpu/waits.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "vgpu/vgpu_internal.h"

/* keep what a thread waits for */
static _Thread_local const char *site_call, *site_file;
static _Thread_local int site_line;
static _Thread_local const dls_vgpu_mark *waits_for;
static _Thread_local int only_asks;
static int threads, sleepers; // of the host; guarded by the runtime's lock

int dls_vgpu_site(const char *call, const char *file, int line)
{
    site_call = call;
    site_file = file;
    site_line = line;
    return 1;
}

void dls_vgpu_sited(dls_gpu_op *op)
{
    if (site_call == NULL)
        return;
    op->name = site_call;
    op->file = site_file;
    op->line = site_line;
}

/* count the threads of the host */
static pthread_key_t thread_key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;

static void forget_thread(void *unused)
{
    (void)unused;
    dls_gpu_relock(1);
    threads--;
    dls_gpu_unlock();
}

static void make_key(void) { pthread_key_create(&thread_key, forget_thread); }

void dls_vgpu_register(void)
{
    static _Thread_local int known;
    if (known)
        return;
    known = 1;
    pthread_once(&key_once, make_key);
    pthread_setspecific(thread_key, &known);
    threads++;
}

/* sleep for a thread */
int dls_vgpu_idle(const dls_vgpu_mark *mark, int polls)
{
    waits_for = mark;
    only_asks = polls;
    sleepers++;
    int answer = dls_vgpu.idle(dls_vgpu.idle_arg);
    sleepers--;
    waits_for = NULL;
    return answer;
}

void dls_vgpu_host_describe(char *text, size_t size)
{
    size_t used = strlen(text);
    if (site_call)
        snprintf(text + used, size - used, "; the host waits in %s at %s:%d", site_call,
                 site_file, site_line);
}

/* show the waits */
static int number_of(const struct CUstream_st *stream)
{
    int number = 0;
    for (const struct CUstream_st *s = dls_vgpu.streams; s; s = s->next, number++)
        if (s == stream)
            return number;
    return -1;
}

dls_gpu_host_wait dls_gpu_host_waits(void)
{
    const dls_vgpu_mark *mark = waits_for;
    return (dls_gpu_host_wait){
        .call = site_call ? site_call : "the host", .file = site_file,
        .line = site_line, .stream = mark && !mark->done ? number_of(mark->stream) : -1,
        .polls = only_asks, .threads = threads, .awake = threads - sleepers,
        .time = dls_vgpu.host_time, .enqueued = dls_vgpu.enqueued};
}

void dls_gpu_queues(void (*show)(void *context, const dls_gpu_queued *q), void *context)
{
    dls_gpu_queued q = {.stream = 0};
    for (const struct CUstream_st *s = dls_vgpu.streams; s; s = s->next, q.stream++)
        for (const dls_vgpu_operation *o = s->head; o; o = o->next) {
            q.name = s->name;
            q.first = o == s->head;
            q.behind = o->awaited && !o->awaited->done ? number_of(o->awaited->stream)
                                                       : -1;
            q.op = &o->op;
            q.arg = o->arg;
            show(context, &q);
        }
}
