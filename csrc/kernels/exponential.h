/* The polynomials of activation.inc.h, whose degrees depend on the precision. */
#ifndef FASTRNN_EXPONENTIAL_H
#define FASTRNN_EXPONENTIAL_H

/* q(r) = (exp(-r) - 1 + r) / r^2, |r| <= ln(2)/2, where r - r^2 q is wrong by at most 1.4e-8 of itself. Estrin's
 * scheme, for short chains. */
INLINE vec_f32 exp_polynomial_f32(vec_f32 r)
{
    vec_f32 r2 = v_mul_f32(r, r);
    vec_f32 a = v_fnma_f32(v_set1_f32(0x1.5554b6p-3f), r, v_set1_f32(0.5f));
    vec_f32 b = v_fnma_f32(v_set1_f32(0x1.122408p-7f), r, v_set1_f32(0x1.5555acp-5f));
    b = v_fma_f32(v_set1_f32(0x1.6c642ap-10f), r2, b);
    return v_fma_f32(b, r2, a);
}

/* The same in double precision, interpolating at the Chebyshev nodes. Largest error of r^2 q: 1.3e-17. */
INLINE vec_f64 exp_polynomial_f64(vec_f64 r)
{
    vec_f64 r2 = v_mul_f64(r, r), r4 = v_mul_f64(r2, r2);
    vec_f64 a = v_fnma_f64(v_set1_f64(0x1.5555555555556p-3), r, v_set1_f64(0.5));
    vec_f64 b = v_fnma_f64(v_set1_f64(0x1.11111111109adp-7), r, v_set1_f64(0x1.5555555553d4fp-5));
    vec_f64 c = v_fnma_f64(v_set1_f64(0x1.a01a01a7c8d47p-13), r, v_set1_f64(0x1.6c16c17893833p-10));
    vec_f64 d = v_fnma_f64(v_set1_f64(0x1.71de0d9c145d0p-19), r, v_set1_f64(0x1.a019b8ef67c6cp-16));
    vec_f64 e = v_fnma_f64(v_set1_f64(0x1.af38d53857513p-26), r, v_set1_f64(0x1.2891a8c1d838dp-22));
    a = v_fma_f64(b, r2, a);
    c = v_fma_f64(d, r2, c);
    c = v_fma_f64(e, r4, c);
    return v_fma_f64(c, r4, a);
}

/* R(w) = (artanh(u) / u - 1) / w, w = u^2 <= 1/9, interpolated at the Chebyshev nodes, where 1 + w R is wrong by at
 * most 1.7e-8 of itself. */
INLINE vec_f32 artanh_polynomial_f32(vec_f32 w)
{
    vec_f32 a = v_fma_f32(v_set1_f32(0x1.99ad6cp-3f), w, v_set1_f32(0x1.55554cp-2f));
    vec_f32 b = v_fma_f32(v_set1_f32(0x1.12f598p-3f), w, v_set1_f32(0x1.21249ap-3f));
    return v_fma_f32(b, v_mul_f32(w, w), a);
}

/* The same in double precision: 7.2e-18. */
INLINE vec_f64 artanh_polynomial_f64(vec_f64 w)
{
    vec_f64 w2 = v_mul_f64(w, w), w4 = v_mul_f64(w2, w2);
    vec_f64 a = v_fma_f64(v_set1_f64(0x1.999999999a3ddp-3), w, v_set1_f64(0x1.5555555555555p-2));
    vec_f64 b = v_fma_f64(v_set1_f64(0x1.c71c727143318p-4), w, v_set1_f64(0x1.24924923d44c6p-3));
    vec_f64 c = v_fma_f64(v_set1_f64(0x1.3b18b294bebf9p-4), w, v_set1_f64(0x1.745cf0b0e03bdp-4));
    vec_f64 d = v_fma_f64(v_set1_f64(0x1.eb905e8575054p-5), w, v_set1_f64(0x1.10ac75dc602b1p-4));
    vec_f64 e = v_fma_f64(v_set1_f64(0x1.4b0a26c5f2aefp-4), w, v_set1_f64(0x1.687a6e7c95176p-5));
    a = v_fma_f64(b, w2, a);
    c = v_fma_f64(d, w2, c);
    c = v_fma_f64(e, w4, c);
    return v_fma_f64(c, w4, a);
}

#endif
