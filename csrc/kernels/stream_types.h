/* A layer as kernels/stream.inc.h computes it, one step of one sequence at a time. Offsets count numbers, and no field
 * is a pointer, so that the same records may lie in read-only memory. */
#ifndef FASTRNN_STREAM_TYPES_H
#define FASTRNN_STREAM_TYPES_H

#include "fastrnn.h"

/* A matrix whose product with a row is one vector of sums for each of `vectors` vectors of columns. A tile is some of
 * the vectors, and lies in memory as (1 + K[0] + K[1], vectors of the tile, VL): the start of the sums, then the
 * weights that meet the numbers of a first and of a second input. Columns past the last one are zeros. */
typedef struct {
    ptrdiff_t rows; /* where the first tile begins among the numbers of the stream; -1: no such matrix */
    ptrdiff_t vectors, K[2];
    /* With heads, each group of `group_vectors` vectors meets only K[1] numbers of the second input. For group g these
     * begin at g * group_units, rounded down to a multiple of `head`, but at `last` at the latest. Without heads,
     * group_vectors is `vectors`, and the other fields are 0. */
    ptrdiff_t group_vectors, group_units, head, last;
} fastrnn_stream_matrix;

/* U is H, and V is P, rounded up to whole vectors. The columns of a part are, for each vector of hidden units, its
 * gates in turn. */
typedef struct {
    ptrdiff_t U, V, H, P;
    ptrdiff_t inputs; /* I, whose name is a macro where <complex.h> is included */
    int cell, gates, states;
    int has_options; /* whether they differ from the defaults */
    fastrnn_options options;
    fastrnn_stream_matrix part[2];    /* part 0 of x and h; of x alone if the sums of h are kept apart. Part 1, if the
                                         cell has one, of x and the results of part 0 */
    fastrnn_stream_matrix recurrent;  /* of h, if its sums are kept apart */
    fastrnn_stream_matrix projection; /* the recurrent projection (H, P) */
    ptrdiff_t peephole;               /* where (peepholes, U) weights are; or -1 */
    ptrdiff_t state;                  /* where the state begins: h (V), then the other states (U) each */
} fastrnn_stream_layer;

/* The vectors of the next tile, if `left` vectors of its group are left and a tile has at most `most`. */
static inline ptrdiff_t fastrnn_stream_tile(ptrdiff_t left, ptrdiff_t most)
{
    return left / ((left + most - 1) / most);
}

/* The first number of the second input that a group of vectors meets, whose units begin with `unit`. */
static inline ptrdiff_t fastrnn_stream_first(const fastrnn_stream_matrix *matrix, ptrdiff_t unit)
{
    if (!matrix->head) return 0;
    const ptrdiff_t first = unit / matrix->head * matrix->head;
    return first < matrix->last ? first : matrix->last;
}

/* The numbers of scratch memory that a step of a layer uses: sums, recurrent sums, the results of part 0, the units
 * before a projection. */
static inline ptrdiff_t fastrnn_stream_scratch(const fastrnn_stream_layer *layer)
{
    return (2 * layer->gates + 2) * layer->U;
}

#endif
