/* float8: E4M3 without infinities, with a power of two as the scale of each row. The exponent and the mantissa in the
 * place of those of float16 are the number divided by 256, also of a denormal one. The scale multiplies each weight,
 * which is exact; sums that are scaled afterwards could overflow where those of float32 do not.
 *
 * 16 bits have a weight of the first vector of a panel in the lower half and one of the second in the upper half. */
#define N(a) JOIN(a, NARROW)
#define FORMAT FASTRNN_FLOAT8
#define LOAD(p, columns, v) N(load)((p) - (v) % 2 * VL, (v) % 2, (columns)->scales + (v) * VL)
#define GROUP_BYTES 1
#define NARROW_ROWS 4
#define NARROW_FEW 3
#define ROWS_IN_REGISTERS 4

#if defined(__GNUC__)
typedef short N(halves) __attribute__((vector_size(2 * VL), aligned(1), may_alias));
/* The sign stays in bit 15, and its copy in bit 14 is cleared. */
INLINE N(halves) N(halves_of)(N(halves) pairs, int upper) { return ((upper ? pairs : pairs << 8) >> 1) & -0x4080; }
#else
typedef struct {
    short lane[VL];
} N(halves);
INLINE N(halves) N(halves_of)(N(halves) pairs, int upper)
{
    for (int l = 0; l < VL; l++)
        pairs.lane[l] = (short)(((upper ? pairs.lane[l] : (short)(pairs.lane[l] * 256)) >> 1) & -0x4080);
    return pairs;
}
#endif
INLINE vec N(load)(const char *p, int upper, const float *scales)
{
    const N(halves) halves = N(halves_of)(*(const N(halves) *)p, upper);
    return v_mul(v_load_half((const char *)&halves), v_mul(v_load(scales), v_set1(256)));
}

#include "kernels/narrow/widened.inc.h"
