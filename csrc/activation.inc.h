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
    X(LN2_LOW, 0x1.7f7d1cp-20f)                                                                                        \
    X(FAINT, 0x1p-60f)              /* below, a remainder could be no normal number, and be lost */
#define NUMBERS_f64(X)                                                                                                 \
    X(LOWEST, -709.0)                                                                                                  \
    X(ROUNDER, 0x1.8p52)                                                                                               \
    X(LOG2E, 0x1.71547652b82fep+0)                                                                                     \
    X(LN2_HIGH, 0x1.62e42fefa3p-1)                                                                                     \
    X(LN2_LOW, 0x1.3de6af278ece6p-42)                                                                                  \
    X(FAINT, 0x1p-200)
#define DECLARE_NUMBER(name, value) static const real NAME(name) = value;
NAME(NUMBERS)(DECLARE_NUMBER)
#define LOWEST NAME(LOWEST)
#define ROUNDER NAME(ROUNDER)
#define LOG2E NAME(LOG2E)
#define LN2_HIGH NAME(LN2_HIGH)
#define LN2_LOW NAME(LN2_LOW)
#define FAINT NAME(FAINT)

/* exp(y) = s * (1 + p) for y <= 0, y = -infinity included; a NaN makes p NaN. */
INLINE void NAME(exp_split)(vec y, vec *s, vec *p)
{
    y = v_max(v_set1(LOWEST), y);
    vec t = v_fma(y, v_set1(LOG2E), v_set1(ROUNDER));
    vec n = v_sub(t, v_set1(ROUNDER));
    vec r = v_fnma(n, v_set1(LN2_HIGH), y);
    r = v_fnma(n, v_set1(LN2_LOW), r);
    *s = v_exp2_rounded(t);
    *p = v_fma(NAME(exp_polynomial)(r), v_mul(r, r), r);
}

/* (a + a_low) / (d + d_low) for d in [1, 2], the low parts being rounding errors, a_low NULL for none: 1/d from the
 * cubic of least relative error, 1/577, made better by reciprocal_step; then the quotient is corrected by its
 * remainder. It is a, exactly, at d = 1 without low parts. */
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

/* 1 / (1 + exp(-x)), from z = exp(-|x|): 1 / (1 + z), and z / (1 + z) for negative x, which is z where z is
 * faint; and then even s p might be lost. */
INLINE vec NAME(sigmoid)(vec x)
{
    vec s, p, one = v_set1(1);
    NAME(exp_split)(v_negabs(x), &s, &p);
    vec z = v_fma(s, p, s), d = v_add(one, z);
    vec a = v_if_negative(x, z, one), ratio = NAME(quotient)(a, NULL, d, v_sub(z, v_sub(d, one)));
    return v_if_negative(v_sub(a, v_set1(FAINT)), v_mul(s, v_add(one, p)), ratio);
}

/* (1 - z) / (1 + z), z = exp(-2|x|), with the sign of x; z - 1 = s p + (s - 1) loses nothing near zero, where s = 1.
 * A faint x is its own tanh. */
INLINE vec NAME(tanh)(vec x)
{
    vec s, p, y = v_negabs(x), two = v_set1(2);
    NAME(exp_split)(v_add(y, y), &s, &p);
    vec s_1 = v_sub(s, v_set1(1));
    vec expm1 = v_fma(s, p, s_1), low = v_fma(s, p, v_sub(s_1, expm1)), d = v_add(two, expm1);
    vec ratio = NAME(quotient)(expm1, &low, d, v_add(low, v_sub(expm1, v_sub(d, two))));
    return v_copysign(v_if_negative(v_add(y, v_set1(FAINT)), ratio, y), x);
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

#undef LOWEST
#undef ROUNDER
#undef LOG2E
#undef LN2_HIGH
#undef LN2_LOW
#undef FAINT
#undef NUMBERS_f32
#undef NUMBERS_f64
#undef DECLARE_NUMBER
