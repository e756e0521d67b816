/* Packing of what is known before the first step.
 *
 * Forward, the columns of the product are the gates in blocks: those of the first `block` hidden units, gate by gate,
 * then those of the next units; the last block may have fewer. So one part of the product has all that the cell of
 * these units needs, in one place, and only the very last vector can be less than full. With one gate this is the order
 * of units.
 */

/* The first panel of block b; of the block after the last, the end of the panels. A whole block is whole panels. */
INLINE ptrdiff_t NAME(panel_of_block)(int gates, int block, ptrdiff_t H, ptrdiff_t b)
{
    const ptrdiff_t units = b * block < H ? b * block : H;
    return (gates * units + NR - 1) / NR;
}

/* The row of the weights that is this column of the product. */
INLINE ptrdiff_t NAME(row_of_column)(int gates, int block, ptrdiff_t H, ptrdiff_t column)
{
    const ptrdiff_t first = column / (gates * block) * block, within = column - gates * first;
    const ptrdiff_t units = H - first < block ? H - first : block;
    return within / units * H + first + within % units;
}

/* Rows of the weight become columns of the panel, VL by VL numbers at a time. Each row is a stream of its own, too many
 * for the processor to see: so the numbers after next are asked for here. */
static void NAME(pack_gates)(int gates, int block, ptrdiff_t H, ptrdiff_t K, ptrdiff_t p0, ptrdiff_t p1,
                             const real *weight, real *panels)
{
    const ptrdiff_t G = gates * H;
    for (ptrdiff_t j = p0 * NR; j < p1 * NR && j < G; j += VL) {
        const real *rows[VL];
        const int columns = G - j < VL ? (int)(G - j) : VL;
        for (int i = 0; i < columns; i++) rows[i] = weight + NAME(row_of_column)(gates, block, H, j + i) * K;
        real *to = panels + j / NR * NR * K + j % NR;
        for (ptrdiff_t k = 0; k < K; k += VL) {
            const int lanes = K - k < VL ? (int)(K - k) : VL;
            vec square[VL];
            UNROLL
            for (int i = 0; i < VL; i++) {
                square[i] = i < columns ? v_load_n(rows[i] + k, lanes) : v_set1(0);
                if (i < columns) v_prefetch(rows[i] + k + 4 * VL);
            }
            v_transpose(square);
            UNROLL
            for (int i = 0; i < VL; i++)
                if (i < lanes) v_store(to + (k + i) * NR, square[i]);
        }
    }
}

/* A row of the product's columns, as long as its panels. */
static void NAME(pack_bias)(int gates, int block, ptrdiff_t H, ptrdiff_t p0, ptrdiff_t p1, const real *bias_ih,
                            const real *bias_hh, real *packed)
{
    const ptrdiff_t G = gates * H;
    for (ptrdiff_t j = p0 * NR; j < p1 * NR; j++) {
        const ptrdiff_t row = j < G ? NAME(row_of_column)(gates, block, H, j) : 0;
        const real ih = bias_ih ? bias_ih[row] : 0, hh = bias_hh ? bias_hh[row] : 0;
        packed[j] = j < G ? ih + hh : 0;
    }
}
