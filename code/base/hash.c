/* code/base/hash.c: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* XXH3 through the system's library. */
#include "base/hash.h"

#include <xxhash.h>

uint64_t dls_hash64(const void *data, size_t size)
{
    return XXH3_64bits(data, size);
}
