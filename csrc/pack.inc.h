/* Packing of what is known before the first step: weights and biases in blocks of NR hidden units with four gates. */

/* Rows of the weight become columns of the panel; a few columns of a cache line at a time, so that each line is read once. */
static void NAME(pack_gates)(ptrdiff_t H, ptrdiff_t K, ptrdiff_t b0, ptrdiff_t b1, const real *weight, real *panels)
{
    for (ptrdiff_t b = b0; b < b1; b++) {
        ptrdiff_t width = NAME(panel_vectors)(H, b * NR) * VL, units = H - b * NR < width ? H - b * NR : width;
        for (int gate = 0; gate < 4; gate++) {
            const real *from = weight + (gate * H + b * NR) * K;
            real *to = panels + 4 * b * NR * K + gate * width * K;
            for (ptrdiff_t k = 0, end; k < K; k = end) {
                end = K - k < 16 ? K : k + 16;
                for (ptrdiff_t j = 0; j < units; j++)
                    for (ptrdiff_t l = k; l < end; l++) to[l * width + j] = from[j * K + l];
                for (ptrdiff_t l = k; l < end; l++)
                    for (ptrdiff_t j = units; j < width; j++) to[l * width + j] = 0;
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
                real sum = 0;
                if (unit < H && bias_ih && bias_hh)
                    sum = bias_ih[column] + bias_hh[column];
                else if (unit < H && (bias_ih || bias_hh))
                    sum = (bias_ih ? bias_ih : bias_hh)[column];
                packed[4 * b * NR + gate * width + j] = sum;
            }
    }
}
