/* code/vgpu/profile_cache.c: from chapters/A-virtual-gpu-profile.md. Edit the chapter, or edit here and run "make untangle". */
/* A second-level cache: lines of 128 bytes in four sectors, 16 ways, least recently used.
 * Empty when a launch begins. A sector that is only written is not read first; a changed
 * sector is written back once, when it leaves or when the launch ends.
 */
#include "vgpu/profile_internal.h"

#include <stdlib.h>
#include <string.h>

enum { WAYS = 16, LINE = 128 };

/* define a set of the cache */
typedef struct way {
    uint64_t line;
    unsigned char valid, dirty;  // 4 sectors each
} way;

typedef struct set {
    unsigned long long launch;   // that filled it
    unsigned used;
    way way[WAYS];               // the most recently used first
} set;

static set *sets;
static uint64_t set_count;
static unsigned long long current;
/* begin with an empty cache */
void dls_profile_cache_begin(double bytes)
{
    uint64_t wanted = (uint64_t)(bytes / (LINE * WAYS));
    if (wanted < 1)
        wanted = 1;
    if (wanted != set_count) {
        free(sets);
        sets = calloc(wanted, sizeof *sets);
        set_count = sets ? wanted : 0;
    }
    current++;  // whatever an earlier launch left counts as absent
}
/* look a line up */
/* Moves the line to the front of its set, perhaps as new: the last one leaves. */
static way *find(uint64_t line)
{
    set *s = &sets[line % set_count];
    unsigned i = 0;
    if (s->launch != current) {
        s->launch = current;
        s->used = 0;
    }
    while (i < s->used && s->way[i].line != line)
        i++;
    way found = {line, 0, 0};
    if (i < s->used)
        found = s->way[i];
    else if (s->used < WAYS)
        s->used++;
    else
        i = WAYS - 1;
    memmove(&s->way[1], &s->way[0], i * sizeof s->way[0]);
    s->way[0] = found;
    return &s->way[0];
}
/* touch sectors of a line */
void dls_profile_cache_touch(uint64_t line, unsigned sectors, int write,
                             dls_profile_counters *c)
{
    enum { SECTOR = 32 };
    if (!set_count)
        return;
    way *w = find(line);
    unsigned absent = sectors & ~(unsigned)w->valid;
    unsigned clean = sectors & ~(unsigned)w->dirty;
    w->valid |= (unsigned char)sectors;
    if (!write) {
        c->dram_read += SECTOR * (unsigned)__builtin_popcount(absent);
        return;
    }
    c->dram_written += SECTOR * (unsigned)__builtin_popcount(clean);
    w->dirty |= (unsigned char)sectors;
}
