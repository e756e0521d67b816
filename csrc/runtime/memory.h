/* All allocations of the library. */
#ifndef FASTRNN_MEMORY_H
#define FASTRNN_MEMORY_H

#include <stddef.h>

#include "fastrnn.h"

/* The layout of several arrays in one block. fastrnn_reserve() adds an array of a * b * c elements and returns its
 * offset in bytes. If a product of sizes overflows, fastrnn_allocate() returns NULL, as for a failed allocation. */
typedef struct {
    size_t size;
    int overflow;
} fastrnn_layout;

size_t fastrnn_reserve(fastrnn_layout *, size_t element, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c);
void *fastrnn_allocate(const fastrnn_layout *); /* aligned to a cache line, large blocks to huge pages; uninitialised */
void fastrnn_free(void *);

/* The same from a workspace, whose block is reused if it is large enough. A NULL workspace: a new block. */
void *fastrnn_borrow(fastrnn_workspace *, const fastrnn_layout *);
void fastrnn_give_back(fastrnn_workspace *, void *);

#endif
