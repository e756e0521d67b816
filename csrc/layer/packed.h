/* Weights in the order in which one instruction set's kernels read them. */
#ifndef FASTRNN_PACKED_H
#define FASTRNN_PACKED_H

#include "fastrnn.h"

/* For forward, panels_ih and panels_hh are [panel of gates][I or P][width] and panels_hr [panel of P][H][width];
 * bias_ih, and bias_hh where the cell keeps the recurrent sums apart (else it is in bias_ih), in the order of the
 * gates. For backward, [panel of columns][rows][width]: G rows of weight_ih and weight_hh, P of weight_hr. A cell with
 * more gradients than gates has weight_hh's last rows first, because they belong to the first gradients. See pack_gates
 * and pack_rows. */
struct fastrnn_packed {
    const fastrnn_isa *isa;
    fastrnn_dtype dtype;
    fastrnn_pass pass;
    fastrnn_cell cell;
    ptrdiff_t I, H, P;
    int has_projection;
    size_t bytes; /* of the block of memory that begins here and holds the panels too */
    void *panels_ih, *panels_hh, *panels_hr, *bias_ih, *bias_hh;
    void *peephole; /* (3, H) or NULL */
};

/* Panels of `width` columns that n of them need. */
static inline ptrdiff_t fastrnn_panels(ptrdiff_t n, ptrdiff_t width) { return n / width + (n % width != 0); }

#endif
