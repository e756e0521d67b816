/* int8: w = s_w q_w with a scale for each column, a = s_a q_a with a scale for each row, all |q| <= 127:
 * z += (s_w s_a) sum_k q_w q_a, with an exact sum and one fma. 4 weights of a column are in 32 bits and meet 4 numbers
 * of the operand. The instructions define the sums and N(dot), N(store) of int8_operand.inc.h, and N(floats)(sum), the
 * sums as floats. OFFSET is 128 if 128 is added to the operand, which is then unsigned, else 0. */
#define N(a) JOIN(a, NARROW)
#define LOAD(p, columns, v) N(load)(p)
#define GROUP 4
#define GROUP_BYTES 4
#define HAS_SCALES 1

INLINE N(sum) N(begin)(const fastrnn_columns *columns, int v, const float *start, int lanes)
{
    (void)start, (void)lanes;
    return OFFSET ? N(load_sums)(columns->offsets + v * VL) : N(no_sums)();
}
INLINE void N(end)(const fastrnn_columns *columns, int v, N(sum) sum, float scale, const float *start, float *to,
                   int lanes)
{
    const vec scales = v_mul(v_load(columns->scales + v * VL), v_set1(scale));
    NAME(store_lanes)(to, v_fma(N(floats)(sum), scales, NAME(load_lanes)(start, lanes)), lanes);
}

#include "kernels/narrow/int8_operand.inc.h"
#include "kernels/narrow/product.inc.h"

static const fastrnn_narrow N(narrow) = {
    .format = FASTRNN_INT8,
    .instructions = INSTRUCTIONS,
    .rate = RATE,
    .bytes = ARGUMENT_BYTES / 4,
    .round_rows = N(round_rows),
    .begin_rows = N(begin_rows),
    .round_units = N(round_units),
    .subtract_rounded = N(subtract_rounded),
    .product = N(product),
};

#include "kernels/narrow/end.inc.h"
