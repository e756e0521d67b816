/* sigmoid and tanh from +, *, fma and integer steps alone, so that every instruction set gives the same bits.
 *
 * Both rest on exp(y) for y <= 0, split as exp(y) = s * (1 + p), s = 2^n a power of two and p = exp(r) - 1 with
 * |r| <= ln(2)/2 (Cody and Waite 1980), and on 1/d for d in [1, 2], where no exponent needs care. No division: a
 * vector division costs more than all the rest.
 *
 * p = r + r^2 q(r); q interpolates (exp(r) - 1 - r) / r^2 at the Chebyshev nodes of its interval.
 */

#define NUMBERS_f32(X)                                                                                                 \
    X(LOWEST, -88.0f)               /* exp is below the smallest normal number from -87.34: s is 0 there */            \
    X(ROUNDER, 0x1.8p23f)           /* adding it rounds to an integer and leaves that in the low bits */               \
    X(LOG2E, 0x1.715476p+0f)                                                                                           \
    X(LN2_HIGH, 0x1.62e4p-1f)       /* 15 bits, so that n * LN2_HIGH is exact */                                       \
    X(LN2_LOW, 0x1.7f7d1cp-20f)
#define NUMBERS_f64(X)                                                                                                 \
    X(LOWEST, -709.0)                                                                                                  \
    X(ROUNDER, 0x1.8p52)                                                                                               \
    X(LOG2E, 0x1.71547652b82fep+0)                                                                                     \
    X(LN2_HIGH, 0x1.62e42fefa3p-1)                                                                                     \
    X(LN2_LOW, 0x1.3de6af278ece6p-42)
#define DECLARE_NUMBER(name, value) const real name = value;

/* exp(y) = s * (1 + p) for y <= 0, y = -infinity included; a NaN makes p NaN. */
INLINE void NAME(exp_split)(vec y, vec *s, vec *p)
{
    NAME(NUMBERS)(DECLARE_NUMBER)
    y = v_max(v_set1(LOWEST), y);
    vec t = v_fma(y, v_set1(LOG2E), v_set1(ROUNDER));
    vec n = v_sub(t, v_set1(ROUNDER));
    vec r = v_fnma(n, v_set1(LN2_HIGH), y);
    r = v_fnma(n, v_set1(LN2_LOW), r);
    *s = v_exp2_rounded(t);
    *p = v_fma(NAME(exp_polynomial)(r), v_mul(r, r), r);
}

/* (a + a_low) / (d + d_low) for d in [1, 2], the low parts being rounding errors, a_low NULL for none: 1/d from the
 * cubic of least relative error, 1/577, made better by reciprocal_step; then the quotient is corrected by its remainder.
 * It is a, exactly, at d = 1 without low parts. */
INLINE vec NAME(quotient)(vec a, const vec *a_low, vec d, vec d_low)
{
    const real C0 = (real)(1632.0 / 577), C1 = (real)(-1696.0 / 577), C2 = (real)(768.0 / 577),
               C3 = (real)(-128.0 / 577);
    vec guess = v_fma(v_fma(v_set1(C3), d, v_set1(C2)), v_mul(d, d), v_fma(v_set1(C1), d, v_set1(C0)));
    vec inverse = NAME(reciprocal_step)(guess, v_fnma(d, guess, v_set1(1)));
    vec q = v_mul(a, inverse);
    vec remainder = v_fnma(d_low, q, v_remainder(a, d, q));
    if (a_low) remainder = v_add(remainder, *a_low);
    return v_fma(remainder, inverse, q);
}

/* 1 / (1 + exp(-x)), from z = exp(-|x|): 1 / (1 + z), and z / (1 + z) for negative x. */
INLINE vec NAME(sigmoid)(vec x)
{
    vec s, p, one = v_set1(1);
    NAME(exp_split)(v_negabs(x), &s, &p);
    vec z = v_fma(s, p, s), d = v_add(one, z);
    return NAME(quotient)(v_if_negative(x, z, one), NULL, d, v_sub(z, v_sub(d, one)));
}

/* (1 - z) / (1 + z), z = exp(-2|x|), with the sign of x; z - 1 = s p + (s - 1) loses nothing near zero, where s = 1. */
INLINE vec NAME(tanh)(vec x)
{
    vec s, p, y = v_negabs(x), two = v_set1(2);
    NAME(exp_split)(v_add(y, y), &s, &p);
    vec s_1 = v_sub(s, v_set1(1));
    vec expm1 = v_fma(s, p, s_1), low = v_fma(s, p, v_sub(s_1, expm1)), d = v_add(two, expm1);
    return v_copysign(NAME(quotient)(expm1, &low, d, v_add(low, v_sub(expm1, v_sub(d, two)))), x);
}

/* y[k] = f(x[k]) for k < n: the functions as the cells use them, for the tests. */
static void NAME(activate)(int use_tanh, ptrdiff_t n, const real *x, real *y)
{
    for (ptrdiff_t k = 0; k < n; k += VL) {
        int lanes = n - k < VL ? (int)(n - k) : VL;
        vec v = v_load_n(x + k, lanes);
        v_store_n(y + k, use_tanh ? NAME(tanh)(v) : NAME(sigmoid)(v), lanes);
    }
}

#undef NUMBERS_f32
#undef NUMBERS_f64
#undef DECLARE_NUMBER
