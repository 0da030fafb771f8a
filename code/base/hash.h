/* code/base/hash.h: from chapters/C-base-library.md. Edit the chapter, or edit here and run "make untangle". */
/* A 64-bit hash of bytes: XXH3 with seed 0, the same on every machine. It finds damage;
 * it does not stop a forger. */
#ifndef DLS_BASE_HASH_H
#define DLS_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

uint64_t dls_hash64(const void *data, size_t size);

#ifdef __cplusplus
}
#endif
#endif
