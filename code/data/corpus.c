/* code/data/corpus.c: from chapters/04-data-parallelism-ddp.md. Edit the chapter, or edit here and run "make untangle". */
/* Mapping a corpus. */
#include "data/corpus.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct dls_corpus {
    const unsigned char *bytes; // (size)
    size_t size, split;
};

/* map a corpus */
static dls_status map_file(int fd, const char *path, dls_corpus *c)
{
    struct stat info;
    if (fstat(fd, &info))
        return DLS_FAIL(DLS_ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return DLS_FAIL(DLS_ERR_INPUT, "%s: expected a text file", path);
    if (info.st_size == 0)
        return DLS_FAIL(DLS_ERR_INPUT, "%s: the corpus is empty", path);
    void *base = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED)
        return DLS_FAIL(DLS_ERR_IO, "%s: cannot map it: %s", path, strerror(errno));
    c->bytes = base;
    c->size = (size_t)info.st_size;
    return dls_corpus_split(c, 0.1);
}

dls_status dls_corpus_open(const char *path, dls_corpus **out)
{
    dls_corpus *c = calloc(1, sizeof *c);
    int fd = c ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (!c)
        return DLS_FAIL(DLS_ERR_MEMORY, "no memory for a corpus");
    dls_status status = fd < 0 ? DLS_FAIL(DLS_ERR_IO, "%s: %s", path, strerror(errno))
                               : map_file(fd, path, c);
    if (fd >= 0)
        close(fd); // the mapping stays
    if (status != DLS_OK)
        free(c);
    else
        *out = c;
    return status;
}

/* split a corpus */
void dls_corpus_close(dls_corpus *corpus)
{
    if (!corpus)
        return;
    munmap((void *)corpus->bytes, corpus->size);
    free(corpus);
}

dls_status dls_corpus_split(dls_corpus *corpus, double validation_fraction)
{
    if (!(validation_fraction >= 0 && validation_fraction < 1))
        return DLS_FAIL(DLS_ERR_INPUT,
                        "validation fraction %g: expected at least 0 and less "
                        "than 1", validation_fraction);
    size_t held_back = (size_t)((double)corpus->size * validation_fraction);
    corpus->split = corpus->size - held_back;
    return DLS_OK;
}

const unsigned char *dls_corpus_bytes(const dls_corpus *corpus)
{
    return corpus->bytes;
}

size_t dls_corpus_size(const dls_corpus *corpus)
{
    return corpus->size;
}

void dls_corpus_part(const dls_corpus *corpus, dls_corpus_half part, uint64_t *begin,
                     uint64_t *end)
{
    *begin = part == DLS_PART_TRAINING ? 0 : corpus->split;
    *end = part == DLS_PART_TRAINING ? corpus->split : corpus->size;
}
