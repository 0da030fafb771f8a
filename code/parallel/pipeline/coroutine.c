/* code/parallel/pipeline/coroutine.c: from chapters/08-dualpipe-runtime.md. Edit the chapter, or edit here and run "make untangle". */
/* Stacks and switches; the C library's contexts do the work. */
#include "parallel/pipeline/coroutine.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

/* tell the sanitizers */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>

typedef struct sanitizer_view {
    void *inside, *outside;     /* what AddressSanitizer keeps of a stack left behind */
    const void *home;           /* the resumer's stack */
    size_t home_size;
} sanitizer_view;

static void open_view(sanitizer_view *v) { (void)v; }
static void close_view(sanitizer_view *v) { (void)v; }

static void before_going_in(sanitizer_view *v, const void *stack, size_t size)
{
    __sanitizer_start_switch_fiber(&v->outside, stack, size);
}

static void after_going_in(sanitizer_view *v)
{
    __sanitizer_finish_switch_fiber(v->inside, &v->home, &v->home_size);
}

static void before_coming_out(sanitizer_view *v, int for_good)
{
    __sanitizer_start_switch_fiber(for_good ? NULL : &v->inside, v->home, v->home_size);
}

static void after_coming_out(sanitizer_view *v)
{
    __sanitizer_finish_switch_fiber(v->outside, NULL, NULL);
}
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>

typedef struct sanitizer_view { void *inside, *outside; } sanitizer_view;

static void open_view(sanitizer_view *v) { v->inside = __tsan_create_fiber(0); }
static void close_view(sanitizer_view *v) { __tsan_destroy_fiber(v->inside); }

static void before_going_in(sanitizer_view *v, const void *stack, size_t size)
{
    (void)stack, (void)size;
    v->outside = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(v->inside, 0);
}

static void before_coming_out(sanitizer_view *v, int for_good)
{
    (void)for_good;
    __tsan_switch_to_fiber(v->outside, 0);
}

static void after_going_in(sanitizer_view *v) { (void)v; }
static void after_coming_out(sanitizer_view *v) { (void)v; }
#else
typedef struct sanitizer_view { char nothing; } sanitizer_view;

static void open_view(sanitizer_view *v) { (void)v; }
static void close_view(sanitizer_view *v) { (void)v; }
static void before_going_in(sanitizer_view *v, const void *stack, size_t size)
{
    (void)v, (void)stack, (void)size;
}
static void before_coming_out(sanitizer_view *v, int for_good)
{
    (void)v, (void)for_good;
}
static void after_going_in(sanitizer_view *v) { (void)v; }
static void after_coming_out(sanitizer_view *v) { (void)v; }
#endif

/* define a coroutine */
enum { GUARD = 64 << 10, STACK = 8 << 20 };

struct dls_coroutine {
    char *memory;           /* GUARD that nobody may touch, then STACK */
    ucontext_t inside, outside;
    sanitizer_view view;
    dls_coroutine_body *body;
    void *arg;
    int alive;
    dls_status with, result;
    dls_coroutine *outer;   /* the one that resumed it; NULL: none */
};

static _Thread_local dls_coroutine *running;

/* switch to and fro */
static void go_in(dls_coroutine *c)
{
    c->outer = running;
    running = c;
    before_going_in(&c->view, c->memory + GUARD, STACK);
    swapcontext(&c->outside, &c->inside);
    after_coming_out(&c->view);
}

static void come_out(dls_coroutine *c, int for_good)
{
    running = c->outer;
    before_coming_out(&c->view, for_good);
    swapcontext(&c->inside, &c->outside);
    after_going_in(&c->view);
}

/* The first function on every stack. It is never returned from. */
static void run_body(void)
{
    dls_coroutine *c = running;
    after_going_in(&c->view);
    c->result = c->body(c->arg);
    c->alive = 0;
    come_out(c, 1);
}

/* use a coroutine */
dls_status dls_coroutine_start(dls_coroutine *c, dls_coroutine_body *body, void *arg)
{
    if (c->alive)
        return DLS_FAIL(DLS_ERR_STATE, "a coroutine is started before its end");
    if (getcontext(&c->inside) != 0)
        return DLS_FAIL(DLS_ERR_STATE, "can not make a context for a coroutine");
    c->inside.uc_stack.ss_sp = c->memory + GUARD;
    c->inside.uc_stack.ss_size = STACK;
    c->inside.uc_link = NULL;
    makecontext(&c->inside, run_body, 0);
    c->body = body;
    c->arg = arg;
    c->alive = 1;
    return DLS_OK;
}


void dls_coroutine_resume(dls_coroutine *c, dls_status with)
{
    c->with = with;
    if (c->alive)
        go_in(c);
}

dls_status dls_coroutine_yield(void)
{
    dls_coroutine *c = running;
    if (!c)
        return DLS_OK;
    come_out(c, 0);
    return c->with;
}

int dls_coroutine_alive(const dls_coroutine *c)
{
    return c->alive;
}

dls_status dls_coroutine_result(const dls_coroutine *c)
{
    return c->result;
}

/* make a coroutine */
dls_status dls_coroutine_create(dls_coroutine **out)
{
    dls_coroutine *c = calloc(1, sizeof *c);
    char *memory = mmap(NULL, GUARD + STACK, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        memory = NULL;
    if (!c || !memory || mprotect(memory, GUARD, PROT_NONE) != 0) {
        if (memory)
            munmap(memory, GUARD + STACK);
        free(c);
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a coroutine's stack of %d bytes",
                        STACK);
    }
    c->memory = memory;
    open_view(&c->view);
    *out = c;
    return DLS_OK;
}

void dls_coroutine_free(dls_coroutine *c)
{
    if (!c)
        return;
    close_view(&c->view);
    munmap(c->memory, GUARD + STACK);
    free(c);
}
