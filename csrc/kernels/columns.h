/* The order of the columns of a forward product. The columns are the gates of one part, blocked by hidden unit:
 * gate-major within a block of `block` hidden units; the last block may be short. So a range of whole blocks has all
 * gates of its units, and only the very last vector can be less than full. With one gate this is the order of units. A
 * row of gates has the columns of part 0, then those of part 1. */
#ifndef FASTRNN_COLUMNS_H
#define FASTRNN_COLUMNS_H

#include <stddef.h>

#include "kernels/names.h"

/* The first unit of the block of hidden unit j. */
INLINE ptrdiff_t fastrnn_first_of_block(const int block, ptrdiff_t j)
{
    return j - (ptrdiff_t)((size_t)j % (size_t)block);
}

/* The column of hidden unit j and the first gate, within the part. The stride to the column of the next gate is the
 * size of the block, which is less for the last one. */
INLINE ptrdiff_t fastrnn_gate_column(const int gates, const int block, ptrdiff_t j)
{
    const ptrdiff_t first = fastrnn_first_of_block(block, j);
    return gates * first + (j - first);
}
INLINE ptrdiff_t fastrnn_gate_stride(const int block, ptrdiff_t H, ptrdiff_t j)
{
    const ptrdiff_t rest = H - fastrnn_first_of_block(block, j);
    return rest < block ? rest : block;
}

/* The inverse: the row of the weights, within the part, that becomes this column. */
static inline ptrdiff_t fastrnn_row_of_column(int gates, int block, ptrdiff_t H, ptrdiff_t column)
{
    const ptrdiff_t first = column / (gates * block) * block, within = column - gates * first;
    const ptrdiff_t units = H - first < block ? H - first : block;
    return within / units * H + first + within % units;
}

/* The vectors that a loop over hidden units covers: whole vectors of whole blocks, whose layout is constant; or any. */
typedef enum { WHOLE_VECTORS, ANY_VECTORS } fastrnn_vectors;

#endif
