/* The kernels of a format whose weights are widened to floats. Products and sums are those of single precision, and the
 * operand is the float row itself. The format defines
 *   FORMAT, LOAD, GROUP_BYTES, NARROW_ROWS, NARROW_FEW
 *   ROWS_IN_REGISTERS   the most rows of a product that widens weights in registers, for each tile anew */
#define GROUP 1
#define ARGUMENT_BYTES 4
#define HAS_SCALES 0

typedef vec N(sum);
typedef vec N(group);
typedef vec N(argument);
INLINE vec N(broadcast)(const char *a) { return v_set1(*(const float *)a); }
INLINE vec N(dot)(vec sum, vec weights, vec a) { return v_fma(a, weights, sum); }
INLINE vec N(begin)(const int mr, const fastrnn_columns *columns, int v, int32_t pairs, const float *start, int lanes)
{
    (void)mr, (void)columns, (void)v, (void)pairs;
    return NAME(load_lanes)(start, lanes);
}
INLINE void N(end)(const fastrnn_columns *columns, int v, vec sum, float scale, const float *start, float *to,
                   int lanes)
{
    (void)columns, (void)v, (void)scale, (void)start;
    NAME(store_lanes)(to, sum, lanes);
}

#include "kernels/narrow/product.inc.h"

/* With more rows, part of a panel is widened once for all tiles, which are those of single precision. */
static void N(widened_product)(ptrdiff_t M, const fastrnn_matrix *matrix, ptrdiff_t p0, ptrdiff_t p1,
                               const void *operand, ptrdiff_t row, const void *start_row, void *c_rows, ptrdiff_t c_row)
{
    enum { DEPTH = 128 };
    if (M <= ROWS_IN_REGISTERS) {
        N(product)(M, matrix, p0, p1, operand, row, start_row, c_rows, c_row);
        return;
    }
    const ptrdiff_t K = matrix->K, p_panel = fastrnn_panel_bytes(matrix, NR);
    const float *a = operand, *start = start_row;
    float *c = c_rows, floats[DEPTH * NR];
    for (ptrdiff_t m0 = 0, m1; m0 < M; m0 = m1) {
        m1 = m0 + NAME(even_part)(M - m0, NAME(SOME_ROWS));
        for (ptrdiff_t q = p0; q < p1; q++) {
            const NAME(some_panels) some = NAME(panels_from)(matrix, q, p1, 1);
            const fastrnn_columns columns = fastrnn_columns_from(matrix, q * NR);
            const char *p = (const char *)matrix->panels + q * p_panel;
            (void)columns;
            ptrdiff_t k = 0, depth;
            do { /* also where K is 0 */
                depth = K - k < DEPTH ? K - k : DEPTH;
                for (ptrdiff_t i = 0; i < depth; i++, p += NR * GROUP_BYTES)
                    UNROLL for (int v = 0; v < 2; v++)
                        v_store(floats + i * NR + v * VL, LOAD(p + v * VL * GROUP_BYTES, &columns, v));
                const float *from = k > 0 ? NULL : start && start != NAME(zeros) ? start + q * NR : start;
                for (ptrdiff_t m = m0, mr; m < m1; m += mr) {
                    mr = NAME(even_part)(m1 - m, TILE_ROWS);
                    const NAME(tile_function) tile = NAME(tiles)[mr][some.vectors];
                    tile(depth, a + m * row + some.first + k, row, 1, floats, 0, 0, from, 0, c + m * c_row + q * NR,
                         c_row, some.lanes);
                }
                k += depth;
            } while (k < K);
        }
    }
}

static const fastrnn_narrow N(narrow) = {
    .format = FORMAT,
    .instructions = INSTRUCTIONS,
    .rate = 1,
    .product = N(widened_product),
};

#undef FORMAT
#undef ROWS_IN_REGISTERS
#include "kernels/narrow/end.inc.h"
