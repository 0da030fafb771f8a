/* code/vgpu/gpu_virtual_space.c: from chapters/A-virtual-gpu-space.md. Edit the chapter, or edit here and run "make untangle". */
/* Device memory's addresses, and its removal from the sight of host code.
 *
 *            BASE                 +256 GiB
 *   open     [slab 1][slab 2  ]......[device 1 ...
 *   closed   (nothing mapped)        (nothing)
 *            BASE + ALIAS
 *   closed   [slab 1][slab 2  ]......[device 1 ...
 *
 * A slab is a multiple of 1 GiB, so that moving it is a few words of the page table.
 * DLS_HOST_GUARD=0 leaves everything open, as does a kernel without such moves. */
#include "vgpu/space.h"

#include <dlfcn.h>
#include <elf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "vgpu/accounts.h"
#include "vgpu/vgpu_internal.h"

/* keep the slabs and the holes */
enum { SLABS = 64, ALIGNMENT = 256 };
static const size_t GIB = 1ul << 30;

typedef struct hole {
    struct hole *next; // at a higher address
    char *start;
    size_t bytes;
} hole;

static struct space {
    size_t mapped;           // bytes from the device's base on
    size_t slab[SLABS];      // their sizes
    int slabs;
    hole *holes;
} spaces[DLS_VGPU_DEVICES];

static int guarded = -1; // -1: not yet known
static int is_open;
static unsigned long openings;

static char *base_of(int device)
{
    return (char *)(DLS_SPACE_BASE + (unsigned long long)device * DLS_SPACE_EACH);
}

int dls_space_has(const void *address)
{
    return (size_t)address - DLS_SPACE_BASE < DLS_VGPU_DEVICES * DLS_SPACE_EACH;
}

/* move device memory */
static int move_all(unsigned long long from_offset, unsigned long long to_offset)
{
    for (int d = 0; d < DLS_VGPU_DEVICES; d++) {
        char *at = base_of(d);
        for (int i = 0; i < spaces[d].slabs; at += spaces[d].slab[i++]) {
            size_t size = spaces[d].slab[i];
            if (mremap(at + from_offset, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
                       at + to_offset) == MAP_FAILED)
                return -1;
        }
    }
    return 0;
}

void dls_space_open(void)
{
    if (guarded <= 0 || is_open)
        return;
    is_open = 1;
    openings++;
    if (move_all(DLS_SPACE_ALIAS, 0) != 0)
        abort(); // the kernel has no memory for a page table: nothing can go on
}

void dls_space_close(void)
{
    if (guarded > 0 && is_open && move_all(0, DLS_SPACE_ALIAS) != 0)
        abort();
    if (guarded > 0)
        is_open = 0;
}

void *dls_space_reach(const void *address)
{
    int hidden = dls_space_has(address) && guarded > 0 && !is_open;
    return (char *)(size_t)address + (hidden ? DLS_SPACE_ALIAS : 0);
}

unsigned long dls_space_openings(void) { return openings; }

/* explain a fault */
/* The address as addr2line wants it, and the file that holds it; 0: not known. */
static size_t place_in_file(const void *code, char file[256])
{
    Dl_info info;
    ssize_t n = -1;
    if (!dladdr(code, &info) || info.dli_fbase == NULL)
        return 0;
    const Elf64_Ehdr *header = info.dli_fbase;
    if (getauxval(AT_PHDR) - (size_t)header < 4096) // the program itself
        n = readlink("/proc/self/exe", file, 255);
    if (n >= 0)
        file[n] = '\0';
    else
        snprintf(file, 256, "%s", info.dli_fname);
    return header->e_type == ET_DYN ? (size_t)code - (size_t)info.dli_fbase
                                    : (size_t)code;
}

void dls_space_where(const void *code, char *text, size_t size)
{
    int ends[2];
    char address[32], file[256];
    size_t at = place_in_file(code, file);
    snprintf(text, size, "%p", code);
    if (at == 0 || pipe(ends) != 0)
        return;
    snprintf(address, sizeof address, "0x%zx", at - 1); // inside the call, not behind it
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(STDERR_FILENO);
        execlp("addr2line", "addr2line", "-e", file, address, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    ssize_t n = child > 0 ? read(ends[0], text, size - 1) : 0;
    close(ends[0]);
    waitpid(child, NULL, 0);
    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n ")] = '\0';
    if (n <= 0 || text[0] == '?')
        snprintf(text, size, "%p", code);
}

static struct sigaction before;

static void describe_fault(const char *address, int is_write, const void *code)
{
    char text[512], here[256], there[256];
    const dls_account_block *b = dls_account_at(address);
    dls_space_where((const char *)code + 1, here, sizeof here);
    int device = (int)(((size_t)address - DLS_SPACE_BASE) / DLS_SPACE_EACH);
    int n;
    if (b) {
        dls_space_where(b->caller, there, sizeof there);
        n = snprintf(text, sizeof text, "error: %s: host code %s device memory: byte %zu "
                     "of the %zu bytes of device %d that were allocated at %s; copy them "
                     "with cudaMemcpy, or allocate with cudaMallocManaged\n", here,
                     is_write ? "wrote" : "read", (size_t)(address - b->start), b->bytes,
                     device, there);
    } else {
        n = snprintf(text, sizeof text, "error: %s: %s at %p, an address of device %d "
                     "that nobody has allocated (freed already?)\n", here,
                     is_write ? "a write" : "a read", (const void *)address, device);
    }
    ssize_t written = write(STDERR_FILENO, text, n < 512 ? (size_t)n : 511);
    (void)written; // there is nobody left to tell
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *c = context;
    const void *code = NULL;
    int is_write = 0;
#if defined(__x86_64__)
    code = (const void *)c->uc_mcontext.gregs[REG_RIP];
    is_write = (c->uc_mcontext.gregs[REG_ERR] & 2) != 0;
#elif defined(__aarch64__)
    code = (const void *)c->uc_mcontext.pc;
#endif
    sigaction(signal, &before, NULL); // the instruction runs again, and ends as before
    if (dls_space_has(info->si_addr))
        describe_fault(info->si_addr, is_write, code);
}

static void watch_faults(void)
{
    struct sigaction ours = {.sa_sigaction = on_fault,
                             .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigaction(SIGSEGV, &ours, &before);
}

/* join holes */
static void join(hole *h)
{
    while (h && h->next && h->start + h->bytes == h->next->start) {
        hole *gone = h->next;
        h->bytes += gone->bytes;
        h->next = gone->next;
        free(gone);
    }
}

static void add_hole(int device, char *start, size_t bytes)
{
    hole *fresh = malloc(sizeof *fresh), *below = NULL;
    if (fresh == NULL)
        return; // these addresses are lost, no more
    hole **link = &spaces[device].holes;
    while (*link && (*link)->start < start) {
        below = *link;
        link = &below->next;
    }
    *fresh = (hole){*link, start, bytes};
    *link = fresh;
    join(fresh);
    join(below);
}

/* map a slab */
static int can_move(char *slab, size_t size)
{
    const char *wish = getenv("DLS_HOST_GUARD");
    if (wish && strcmp(wish, "0") == 0)
        return 0;
    return mremap(slab, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
                  slab + DLS_SPACE_ALIAS) != MAP_FAILED;
}

/* Adds a slab that has room for `bytes`; 0, or -1. */
static int add_slab(int device, size_t bytes)
{
    struct space *s = &spaces[device];
    size_t size = (bytes + GIB - 1) / GIB * GIB, room = DLS_SPACE_EACH - s->mapped;
    char *at = base_of(device) + s->mapped;
    if (size < s->mapped && s->mapped <= room)
        size = s->mapped;
    if (s->slabs == SLABS || bytes > room || size > room)
        return -1;
    char *slab = mmap(dls_space_reach(at), size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE,
                      -1, 0);
    if (slab == MAP_FAILED)
        return -1;
    madvise(slab, size, MADV_HUGEPAGE); // a wish: fewer page-table entries to look up
    if (guarded < 0) {
        guarded = can_move(slab, size);
        watch_faults();
    }
    s->slab[s->slabs++] = size;
    s->mapped += size;
    add_hole(device, at, size);
    return 0;
}

/* take and give addresses */
static size_t size_of_block(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + DLS_SPACE_GAP;
}

void *dls_space_take(int device, size_t bytes)
{
    if (bytes > DLS_SPACE_EACH)
        return NULL;
    size_t size = size_of_block(bytes);
    for (int attempt = 0; attempt < 2; attempt++) {
        for (hole **h = &spaces[device].holes; *h; h = &(*h)->next)
            if ((*h)->bytes >= size) {
                hole *found = *h;
                char *start = found->start;
                found->start += size;
                found->bytes -= size;
                if (found->bytes == 0) {
                    *h = found->next;
                    free(found);
                }
                return start;
            }
        if (add_slab(device, size) != 0)
            return NULL;
    }
    return NULL;
}

void dls_space_give(void *start, size_t bytes)
{
    enum { KEEP = 1 << 20, PAGE = 4096 };
    int device = (int)(((size_t)start - DLS_SPACE_BASE) / DLS_SPACE_EACH);
    char *first = (char *)(((size_t)start + PAGE - 1) / PAGE * PAGE);
    char *last = (char *)(((size_t)start + bytes) / PAGE * PAGE);
    if (bytes >= KEEP)
        madvise(dls_space_reach(first), (size_t)(last - first), MADV_DONTNEED);
    add_hole(device, start, size_of_block(bytes));
}
