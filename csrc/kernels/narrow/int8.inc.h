/* int8: w = s_w q_w with a scale for each column, a = s_a q_a with a scale for each row, all |q| <= 127:
 * z += (s_w s_a) sum_k q_w q_a, with an exact sum and one fma. 4 weights of a column are in 32 bits and meet 4 numbers
 * of the operand. The instructions define the sums and N(dot), N(store) of int8_operand.inc.h, and N(floats)(sum), the
 * sums as floats. OFFSET is 128 if 128 is added to the operand, which is then unsigned, else 0.
 *
 * IN_PAIRS: N(dot) of more than NARROW_FEW rows has one product for two, by the identity of
 *   S. Winograd, A new algorithm for inner product, IEEE Transactions on Computers C-17 (1968), 693-694:
 *   q_0 w_0 + q_1 w_1 = (q_0 + w_1) (q_1 + w_0) - q_0 q_1 - w_0 w_1.
 * Integers are exact modulo 2^32, in any order. The subtracted sums are in the offsets of the columns and of the rows;
 * PAIRS_OF(groups, a) is the latter for a row, and N(reduced)(sum, x) subtracts x from all sums. */
#define N(a) JOIN(a, NARROW)
#define LOAD(p, columns, v) N(load)(p)
#define LOAD_OF_FEW(p, columns, v) OF_FEW(load)(p)
#ifndef IN_PAIRS
#define IN_PAIRS 0
#define PAIRS_OF(groups, a) 0
#define OF_FEW(a) N(a)
#endif
#define GROUP 4
#define GROUP_BYTES 4
#define HAS_SCALES 1

INLINE N(sum)
    N(begin)(const int mr, const fastrnn_columns *columns, int v, int32_t pairs, const float *start, int lanes)
{
    (void)start, (void)lanes;
#if IN_PAIRS
    if (mr > NARROW_FEW) return N(reduced)(N(load_sums)(columns->offsets + v * VL), pairs);
#endif
    (void)mr, (void)pairs;
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
    .in_pairs = IN_PAIRS,
    .bytes = ARGUMENT_BYTES / 4,
    .round_rows = N(round_rows),
    .begin_rows = N(begin_rows),
    .round_units = N(round_units),
    .subtract_rounded = N(subtract_rounded),
    .product = N(product),
};

#include "kernels/narrow/end.inc.h"
