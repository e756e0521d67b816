/* The tape of a call: the arrays of saved activations in its block of memory. */
#ifndef FASTRNN_TAPE_H
#define FASTRNN_TAPE_H

#include "fastrnn.h"

/* The columns of the arrays, each (N, columns); 0 for an array that the cell does not save. */
typedef struct {
    ptrdiff_t gates, states[FASTRNN_MOST_STATES], intermediate;
} fastrnn_tape_columns;
fastrnn_tape_columns fastrnn_columns_of_tape(fastrnn_cell, ptrdiff_t H, ptrdiff_t projection);

/* Sets the bytes between the arrays to zero. */
void fastrnn_clear_gaps(void *tape, fastrnn_dtype, fastrnn_cell, ptrdiff_t N, ptrdiff_t H, ptrdiff_t projection);

/* The array at an offset; NULL for the offset SIZE_MAX or without a tape. */
static inline void *fastrnn_in_tape(const void *tape, size_t offset)
{
    return tape && offset != SIZE_MAX ? (char *)tape + offset : NULL;
}

#endif
