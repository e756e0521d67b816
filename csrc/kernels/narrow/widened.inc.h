/* The kernels of a format whose weights are widened to floats in registers. Products and sums are those of single
 * precision, and the operand is the float row itself. The format defines FORMAT, LOAD and GROUP_BYTES. */
#define GROUP 1
#define ARGUMENT_BYTES 4
#define HAS_SCALES 0
#define NARROW_ROWS TILE_ROWS
#define NARROW_FEW 3

typedef vec N(sum);
typedef vec N(group);
typedef vec N(argument);
INLINE vec N(broadcast)(const char *a) { return v_set1(*(const float *)a); }
INLINE vec N(dot)(vec sum, vec weights, vec a) { return v_fma(a, weights, sum); }
INLINE vec N(begin)(const fastrnn_columns *columns, int v, const float *start, int lanes)
{
    (void)columns, (void)v;
    return NAME(load_lanes)(start, lanes);
}
INLINE void N(end)(const fastrnn_columns *columns, int v, vec sum, float scale, const float *start, float *to,
                   int lanes)
{
    (void)columns, (void)v, (void)scale, (void)start;
    NAME(store_lanes)(to, sum, lanes);
}

#include "kernels/narrow/product.inc.h"

static const fastrnn_narrow N(narrow) = {
    .format = FORMAT,
    .instructions = INSTRUCTIONS,
    .rate = 1,
    .product = N(product),
};

#undef FORMAT
#include "kernels/narrow/end.inc.h"
