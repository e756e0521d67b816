/* sigmoid, tanh and the like from +, *, /, fma and integer steps alone, so that every instruction set gives the same
 * bits.
 *
 * All rest on exp(-y), split as exp(-y) = s * (1 - p), s = 2^n a power of two and p = 1 - exp(-r) with |r| <= ln(2)/2
 * (Cody and Waite 1980), and, but for exp itself, on one division. A division takes as long as a dozen
 * multiplications, but has an execution unit of its own: Newton iterations in its place would compete with the other
 * multiplications.
 *
 * p = r - r^2 q(r), q a polynomial near (exp(-r) - 1 + r) / r^2.
 */

/* clang-format off */
#define NUMBERS_f32(X)                                                                                                 \
    X(LARGEST, 88.0f)                /* exp(-y) is below the smallest normal number from 87.34: s is 0 there */        \
    X(ROUNDER, 0x1.8p23f + 127.0f)   /* adding it rounds to an integer, left in the low bits with the bias */          \
    X(LOG2E, 0x1.715476p+0f)                                                                                           \
    X(LN2_HIGH, 0x1.62e4p-1f)        /* 15 bits, so that n * LN2_HIGH is exact */                                      \
    X(LN2_LOW, 0x1.7f7d1cp-20f)
#define NUMBERS_f64(X)                                                                                                 \
    X(LARGEST, 709.0)                                                                                                  \
    X(ROUNDER, 0x1.8p52 + 1023.0)                                                                                      \
    X(LOG2E, 0x1.71547652b82fep+0)                                                                                     \
    X(LN2_HIGH, 0x1.62e42fefa3p-1)                                                                                     \
    X(LN2_LOW, 0x1.3de6af278ece6p-42)
/* clang-format on */
#define DECLARE_NUMBER(name, value) static const real NAME(name) = value;
#define DECLARE_NUMBERS NAME(NUMBERS)(DECLARE_NUMBER)
DECLARE_NUMBERS
#define LARGEST NAME(LARGEST)
#define ROUNDER NAME(ROUNDER)
#define LOG2E NAME(LOG2E)
#define LN2_HIGH NAME(LN2_HIGH)
#define LN2_LOW NAME(LN2_LOW)

/* exp(-y) = s * (1 - p) for |y| <= LARGEST; a NaN makes p NaN. */
INLINE void NAME(exp_split)(vec y, vec *s, vec *p)
{
    vec t = v_fnma(y, v_set1(LOG2E), v_set1(ROUNDER));
    vec n = v_sub(t, v_set1(ROUNDER));
    vec r = v_fma(n, v_set1(LN2_HIGH), y);
    r = v_fma(n, v_set1(LN2_LOW), r);
    *s = v_exp2_rounded(t);
    *p = v_fnma(NAME(exp_polynomial)(r), v_mul(r, r), r);
}

/* 1 / (1 + z), z = exp(-x), with 1 + z = (min(s, 1) - s p) + max(s, 1). The sum never rises where x rises, so the
 * quotient never falls: for s <= 1 the bracket is z rounded once; for s > 1 its rounding error is small beside s. The
 * bound keeps z finite. Below -LARGEST the quotient is a denormal: 0 where denormals are flushed. */
INLINE vec NAME(sigmoid)(vec x)
{
    vec s, p, one = v_set1(1);
    NAME(exp_split)(v_min(v_set1(LARGEST), v_max(v_set1(-LARGEST), x)), &s, &p);
    return v_div(one, v_add(v_fnma(s, p, v_min(s, one)), v_max(s, one)));
}

/* (1 - z) / (1 + z), z = exp(-2|x|), with the sign of x; 1 - z = (1 - s) + s p loses nothing near zero, where s = 1. */
INLINE vec NAME(tanh)(vec x)
{
    vec s, p, y = v_abs(x), one = v_set1(1);
    NAME(exp_split)(v_min(v_set1(LARGEST), v_add(y, y)), &s, &p);
    return v_copysign(v_div(v_fma(s, p, v_sub(one, s)), v_fnma(s, p, v_add(s, one))), x);
}

/* exp(-y) for y >= 0, y = infinity included. */
INLINE vec NAME(exp_minus)(vec y)
{
    vec s, p;
    NAME(exp_split)(v_min(v_set1(LARGEST), y), &s, &p);
    return v_mul(s, v_sub(v_set1(1), p));
}

/* log(1 / (1 + exp(-x))) = min(x, 0) - log(1 + e), e = exp(-|x|), both of one sign. With t = e / (1 + e/2) the
 * logarithm is t + t w R(w), w = t^2 / 4, the series of 2 artanh(t/2). Wrong by at most 3 units
 * in the last place. e is returned, too. */
INLINE vec NAME(log_sigmoid_exp)(vec x, vec *e)
{
    vec one = v_set1(1), half = v_set1((real)0.5);
    *e = NAME(exp_minus)(v_abs(x));
    vec t = v_div(*e, v_fma(*e, half, one)), u = v_mul(t, half), w = v_mul(u, u);
    return v_sub(v_if_negative(x, x, v_set1((real)-0.0)), v_fma(v_mul(t, w), NAME(artanh_polynomial)(w), t));
}
INLINE vec NAME(log_sigmoid)(vec x)
{
    vec e;
    return NAME(log_sigmoid_exp)(x, &e);
}

#ifndef FASTRNN_FORWARD_ONLY
/* y (n) = f(x), for the tests of the functions that the cells use. */
static void NAME(activate)(fastrnn_function function, ptrdiff_t n, const real *x, real *y)
{
    for (ptrdiff_t k = 0; k < n; k += VL) {
        int lanes = NAME(lanes_at)(n, k);
        vec v = v_load_n(x + k, lanes);
        vec f = function == FASTRNN_ACTIVATE_TANH          ? NAME(tanh)(v)
                : function == FASTRNN_ACTIVATE_LOG_SIGMOID ? NAME(log_sigmoid)(v)
                                                           : NAME(sigmoid)(v);
        v_store_n(y + k, f, lanes);
    }
}
#endif

#undef LARGEST
#undef ROUNDER
#undef LOG2E
#undef LN2_HIGH
#undef LN2_LOW
#undef NUMBERS_f32
#undef NUMBERS_f64
#undef DECLARE_NUMBER
