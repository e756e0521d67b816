/* Packing of what is known before the first step: weights and biases in blocks of NR hidden units with four gates. */

/* Rows of the weight become columns of the panel, VL by VL numbers at a time. Each row is a stream of its own, too many
 * for the processor to see: so the numbers after next are asked for here. */
static void NAME(pack_gates)(ptrdiff_t H, ptrdiff_t K, ptrdiff_t b0, ptrdiff_t b1, const real *weight, real *panels)
{
    for (ptrdiff_t b = b0; b < b1; b++) {
        ptrdiff_t width = NAME(panel_vectors)(H, b * NR) * VL;
        for (int gate = 0; gate < 4; gate++)
            for (ptrdiff_t j = 0; j < width; j += VL) {
                const real *from = weight + (gate * H + b * NR + j) * K;
                real *to = panels + 4 * b * NR * K + gate * width * K + j;
                ptrdiff_t units = H - b * NR - j < VL ? H - b * NR - j : VL;
                for (ptrdiff_t k = 0; k < K; k += VL) {
                    int lanes = K - k < VL ? (int)(K - k) : VL;
                    vec square[VL];
                    UNROLL
                    for (int i = 0; i < VL; i++) {
                        square[i] = i < units ? v_load_n(from + i * K + k, lanes) : v_set1(0);
                        if (i < units) v_prefetch(from + i * K + k + 4 * VL);
                    }
                    v_transpose(square);
                    UNROLL
                    for (int i = 0; i < VL; i++)
                        if (i < lanes) v_store(to + (k + i) * width, square[i]);
                }
            }
    }
}

static void NAME(pack_bias)(ptrdiff_t H, ptrdiff_t b0, ptrdiff_t b1, const real *bias_ih, const real *bias_hh,
                            real *packed)
{
    for (ptrdiff_t b = b0; b < b1; b++) {
        ptrdiff_t width = NAME(panel_vectors)(H, b * NR) * VL;
        for (int gate = 0; gate < 4; gate++)
            for (ptrdiff_t j = 0; j < width; j++) {
                ptrdiff_t unit = b * NR + j, column = gate * H + unit;
                const real ih = unit < H && bias_ih ? bias_ih[column] : 0,
                           hh = unit < H && bias_hh ? bias_hh[column] : 0;
                packed[4 * b * NR + gate * width + j] = ih + hh;
            }
    }
}
