/* The polynomials of the exponential, whose degree depends on the precision: for activation.inc.h. */
#ifndef FASTRNN_EXPONENTIAL_H
#define FASTRNN_EXPONENTIAL_H

/* q(r) = (exp(r) - 1 - r) / r^2, |r| <= ln(2)/2, where r + r^2 q is wrong by at most 1.4e-8 of itself. Estrin's scheme,
 * for short chains. */
INLINE vec_f32 exp_polynomial_f32(vec_f32 r)
{
    vec_f32 r2 = v_mul_f32(r, r);
    vec_f32 a = v_fma_f32(v_set1_f32(0x1.5554b6p-3f), r, v_set1_f32(0.5f));
    vec_f32 b = v_fma_f32(v_set1_f32(0x1.122408p-7f), r, v_set1_f32(0x1.5555acp-5f));
    b = v_fma_f32(v_set1_f32(0x1.6c642ap-10f), r2, b);
    return v_fma_f32(b, r2, a);
}

/* The same in double precision, interpolating at the Chebyshev nodes. Largest error of r^2 q: 1.3e-17. */
INLINE vec_f64 exp_polynomial_f64(vec_f64 r)
{
    vec_f64 r2 = v_mul_f64(r, r), r4 = v_mul_f64(r2, r2);
    vec_f64 a = v_fma_f64(v_set1_f64(0x1.5555555555556p-3), r, v_set1_f64(0.5));
    vec_f64 b = v_fma_f64(v_set1_f64(0x1.11111111109adp-7), r, v_set1_f64(0x1.5555555553d4fp-5));
    vec_f64 c = v_fma_f64(v_set1_f64(0x1.a01a01a7c8d47p-13), r, v_set1_f64(0x1.6c16c17893833p-10));
    vec_f64 d = v_fma_f64(v_set1_f64(0x1.71de0d9c145d0p-19), r, v_set1_f64(0x1.a019b8ef67c6cp-16));
    vec_f64 e = v_fma_f64(v_set1_f64(0x1.af38d53857513p-26), r, v_set1_f64(0x1.2891a8c1d838dp-22));
    a = v_fma_f64(b, r2, a);
    c = v_fma_f64(d, r2, c);
    c = v_fma_f64(e, r4, c);
    return v_fma_f64(c, r4, a);
}

#endif
