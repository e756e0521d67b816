/* Narrow formats in plain C. */
#define real float
#define SUFFIX f32

INLINE float float_of_half(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, mantissa = half & 1023;
    uint32_t bits = sign | (exponent + 112) << 23 | mantissa << 13;
    if (exponent == 31) bits = sign | 255u << 23 | mantissa << 13;
    if (exponent) return v_real_f32(bits);
    return (sign ? -0x1p-24f : 0x1p-24f) * (float)mantissa; /* zero or denormal */
}
INLINE vec_f32 v_load_half_f32(const char *p)
{
    vec_f32 r;
    for (int l = 0; l < VL; l++) {
        uint16_t half;
        memcpy(&half, p + 2 * l, sizeof half);
        r.lane[l] = float_of_half(half);
    }
    return r;
}
INLINE vec_f32 v_bfloat16_f32(vec_f32 a)
{
    for (int l = 0; l < VL; l++) {
        uint32_t bits = v_bits_f32(a.lane[l]);
        bits = a.lane[l] != a.lane[l] ? bits | 1u << 22 : bits + 0x7fff + (bits >> 16 & 1);
        a.lane[l] = v_real_f32(bits & 0xffff0000);
    }
    return a;
}

#define SET "generic"
#include "kernels/narrow/halves.inc.h"

typedef struct {
    vec_f32 first, second;
} pair_f32;

#define SET "generic"
#define PAIR_ROWS 4
INLINE pair_f32 load_bf16(const char *p)
{
    pair_f32 g;
    for (int l = 0; l < VL; l++) {
        uint32_t pair;
        memcpy(&pair, p + 4 * l, sizeof pair);
        g.first.lane[l] = v_real_f32(pair & 0xffff0000);
        g.second.lane[l] = v_real_f32(pair << 16);
    }
    return g;
}
#include "kernels/narrow/every_set.inc.h"

#define NARROW i8
#define INSTRUCTIONS "generic"
#define RATE 1
#define OFFSET 0
#define ARGUMENT_BYTES 4
#define NARROW_ROWS 4
#define NARROW_FEW 1
typedef struct {
    int32_t lane[VL_f32];
} sum_i8;
typedef struct {
    int8_t lane[4 * VL_f32];
} group_i8;
typedef struct {
    int8_t number[4];
} argument_i8;
INLINE sum_i8 no_sums_i8(void) { return (sum_i8){{0}}; }
INLINE sum_i8 load_sums_i8(const int32_t *p)
{
    (void)p;
    return no_sums_i8();
}
INLINE group_i8 load_i8(const char *p)
{
    group_i8 g;
    memcpy(&g, p, sizeof g);
    return g;
}
INLINE argument_i8 broadcast_i8(const char *a)
{
    argument_i8 four;
    memcpy(&four, a, sizeof four);
    return four;
}
INLINE sum_i8 dot_i8(sum_i8 sum, group_i8 w, argument_i8 a)
{
    UNROLL for (int l = 0; l < VL; l++)
    {
        UNROLL for (int k = 0; k < 4; k++) sum.lane[l] += w.lane[4 * l + k] * a.number[k];
    }
    return sum;
}
INLINE vec_f32 floats_i8(sum_i8 sum)
{
    vec_f32 r;
    for (int l = 0; l < VL; l++) r.lane[l] = (float)sum.lane[l];
    return r;
}
INLINE void store_i8(void *row, ptrdiff_t k, vec_f32 x)
{
    for (int l = 0; l < VL; l++) {
        const float shifted =
            x.lane[l] + 0x1.8p23f; /* to the nearest, ties to even; a float, even where sums are not */
        const float q = shifted - 0x1.8p23f;
        ((int8_t *)row)[k + l] = (int8_t)(q > 127 ? 127 : q >= -127 ? q : q < -127 ? -127 : 0);
    }
}
#include "kernels/narrow/int8.inc.h"

static const fastrnn_narrow *const narrow_generic[] = {&narrow_i8, FORMATS_OF_HALVES, FORMATS_OF_EVERY_SET, NULL};

#undef real
#undef SUFFIX
