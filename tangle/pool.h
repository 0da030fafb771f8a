/* pool.h - memory for cmark, taken back all at once after each chapter. */
#ifndef TANGLE_POOL_H
#define TANGLE_POOL_H

#include <cmark.h>

cmark_mem *pool_memory(void);
void pool_reset(void); /* everything that cmark was given is free again */

#endif
