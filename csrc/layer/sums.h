/* The order of the sums over rows, which fastrnn.h describes: blocks of BLOCK_ROWS rows, groups of GROUP_SUMS blocks,
 * groups of GROUP_SUMS groups, and so on. */
#ifndef FASTRNN_SUMS_H
#define FASTRNN_SUMS_H

#include "kernels/kernels.h"
#include "layer/packed.h"
#include "runtime/team.h"

enum { GROUP_SUMS = 64 };

/* The level of the sum over all rows, the gradient: 0 if that is one block, 1 if it is one group of blocks, and so on.
 */
static inline int fastrnn_sum_levels(ptrdiff_t rows)
{
    int level = 0;
    for (ptrdiff_t sums = fastrnn_panels(rows, BLOCK_ROWS); sums > 1; sums = fastrnn_panels(sums, GROUP_SUMS)) level++;
    return level;
}

/* Consecutive rows of one block. */
typedef struct {
    ptrdiff_t rows, block; /* block: its number, from 0 */
    int opens, closes;     /* whether they include the first row of the block, and the last one */
    int ends;              /* whether they include the last row of all */
} fastrnn_block_part;

/* The next rows of one block, at most `limit`, after `done` of `total` rows. */
static inline fastrnn_block_part fastrnn_next_part(ptrdiff_t done, ptrdiff_t limit, ptrdiff_t total)
{
    const ptrdiff_t in_block = done % BLOCK_ROWS, left = BLOCK_ROWS - in_block, rows = limit < left ? limit : left;
    const int ends = done + rows == total;
    return (fastrnn_block_part){rows, done / BLOCK_ROWS, in_block == 0, rows == left || ends, ends};
}

/* Whether members that share the gradient of a weight (M, N) share its columns, else its rows: then each reads all of
 * the left-hand side, and only some columns of the right-hand side; in a phase of one part, those that it has packed.
 */
static inline int shares_columns(ptrdiff_t M, ptrdiff_t N) { return 2 * M < N; }

#endif
