/*
 * pool.c - memory for cmark's tree.
 *
 * The tree of a chapter is many small nodes that are all needed until its blocks are
 * found and none after; freeing them one by one takes longer than parsing. So they are
 * cut from a few large pages, and the next chapter uses the same pages again: the book's
 * memory is one chapter's.
 */
#include "pool.h"

#include "tangle.h"

#include <string.h>

enum { PAGE = 1 << 20, HEAD = 16 };

struct page {
    struct page *next;
    size_t used, size;
    char *at;
};

static struct page *pages, *current;

static struct page *page_for(size_t size)
{
    for (struct page *p = current; p; p = p->next)
        if (p->size - p->used >= size)
            return current = p;
    struct page *p = keep(sizeof *p);
    p->size = size > PAGE ? size : PAGE;
    p->at = keep(p->size);
    p->next = pages;
    return pages = current = p;
}

/* The size is kept in front, for realloc. */
static void *pool_calloc(size_t n, size_t size)
{
    size_t bytes = n * size, whole = (bytes + HEAD + 15) & ~(size_t)15;
    struct page *p =
        current && current->size - current->used >= whole ? current : page_for(whole);
    char *at = p->at + p->used;
    p->used += whole;
    memcpy(at, &bytes, sizeof bytes);
    return memset(at + HEAD, 0, bytes);
}

static void *pool_realloc(void *old, size_t size)
{
    size_t had = 0;
    if (old)
        memcpy(&had, (char *)old - HEAD, sizeof had);
    if (had >= size && old)
        return old;
    void *p = pool_calloc(1, size);
    if (old)
        memcpy(p, old, had);
    return p;
}

static void pool_free(void *p)
{
    (void)p;
}

cmark_mem *pool_memory(void)
{
    static cmark_mem memory = {pool_calloc, pool_realloc, pool_free};
    return &memory;
}

void pool_reset(void)
{
    for (struct page *p = pages; p; p = p->next)
        p->used = 0;
    current = pages;
}
