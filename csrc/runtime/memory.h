/* The one place that allocates. */
#ifndef FASTRNN_MEMORY_H
#define FASTRNN_MEMORY_H

#include <stddef.h>

#include "fastrnn.h"

/* Several arrays in one block. fastrnn_reserve() returns an array's offset and counts it; a product of sizes that
 * overflows makes the layout impossible, and fastrnn_allocate() returns NULL for it as for any lack of memory. */
typedef struct {
    size_t size;
    int overflow;
} fastrnn_layout;

size_t fastrnn_reserve(fastrnn_layout *, size_t element, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c);
void *fastrnn_allocate(const fastrnn_layout *); /* aligned to a cache line, large blocks to huge pages; uninitialised */
void fastrnn_free(void *);

/* The same from a workspace, whose block is used again where it is large enough. NULL for the workspace: a new block.
 */
void *fastrnn_borrow(fastrnn_workspace *, const fastrnn_layout *);
void fastrnn_give_back(fastrnn_workspace *, void *);

#endif
