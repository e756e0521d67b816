/* Packing for the forward pass, in the order of columns.h. */

/* The number of gates of the parts before this one. */
INLINE int NAME(gates_before)(const NAME(cell) * cell, int part) { return part ? cell->parts[0] : 0; }

/* The first panel of block b; for the block past the last, the end of the panels. A full block is a whole number of
 * panels. */
INLINE ptrdiff_t NAME(panel_of_block)(int gates, int block, ptrdiff_t H, ptrdiff_t b)
{
    const ptrdiff_t units = b * block < H ? b * block : H;
    return (gates * units + NR - 1) / NR;
}

static void NAME(gate_columns)(const NAME(cell) * cell, ptrdiff_t H, ptrdiff_t *columns)
{
    for (int g = 0; g < cell->gates; g++) {
        const int part = g >= cell->parts[0], before = NAME(gates_before)(cell, part);
        for (ptrdiff_t j = 0; j < H; j++)
            columns[g * H + j] = before * H + fastrnn_gate_column(cell->parts[part], cell->block, j) +
                                 (g - before) * fastrnn_gate_stride(cell->block, H, j);
    }
}

/* Rows of the weight become columns of the panel, VL by VL numbers at a time. The rows are more streams than the
 * processor's prefetcher follows, so they are prefetched here. */
static void NAME(pack_gates)(int gates, int block, ptrdiff_t H, ptrdiff_t p0, ptrdiff_t p1, const real *weight,
                             const fastrnn_matrix *matrix)
{
    const ptrdiff_t N = matrix->N, K = matrix->K, head = matrix->heads.head, depth = head ? head : K;
    real *panels = matrix->panels;
    for (ptrdiff_t j = p0 * NR; j < p1 * NR && j < N; j += VL) {
        const real *rows[VL];
        ptrdiff_t heads[VL];
        const int columns = NAME(lanes_at)(N, j);
        for (int i = 0; i < columns; i++) {
            const ptrdiff_t row = fastrnn_row_of_column(gates, block, H, j + i);
            rows[i] = weight + row * depth;
            heads[i] = head ? row % H / head : 0;
        }
        real *to = panels + j / NR * NR * K + j % NR;
        ptrdiff_t h = head ? fastrnn_first_unit(&matrix->heads, j / NR) / head : 0;
        for (ptrdiff_t k0 = 0; k0 < K; k0 += depth, h++, to += depth * NR) /* heads; of the others there are zeros */
            for (ptrdiff_t k = 0; k < depth; k += VL) {
                const int lanes = NAME(lanes_at)(depth, k);
                vec square[VL];
                UNROLL
                for (int i = 0; i < VL; i++) {
                    const int has = i < columns && heads[i] == h;
                    square[i] = has ? v_load_n(rows[i] + k, lanes) : v_set1(0);
                    if (has) v_prefetch(rows[i] + k + 4 * VL);
                }
                v_transpose(square);
                UNROLL
                for (int i = 0; i < VL; i++)
                    if (i < lanes) v_store(to + (k + i) * NR, square[i]);
            }
    }
}

/* The transpose, for backward: gates [g0, g1) of weight (gates * units, head) become the segments from `first` on. */
static void NAME(pack_heads)(ptrdiff_t g0, ptrdiff_t g1, ptrdiff_t p0, ptrdiff_t p1, const real *weight,
                             ptrdiff_t first, const fastrnn_matrix *matrix)
{
    const ptrdiff_t units = matrix->heads.units, head = matrix->heads.head, rows = matrix->heads.rows;
    for (ptrdiff_t q = p0; q < p1; q++) {
        real *to = (real *)matrix->panels + (q * matrix->K + first * rows) * NR;
        for (ptrdiff_t g = g0; g < g1; g++)
            for (ptrdiff_t r = 0; r < rows; r++, to += NR) {
                const ptrdiff_t unit = fastrnn_first_unit(&matrix->heads, q) + r, start = unit / head * head;
                const ptrdiff_t low = start < q * NR ? q * NR : start, end = start + head, high = (q + 1) * NR;
                v_store(to, v_set1(0));
                v_store(to + VL, v_set1(0));
                for (ptrdiff_t j = low; j < end && j < high; j++)
                    to[j - q * NR] = weight[(g * units + unit) * head + j - start];
            }
    }
}

/* The bias as a row in the order of the columns, zero-padded to whole panels. */
static void NAME(pack_bias)(int gates, int block, ptrdiff_t H, ptrdiff_t p0, ptrdiff_t p1, const real *bias_ih,
                            const real *bias_hh, real *packed)
{
    const ptrdiff_t N = gates * H;
    for (ptrdiff_t j = p0 * NR; j < p1 * NR; j++) {
        const ptrdiff_t row = j < N ? fastrnn_row_of_column(gates, block, H, j) : 0;
        const real ih = bias_ih ? bias_ih[row] : 0, hh = bias_hh ? bias_hh[row] : 0;
        packed[j] = j < N ? ih + hh : 0;
    }
}
