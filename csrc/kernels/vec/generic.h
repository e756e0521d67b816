/* Vector operations in plain C, for processors without FMA or without a header of their own. This file defines the
 * meaning of every operation.
 *
 * A set's header defines, for S = f32 (float) and f64 (double),
 *   vec_S               a vector of VL_S numbers
 *   TILE_ROWS           rows of the largest product tile whose sums, two vectors wide, stay in registers
 *   FEW_ROWS            rows of the largest one four vectors wide: 3 or 6
 *   NARROW_TILES        whether a tile has so few fmas a step that other instructions count, see product.inc.h
 *   WHOLE_LOOPS         whether whole vectors have a loop of their own, see step.inc.h: here it would save little,
 *                       beside the many instructions of an operation, and be 30 kB of the wheel
 *   STREAM_VECTORS      vectors of sums that stay in registers beside one number and one operand of an fma: 4, 12 or 16
 *   v_load, v_store     VL numbers, any alignment
 *   v_load_n, v_store_n the first n (0 < n <= VL) numbers; the other lanes load as zero, their memory stays untouched
 *   v_sqrt(a)           the square root, correctly rounded (of a float, that of a double rounded to float is)
 *   v_fma(a, b, c)      a*b + c, v_fnma(a, b, c)  c - a*b: one rounding in every set but this one
 *   v_max(a, b)         a > b ? a : b;  v_min(a, b)  a < b ? a : b; so b where either is NaN
 *   v_abs(a)            |a|;  v_copysign(m, s)  |m| with the sign of s;  v_if_negative(x, y, n)  x < 0 ? y : n
 *   v_exp2_rounded(t)   2^n for t = 1.5 * 2^(mantissa bits) + bias + n, -bias <= n <= bias; 0 for n = -bias. bias: of
 *                       the exponent, 127 or 1023
 *   v_bfloat16(a)       a rounded to 8 bits of precision, ties to even; NaN stays NaN; for S = f32 alone
 *   v_load_half(p)      VL numbers of IEEE 754 binary16, widened; for S = f32 alone, in kernels/narrow/
 *   v_transpose(r)      a square of VL vectors transposed in place: lane j of r[i] becomes lane i of r[j]
 *   v_prefetch(p)       the cache line of p will be read soon;  v_prefetch_l2(p)  later, so the second cache will do
 */
#ifndef FASTRNN_VEC_GENERIC_H
#define FASTRNN_VEC_GENERIC_H

#include <string.h>

#define TILE_ROWS 4
#define FEW_ROWS 3
#define NARROW_TILES 0
#define WHOLE_LOOPS 0
#define STREAM_VECTORS 4

INLINE void v_prefetch(const void *p) { (void)p; }
INLINE void v_prefetch_l2(const void *p) { (void)p; }

#define DEFINE_VEC_GENERIC(S, real, bits, LANES, MANTISSA)                                                             \
    typedef struct {                                                                                                   \
        real lane[LANES];                                                                                              \
    } vec_##S;                                                                                                         \
    enum { VL_##S = LANES };                                                                                           \
    INLINE vec_##S v_load_##S(const real *p)                                                                           \
    {                                                                                                                  \
        vec_##S r;                                                                                                     \
        memcpy(r.lane, p, sizeof r.lane);                                                                              \
        return r;                                                                                                      \
    }                                                                                                                  \
    INLINE void v_store_##S(real *p, vec_##S a) { memcpy(p, a.lane, sizeof a.lane); }                                  \
    INLINE vec_##S v_load_n_##S(const real *p, int n)                                                                  \
    {                                                                                                                  \
        vec_##S r = {{0}};                                                                                             \
        for (int l = 0; l < n; l++) r.lane[l] = p[l];                                                                  \
        return r;                                                                                                      \
    }                                                                                                                  \
    INLINE void v_store_n_##S(real *p, vec_##S a, int n)                                                               \
    {                                                                                                                  \
        for (int l = 0; l < n; l++) p[l] = a.lane[l];                                                                  \
    }                                                                                                                  \
    GENERIC_UNROLLED(S, v_set1, (real x), x)                                                                           \
    GENERIC_UNROLLED(S, v_add, (vec_##S a, vec_##S b), a.lane[l] + b.lane[l])                                          \
    GENERIC_MAP(S, v_sub, (vec_##S a, vec_##S b), a.lane[l] - b.lane[l])                                               \
    GENERIC_MAP(S, v_mul, (vec_##S a, vec_##S b), a.lane[l] * b.lane[l])                                               \
    GENERIC_MAP(S, v_div, (vec_##S a, vec_##S b), a.lane[l] / b.lane[l])                                               \
    GENERIC_MAP(S, v_sqrt, (vec_##S a), (real)sqrt((double)a.lane[l]))                                                 \
    GENERIC_UNROLLED(S, v_fma, (vec_##S a, vec_##S b, vec_##S c), a.lane[l] * b.lane[l] + c.lane[l])                   \
    GENERIC_MAP(S, v_fnma, (vec_##S a, vec_##S b, vec_##S c), c.lane[l] - a.lane[l] * b.lane[l])                       \
    GENERIC_MAP(S, v_max, (vec_##S a, vec_##S b), a.lane[l] > b.lane[l] ? a.lane[l] : b.lane[l])                       \
    GENERIC_MAP(S, v_min, (vec_##S a, vec_##S b), a.lane[l] < b.lane[l] ? a.lane[l] : b.lane[l])                       \
    INLINE bits v_bits_##S(real x)                                                                                     \
    {                                                                                                                  \
        bits b;                                                                                                        \
        memcpy(&b, &x, sizeof b);                                                                                      \
        return b;                                                                                                      \
    }                                                                                                                  \
    INLINE real v_real_##S(bits b)                                                                                     \
    {                                                                                                                  \
        real x;                                                                                                        \
        memcpy(&x, &b, sizeof x);                                                                                      \
        return x;                                                                                                      \
    }                                                                                                                  \
    GENERIC_MAP(S, v_abs, (vec_##S a), v_real_##S(v_bits_##S(a.lane[l]) & ~SIGN_BIT(bits)))                            \
    GENERIC_MAP(                                                                                                       \
        S, v_copysign, (vec_##S m, vec_##S s),                                                                         \
        v_real_##S((bits)((v_bits_##S(m.lane[l]) & ~SIGN_BIT(bits)) | (v_bits_##S(s.lane[l]) & SIGN_BIT(bits)))))      \
    GENERIC_MAP(S, v_if_negative, (vec_##S x, vec_##S yes, vec_##S no), x.lane[l] < 0 ? yes.lane[l] : no.lane[l])      \
    GENERIC_MAP(S, v_exp2_rounded, (vec_##S t), v_real_##S((bits)(v_bits_##S(t.lane[l]) << MANTISSA)))                 \
    INLINE void v_transpose_##S(vec_##S r[LANES])                                                                      \
    {                                                                                                                  \
        for (int i = 0; i < LANES; i++)                                                                                \
            for (int l = 0; l < i; l++) {                                                                              \
                real swap = r[i].lane[l];                                                                              \
                r[i].lane[l] = r[l].lane[i];                                                                           \
                r[l].lane[i] = swap;                                                                                   \
            }                                                                                                          \
    }

#define GENERIC_MAP(S, name, parameters, expression)                                                                   \
    INLINE vec_##S name##_##S parameters                                                                               \
    {                                                                                                                  \
        vec_##S r;                                                                                                     \
        for (int l = 0; l < VL_##S; l++) r.lane[l] = expression;                                                       \
        return r;                                                                                                      \
    }
/* For the operations of a product, whose sums then stay in registers. */
#define GENERIC_UNROLLED(S, name, parameters, expression)                                                              \
    INLINE vec_##S name##_##S parameters                                                                               \
    {                                                                                                                  \
        vec_##S r;                                                                                                     \
        UNROLL for (int l = 0; l < VL_##S; l++) r.lane[l] = expression;                                                \
        return r;                                                                                                      \
    }
#define SIGN_BIT(bits) ((bits)1 << (8 * sizeof(bits) - 1))

DEFINE_VEC_GENERIC(f32, float, uint32_t, 4, 23)
DEFINE_VEC_GENERIC(f64, double, uint64_t, 2, 52)

#undef DEFINE_VEC_GENERIC
#undef GENERIC_MAP
#undef GENERIC_UNROLLED
#undef SIGN_BIT

#endif
