/* Vector operations for AVX-512 F. The meaning of every operation is written down in kernels/vec/generic.h. */
#ifndef FASTRNN_VEC_AVX512_H
#define FASTRNN_VEC_AVX512_H

/* 32 registers: a tile of 14 rows by 2 vectors keeps 28 sums, 2 panel vectors and 1 broadcast. */
#define TILE_ROWS 14
#define FEW_ROWS 6
#define NARROW_TILES 0
#define WHOLE_LOOPS 1
#define STREAM_VECTORS 16

INLINE void v_prefetch_l2(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }
INLINE void v_prefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }

typedef __m512 vec_f32;
enum { VL_f32 = 16 };
INLINE vec_f32 v_load_f32(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v_store_f32(float *p, vec_f32 a) { _mm512_storeu_ps(p, a); }
INLINE __mmask16 v_mask_f32(int n) { return (__mmask16)((1u << n) - 1u); }
INLINE vec_f32 v_load_n_f32(const float *p, int n) { return _mm512_maskz_loadu_ps(v_mask_f32(n), p); }
INLINE void v_store_n_f32(float *p, vec_f32 a, int n) { _mm512_mask_storeu_ps(p, v_mask_f32(n), a); }
INLINE vec_f32 v_set1_f32(float x) { return _mm512_set1_ps(x); }
INLINE vec_f32 v_add_f32(vec_f32 a, vec_f32 b) { return _mm512_add_ps(a, b); }
INLINE vec_f32 v_sub_f32(vec_f32 a, vec_f32 b) { return _mm512_sub_ps(a, b); }
INLINE vec_f32 v_mul_f32(vec_f32 a, vec_f32 b) { return _mm512_mul_ps(a, b); }
INLINE vec_f32 v_div_f32(vec_f32 a, vec_f32 b) { return _mm512_div_ps(a, b); }
INLINE vec_f32 v_sqrt_f32(vec_f32 a) { return _mm512_sqrt_ps(a); }
INLINE vec_f32 v_fma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec_f32 v_fnma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return _mm512_fnmadd_ps(a, b, c); }
INLINE vec_f32 v_max_f32(vec_f32 a, vec_f32 b) { return _mm512_max_ps(a, b); }
INLINE vec_f32 v_min_f32(vec_f32 a, vec_f32 b) { return _mm512_min_ps(a, b); }
INLINE vec_f32 v_abs_f32(vec_f32 a) { return _mm512_abs_ps(a); }
INLINE vec_f32 v_copysign_f32(vec_f32 magnitude, vec_f32 sign)
{
    /* 0xD8 is the truth table of (sign bit ? sign : magnitude). */
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(magnitude), _mm512_castps_si512(sign),
                                                         _mm512_set1_epi32(INT32_MIN), 0xD8));
}
INLINE vec_f32 v_if_negative_f32(vec_f32 x, vec_f32 yes, vec_f32 no)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), no, yes);
}
INLINE vec_f32 v_exp2_rounded_f32(vec_f32 t)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t), 23));
}
/* Bits 0 to 15 rounded into the others, ties to even. */
INLINE vec_f32 v_bfloat16_f32(vec_f32 a)
{
    const __m512i bits = _mm512_castps_si512(a), one = _mm512_set1_epi32(1);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    __m512i r = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), bits, _mm512_set1_epi32(1 << 22));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_srli_epi32(r, 16), 16));
}
INLINE void v_transpose_f32(vec_f32 r[16])
{
    __m512 a[16];
    UNROLL for (int i = 0; i < 16; i += 2) /* pairs of numbers, then pairs of pairs, in each 128-bit lane */
    {
        a[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) UNROLL for (int h = 0; h < 2; h++)
    {
        __m512d low = _mm512_castps_pd(a[i + h]), high = _mm512_castps_pd(a[i + 2 + h]);
        r[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
        r[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
    UNROLL for (int h = 0; h < 4; h++) /* then the lanes: 0x88 takes the even ones of both, 0xdd the odd ones */
    {
        a[h] = _mm512_shuffle_f32x4(r[h], r[4 + h], 0x88);
        a[4 + h] = _mm512_shuffle_f32x4(r[h], r[4 + h], 0xdd);
        a[8 + h] = _mm512_shuffle_f32x4(r[8 + h], r[12 + h], 0x88);
        a[12 + h] = _mm512_shuffle_f32x4(r[8 + h], r[12 + h], 0xdd);
    }
    UNROLL for (int h = 0; h < 8; h++)
    {
        r[h] = _mm512_shuffle_f32x4(a[h], a[8 + h], 0x88);
        r[8 + h] = _mm512_shuffle_f32x4(a[h], a[8 + h], 0xdd);
    }
}

typedef __m512d vec_f64;
enum { VL_f64 = 8 };
INLINE vec_f64 v_load_f64(const double *p) { return _mm512_loadu_pd(p); }
INLINE void v_store_f64(double *p, vec_f64 a) { _mm512_storeu_pd(p, a); }
INLINE __mmask8 v_mask_f64(int n) { return (__mmask8)((1u << n) - 1u); }
INLINE vec_f64 v_load_n_f64(const double *p, int n) { return _mm512_maskz_loadu_pd(v_mask_f64(n), p); }
INLINE void v_store_n_f64(double *p, vec_f64 a, int n) { _mm512_mask_storeu_pd(p, v_mask_f64(n), a); }
INLINE vec_f64 v_set1_f64(double x) { return _mm512_set1_pd(x); }
INLINE vec_f64 v_add_f64(vec_f64 a, vec_f64 b) { return _mm512_add_pd(a, b); }
INLINE vec_f64 v_sub_f64(vec_f64 a, vec_f64 b) { return _mm512_sub_pd(a, b); }
INLINE vec_f64 v_mul_f64(vec_f64 a, vec_f64 b) { return _mm512_mul_pd(a, b); }
INLINE vec_f64 v_div_f64(vec_f64 a, vec_f64 b) { return _mm512_div_pd(a, b); }
INLINE vec_f64 v_sqrt_f64(vec_f64 a) { return _mm512_sqrt_pd(a); }
INLINE vec_f64 v_fma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return _mm512_fmadd_pd(a, b, c); }
INLINE vec_f64 v_fnma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return _mm512_fnmadd_pd(a, b, c); }
INLINE vec_f64 v_max_f64(vec_f64 a, vec_f64 b) { return _mm512_max_pd(a, b); }
INLINE vec_f64 v_min_f64(vec_f64 a, vec_f64 b) { return _mm512_min_pd(a, b); }
INLINE vec_f64 v_abs_f64(vec_f64 a) { return _mm512_abs_pd(a); }
INLINE vec_f64 v_copysign_f64(vec_f64 magnitude, vec_f64 sign)
{
    return _mm512_castsi512_pd(_mm512_ternarylogic_epi64(_mm512_castpd_si512(magnitude), _mm512_castpd_si512(sign),
                                                         _mm512_set1_epi64(INT64_MIN), 0xD8));
}
INLINE vec_f64 v_if_negative_f64(vec_f64 x, vec_f64 yes, vec_f64 no)
{
    return _mm512_mask_blend_pd(_mm512_cmp_pd_mask(x, _mm512_setzero_pd(), _CMP_LT_OQ), no, yes);
}
INLINE vec_f64 v_exp2_rounded_f64(vec_f64 t)
{
    return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(t), 52));
}
INLINE void v_transpose_f64(vec_f64 r[8])
{
    __m512d a[8];
    UNROLL for (int i = 0; i < 8; i += 2)
    {
        a[i] = _mm512_unpacklo_pd(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_pd(r[i], r[i + 1]);
    }
    UNROLL for (int h = 0; h < 2; h++)
    {
        r[h] = _mm512_shuffle_f64x2(a[h], a[2 + h], 0x88);
        r[2 + h] = _mm512_shuffle_f64x2(a[h], a[2 + h], 0xdd);
        r[4 + h] = _mm512_shuffle_f64x2(a[4 + h], a[6 + h], 0x88);
        r[6 + h] = _mm512_shuffle_f64x2(a[4 + h], a[6 + h], 0xdd);
    }
    UNROLL for (int h = 0; h < 4; h++)
    {
        a[h] = _mm512_shuffle_f64x2(r[h], r[4 + h], 0x88);
        a[4 + h] = _mm512_shuffle_f64x2(r[h], r[4 + h], 0xdd);
    }
    UNROLL for (int i = 0; i < 8; i++) r[i] = a[i];
}

#endif
