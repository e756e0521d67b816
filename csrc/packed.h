/* Weights in the order in which one instruction set's kernels read them. */
#ifndef FASTRNN_PACKED_H
#define FASTRNN_PACKED_H

#include "fastrnn.h"

/* For forward, [panel of gates][K][width] and the sum of the biases in the same order. For backward, [panel of
 * columns][4H][width]. K is I for weight_ih and H for weight_hh. See pack_gates and pack_rows. */
struct fastrnn_packed {
    const fastrnn_isa *isa;
    fastrnn_dtype dtype;
    fastrnn_pass pass;
    ptrdiff_t I, H;
    size_t bytes; /* of the block of memory that begins here and holds the panels too */
    void *panels_ih, *panels_hh, *bias;
};

/* Panels of `width` columns that n of them need. */
static inline ptrdiff_t fastrnn_panels(ptrdiff_t n, ptrdiff_t width) { return n / width + (n % width != 0); }

#endif
