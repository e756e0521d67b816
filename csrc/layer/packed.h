/* Packed weights: in the order in which one instruction set's kernels read them. */
#ifndef FASTRNN_PACKED_H
#define FASTRNN_PACKED_H

#include "fastrnn.h"
#include "kernels/kernels.h"

/* For forward, weight_ih and weight_hh have a matrix (I, gates * H) and (P, gates * H) for each part of the cell, and
 * weight_hr is (H, P). Biases are in the order of the columns; bias_hh exists if the cell keeps the recurrent sums
 * apart, else it is added to bias_ih. For backward, the matrices are transposed, and weight_ih is one matrix (G, I) of
 * all parts, or has no rows if weight_ih was NULL. A cell with more gradients than gates has the last rows of weight_hh
 * first, because they belong to the first gradients. */
struct fastrnn_packed {
    const fastrnn_isa *isa;
    fastrnn_dtype dtype;
    fastrnn_pass pass;
    fastrnn_cell cell;
    fastrnn_options options;
    int has_options; /* whether they differ from the defaults */
    ptrdiff_t I, H, P, heads;
    ptrdiff_t S; /* P / heads: the columns of weight_hh */
    int has_projection, parts;
    const fastrnn_narrow *narrow; /* the kernels of the format of weight_ih and weight_hh, or NULL */
    size_t bytes;                 /* of the block of memory that begins with this struct and ends with the panels */
    fastrnn_matrix weight_ih[MOST_PARTS], weight_hh[MOST_PARTS], weight_hr;
    void *bias_ih[MOST_PARTS], *bias_hh[MOST_PARTS];
    void *peephole; /* (peepholes, H) or NULL */
};

/* Packing or rounding a number of a weight takes as long as so many operations of a product. */
enum { FASTRNN_PACKING = 20 };

/* Whether options differ from the defaults. */
static inline int fastrnn_has_options(const fastrnn_options *o)
{
    return o->recurrent_activation != FASTRNN_SIGMOID || o->activation != FASTRNN_TANH || o->clip > 0;
}

/* The number of panels of `width` columns for n columns: n / width, rounded up. */
static inline ptrdiff_t fastrnn_panels(ptrdiff_t n, ptrdiff_t width) { return n / width + (n % width != 0); }

#endif
