/* code/vgpu/probe_site.c: from chapters/A-virtual-gpu-probe.md. Edit the chapter, or edit here and run "make untangle". */
/* From a place in the machine code to a line of the program, through the debugging
 * information (libdw of elfutils, as gdb and perf would find it).
 */
#include "vgpu/probe_internal.h"

#include <dwarf.h>
#include <elfutils/libdwfl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* open the debugging information */
static Dwfl *open_program(void)
{
    static const Dwfl_Callbacks callbacks = {
        .find_elf = dwfl_linux_proc_find_elf,
        .find_debuginfo = dwfl_standard_find_debuginfo};
    Dwfl *d = dwfl_begin(&callbacks);
    if (d && (dwfl_linux_proc_report(d, getpid()) != 0 ||
              dwfl_report_end(d, NULL, NULL) != 0)) {
        dwfl_end(d);
        d = NULL;
    }
    return d;
}

static Dwfl *program(void)
{
    static Dwfl *d;
    static pid_t pid;  // a forked child has the same program; the parent's maps will do
    if (!pid) {
        d = open_program();
        pid = getpid();
    }
    return d;
}
/* keep strings */
/* One copy of each string, for as long as the process lives. */
static const char *kept(const char *text)
{
    static char **strings;
    static size_t count, room;
    for (size_t i = 0; i < count; i++)
        if (!strcmp(strings[i], text))
            return strings[i];
    if (count == room) {
        char **more = realloc(strings, (room = 2 * room + 64) * sizeof *more);
        if (!more)
            return "?";
        strings = more;
    }
    char *copy = strdup(text);
    return copy ? strings[count++] = copy : "?";
}
/* tell which code is the emulators */
/* Files whose inlined functions count as the instruction that they stand for. */
static int is_hidden(const char *file)
{
    return strstr(file, "vgpu/shadow/") || strstr(file, "vgpu/ptx.cuh") ||
           strstr(file, "virtual-gpu-simt-tensor-cores.md") ||  // ptx.cuh, in the book
           !strncmp(file, "/usr/", 5);
}

/* atomicAdd, __shfl_sync and the like, and what they are made of here. */
static int is_intrinsic(const char *function)
{
    return function && (!strncmp(function, "atomic", 6) || !strncmp(function, "__", 2) ||
                        !strncmp(function, "dls_atomic", 10));
}

static const char *without_folder(const char *file, Dwarf_Die *unit)
{
    Dwarf_Attribute a;
    const char *folder = dwarf_formstring(dwarf_attr(unit, DW_AT_comp_dir, &a));
    size_t n = folder ? strlen(folder) : 0;
    return n && !strncmp(file, folder, n) && file[n] == '/' ? file + n + 1 : file;
}
/* climb out of inlined functions */
typedef struct place {
    const char *function, *file;
    int line, hidden;
} place;

static const char *call_file(Dwarf_Die *inlined, Dwarf_Die *unit)
{
    Dwarf_Attribute a;
    Dwarf_Word number;
    Dwarf_Files *files;
    size_t count;
    if (dwarf_formudata(dwarf_attr(inlined, DW_AT_call_file, &a), &number) != 0 ||
        dwarf_getsrcfiles(unit, &files, &count) != 0)
        return NULL;
    return dwarf_filesrc(files, number, NULL, NULL);
}

static int call_line(Dwarf_Die *inlined)
{
    Dwarf_Attribute a;
    Dwarf_Word line = 0;
    dwarf_formudata(dwarf_attr(inlined, DW_AT_call_line, &a), &line);
    return (int)line;
}

/* `scope`, from the inside out; at->file and line are those of the machine code. */
static void climb(Dwarf_Die *scope, int count, Dwarf_Die *unit, place *at)
{
    Dwarf_Attribute a;
    for (int i = 0; i < count; i++) {
        int tag = dwarf_tag(&scope[i]);
        if (tag == DW_TAG_subprogram || tag == DW_TAG_inlined_subroutine)
            at->function = dwarf_diename(&scope[i]);
        if (tag == DW_TAG_subprogram)
            return;
        if (tag != DW_TAG_inlined_subroutine)
            continue;
        int hidden = is_hidden(at->file) || is_intrinsic(at->function) ||
                     dwarf_attr_integrate(&scope[i], DW_AT_artificial, &a);
        const char *file = hidden ? call_file(&scope[i], unit) : NULL;
        if (!file)
            return;
        at->file = file;
        at->line = call_line(&scope[i]);
    }
}
/* find the place of a program counter */
static int find_place(uintptr_t pc, place *at)
{
    Dwarf_Addr bias;
    Dwfl *d = program();
    Dwfl_Module *m = d ? dwfl_addrmodule(d, pc) : NULL;
    Dwfl_Line *l = m ? dwfl_module_getsrc(m, pc) : NULL;
    Dwarf_Die *unit = m ? dwfl_module_addrdie(m, pc, &bias) : NULL;
    if (!l || !unit || !(at->file = dwfl_lineinfo(l, NULL, &at->line, NULL, NULL, NULL)))
        return 0;
    Dwarf_Die *inner = NULL, *outer = NULL;
    at->function = NULL;
    int count = dwarf_getscopes(unit, pc - bias, &inner);
    if (count > 0)
        count = dwarf_getscopes_die(&inner[0], &outer);
    if (count > 0)
        climb(outer, count, unit, at);
    at->hidden = is_hidden(at->file);
    at->file = kept(without_folder(at->file, unit));
    at->function = kept(at->function ? at->function : "?");
    free(inner);
    free(outer);
    return 1;
}
/* answer for a place */
/* 0: not found; 2: found, but in code of the emulator that nobody inlined; else 1. */
static int locate(uintptr_t pc, const char **function, const char **file, int *line)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    place at;
    pthread_mutex_lock(&lock);
    int found = find_place(pc - 1, &at);  // a return address: the call stands before it
    pthread_mutex_unlock(&lock);
    *function = found ? at.function : "?";
    *file = found ? at.file : "?";
    *line = found ? at.line : 0;
    return found && at.hidden ? 2 : found;
}

int dls_probe_place(uintptr_t pc, const char **function, const char **file, int *line)
{
    return locate(pc, function, file, line) != 0;
}

const char *dls_probe_symbol(uintptr_t pc)
{
    Dwfl *d = program();
    Dwfl_Module *m = d ? dwfl_addrmodule(d, pc - 1) : NULL;
    const char *name = m ? dwfl_module_addrname(m, pc - 1) : NULL;
    return name ? name : "";
}

void dls_probe_locate(dls_probe_site *site)
{
    if (!site->file)
        site->hidden = locate(site->pc, &site->function, &site->file, &site->line) == 2;
}
