/* The order of the sums over rows, which fastrnn.h describes: blocks of BLOCK_ROWS rows, groups of GROUP_SUMS blocks,
 * groups of GROUP_SUMS groups, and so on. */
#ifndef FASTRNN_SUMS_H
#define FASTRNN_SUMS_H

#include "kernels/kernels.h"
#include "layer/packed.h"

enum { GROUP_SUMS = 64 };

/* The level of the gradient itself, the sum over all rows: 0 for a block, 1 for a group of blocks, and so on. */
static inline int fastrnn_sum_levels(ptrdiff_t rows)
{
    int level = 0;
    for (ptrdiff_t sums = fastrnn_panels(rows, BLOCK_ROWS); sums > 1; sums = fastrnn_panels(sums, GROUP_SUMS)) level++;
    return level;
}

/* Consecutive rows of one block. */
typedef struct {
    ptrdiff_t rows, block; /* block: its number, from 0 */
    int opens, closes;     /* whether the first row of the block, and the last one, are among them */
    int ends;              /* whether no row comes after these */
} fastrnn_block_part;

/* Of all rows, so many are done: the next ones, at most `some`. */
static inline fastrnn_block_part fastrnn_next_part(ptrdiff_t done, ptrdiff_t some, ptrdiff_t all)
{
    const ptrdiff_t in_block = done % BLOCK_ROWS, left = BLOCK_ROWS - in_block, rows = some < left ? some : left;
    const int ends = done + rows == all;
    return (fastrnn_block_part){rows, done / BLOCK_ROWS, in_block == 0, rows == left || ends, ends};
}

#endif
