/* Packing for the forward pass.
 *
 * The columns of a product are the gates of one part, blocked by hidden unit: gate-major within a block of `block`
 * hidden units; the last block may be short. So one range of panels has all gates of its units, and only the very last
 * vector can be less than full. With one gate this is the order of units. A row of gates has the columns of part 0,
 * then those of part 1. */

/* The number of gates of the parts before this one. */
INLINE int NAME(gates_before)(const NAME(cell) * cell, int part) { return part ? cell->parts[0] : 0; }

/* The first panel of block b; for the block past the last, the end of the panels. A full block is a whole number of
 * panels. */
INLINE ptrdiff_t NAME(panel_of_block)(int gates, int block, ptrdiff_t H, ptrdiff_t b)
{
    const ptrdiff_t units = b * block < H ? b * block : H;
    return (gates * units + NR - 1) / NR;
}

/* The column of hidden unit j and the first gate, within the part, and the stride to the column of the next gate. */
INLINE ptrdiff_t NAME(gate_column)(const int gates, const int block, ptrdiff_t H, ptrdiff_t j, ptrdiff_t *apart)
{
    const ptrdiff_t first = j / block * block;
    *apart = H - first < block ? H - first : block;
    return gates * first + (j - first);
}

/* The inverse: the row of the weights, within the part, that becomes this column. */
INLINE ptrdiff_t NAME(row_of_column)(int gates, int block, ptrdiff_t H, ptrdiff_t column)
{
    const ptrdiff_t first = column / (gates * block) * block, within = column - gates * first;
    const ptrdiff_t units = H - first < block ? H - first : block;
    return within / units * H + first + within % units;
}

static void NAME(gate_columns)(const NAME(cell) * cell, ptrdiff_t H, ptrdiff_t *columns)
{
    for (int g = 0; g < cell->gates; g++) {
        const int part = g >= cell->parts[0], before = NAME(gates_before)(cell, part);
        for (ptrdiff_t j = 0; j < H; j++) {
            ptrdiff_t apart;
            const ptrdiff_t column = NAME(gate_column)(cell->parts[part], cell->block, H, j, &apart);
            columns[g * H + j] = before * H + column + (g - before) * apart;
        }
    }
}

/* Rows of the weight become columns of the panel, VL by VL numbers at a time. The rows are more streams than the
 * processor's prefetcher follows, so they are prefetched here. */
static void NAME(pack_gates)(int gates, int block, ptrdiff_t H, ptrdiff_t p0, ptrdiff_t p1, const real *weight,
                             const fastrnn_matrix *matrix)
{
    const ptrdiff_t N = matrix->N, K = matrix->K;
    real *panels = matrix->panels;
    for (ptrdiff_t j = p0 * NR; j < p1 * NR && j < N; j += VL) {
        const real *rows[VL];
        const int columns = N - j < VL ? (int)(N - j) : VL;
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

/* The bias as a row in the order of the columns, zero-padded to whole panels. */
static void NAME(pack_bias)(int gates, int block, ptrdiff_t H, ptrdiff_t p0, ptrdiff_t p1, const real *bias_ih,
                            const real *bias_hh, real *packed)
{
    const ptrdiff_t N = gates * H;
    for (ptrdiff_t j = p0 * NR; j < p1 * NR; j++) {
        const ptrdiff_t row = j < N ? NAME(row_of_column)(gates, block, H, j) : 0;
        const real ih = bias_ih ? bias_ih[row] : 0, hh = bias_hh ? bias_hh[row] : 0;
        packed[j] = j < N ? ih + hh : 0;
    }
}
