/* bfloat16: weights and operand have 8 bits of precision, their products and the sums 24. 2 weights of a column are in
 * 32 bits, the first one in the upper half, so that the sums take them in order. The instructions define group,
 * argument, N(load), N(broadcast), N(dot), and N(store)(row, k, x), which stores numbers k .. k + VL - 1 of an operand,
 * already rounded. */
#define N(a) JOIN(a, NARROW)
#define LOAD(p, columns, v) N(load)(p)
#define GROUP 2
#define GROUP_BYTES 4
#define HAS_SCALES 0

typedef vec N(sum);
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

static void N(round_units)(ptrdiff_t M, ptrdiff_t k0, ptrdiff_t k1, const void *a, ptrdiff_t a_row, const uint8_t *zero,
                           void *operand, ptrdiff_t row)
{
    for (ptrdiff_t m = 0; m < M; m++)
        for (ptrdiff_t k = k0; k < k1; k += VL) {
            const float *from = (const float *)a + m * a_row + k;
            vec x = zero && zero[m] ? v_set1(0) : NAME(load_lanes)(from, NAME(lanes_at)(k1, k));
            N(store)((float *)operand + m * row, k, v_bfloat16(x));
        }
}
static void N(round_rows)(ptrdiff_t M, ptrdiff_t K, int bounded, const void *a, ptrdiff_t a_row, const uint8_t *zero,
                          void *operand, ptrdiff_t row)
{
    (void)bounded;
    N(round_units)(M, 0, K, a, a_row, zero, operand, row);
}

#include "kernels/narrow/product.inc.h"

static const fastrnn_narrow N(narrow) = {
    .format = FASTRNN_BFLOAT16,
    .instructions = INSTRUCTIONS,
    .rate = RATE,
    .bytes = ARGUMENT_BYTES / 2,
    .round_rows = N(round_rows),
    .round_units = N(round_units),
    .product = N(product),
};

#include "kernels/narrow/end.inc.h"
