/* Narrow formats: weights of fewer bits than a float, for the forward pass in single precision. A product multiplies
 * them by an operand: rows of activations, which the format may round, too. The files of narrow/ define the formats,
 * and pack_narrow.c has the table of them.
 *
 * A scale of int8 is max|a| / 127, rounded, and q = a (127 / max|a|) to the nearest, ties to even. A row whose max|a|
 * is below 2^-100 counts as zeros, with the scale 0; one with a NaN or an infinity has the scale NaN. A
 * bounded operand has numbers of magnitude at most 1, but for rounding. Its scale is 1/127 where max|a| <=
 * FASTRNN_BOUND, so that parts of a row can be rounded separately. */
#ifndef FASTRNN_NARROW_H
#define FASTRNN_NARROW_H

#include <stddef.h>
#include <stdint.h>

#include "fastrnn.h"

#define FASTRNN_BOUND 1.001f
#define FASTRNN_LEAST_ROW 0x1p-100f

/* The memory of a format, the same for all instruction sets. A panel is [depth / group][width][group] weights of one
 * column each. depth is K rounded up to a multiple of `depths`, with zeros. */
typedef struct {
    fastrnn_format_properties properties;
    size_t element; /* bytes of a weight */
    int group, depths;
    int alternate; /* whether columns of a panel's two vectors alternate, the first in the lower half of 16 bits */
    /* Rounds a row of K floats of a weight: values (K) written, and the scale if the format has scales. The calling
     * thread rounds to nearest; denormals may count as zeros */
    fastrnn_fit (*round_row)(ptrdiff_t K, const float *row, void *values, float *scale);
    /* Packs part of a column of a panel: K numbers of a row of weights become the column's numbers from `first` on.
     * Whole groups may be copied at once. to: the column's first group; the next group is group_stride bytes further.
     * offset: the column's offset, from which 128 times the sum of the K numbers is subtracted; NULL without scales */
    void (*pack_column)(ptrdiff_t K, ptrdiff_t first, const char *from, char *to, ptrdiff_t group_stride,
                        int32_t *offset);
} fastrnn_narrow_layout;
extern const fastrnn_narrow_layout fastrnn_narrow_layouts[FASTRNN_FORMATS];

struct fastrnn_matrix;

/* The kernels of a format with some instructions. Rows of an operand are `row` floats apart, a multiple of 16; their
 * layout is that of the instructions. */
typedef struct fastrnn_narrow {
    fastrnn_format format;
    const char *instructions;
    double rate;  /* of the product, relative to that of single precision, for plans */
    int in_pairs; /* whether the product takes weights in pairs, and offsets for them: see narrow/int8.inc.h */
    size_t bytes; /* of a number of the operand; 0: the operand is the float row itself, and the next four are NULL */
    /* operand (M, K) written from a (M, K), floats. zero (M): flags of rows that count as zeros, or NULL. round_rows
     * rounds whole rows. round_units rounds columns [k0, k1) of rows of a bounded operand, k0 a multiple of 16. If
     * begin_rows is not NULL, it is called first for these rows. Then several threads may round parts of the same rows
     * at the same time */
    void (*round_rows)(ptrdiff_t M, ptrdiff_t K, int bounded, const void *a, ptrdiff_t a_row, const uint8_t *zero,
                       void *operand, ptrdiff_t row);
    void (*begin_rows)(ptrdiff_t M, void *operand, ptrdiff_t row);
    void (*round_units)(ptrdiff_t M, ptrdiff_t k0, ptrdiff_t k1, const void *a, ptrdiff_t a_row, const uint8_t *zero,
                        void *operand, ptrdiff_t row);
    /* a (M, K) becomes the rest: a minus the numbers that round_rows writes for it if it is not bounded. NULL: the
     * format takes operands of one part */
    void (*subtract_rounded)(ptrdiff_t M, ptrdiff_t K, void *a, ptrdiff_t a_row);
    /* c (M, N) written for panels [p0, p1): start + operand (M, K) times the matrix; start: a row of floats, or NULL
     * for the values of c */
    void (*product)(ptrdiff_t M, const struct fastrnn_matrix *, ptrdiff_t p0, ptrdiff_t p1, const void *operand,
                    ptrdiff_t row, const void *start, void *c, ptrdiff_t c_row);
} fastrnn_narrow;

/* The leading dimension, in floats, of operand rows of K numbers. A row is the numbers, in vectors of at most 16,
 * padded to whole cache lines; the scale is the last float of the last line. */
static inline ptrdiff_t fastrnn_operand_row(const fastrnn_narrow *narrow, ptrdiff_t K)
{
    const ptrdiff_t lines = ((K + 15) / 16 * 16 * (ptrdiff_t)narrow->bytes + 4 + 63) / 64;
    return 16 * (lines + (lines % 16 == 0)); /* not all rows in the same sets of a cache */
}

/* Panels [p0, p1) of a matrix (K, gates * H) of `width` columns written: weight (gates * H, K) transposed, its columns
 * in the order of columns.h. The weight has the numbers of the format, without gaps. scale (gates * H): the scale of
 * each row, if the format has scales. */
void fastrnn_pack_narrow(int gates, int block, ptrdiff_t H, ptrdiff_t p0, ptrdiff_t p1, int width, const void *weight,
                         const float *scale, const struct fastrnn_matrix *);

#endif
