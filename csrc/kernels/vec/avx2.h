/* Vector operations for AVX2 with FMA. The meaning of every operation is written down in kernels/vec/generic.h. */
#ifndef FASTRNN_VEC_AVX2_H
#define FASTRNN_VEC_AVX2_H

/* 16 registers: a tile of 6 rows by 2 vectors keeps 12 sums, 2 panel vectors and 1 broadcast. */
#define TILE_ROWS 6
#define FEW_ROWS 3
#define NARROW_TILES 1
#define WHOLE_LOOPS 1
#define STREAM_VECTORS 12

INLINE void v_prefetch_l2(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T1); }
INLINE void v_prefetch(const void *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }

typedef __m256 vec_f32;
enum { VL_f32 = 8 };
INLINE vec_f32 v_load_f32(const float *p) { return _mm256_loadu_ps(p); }
INLINE void v_store_f32(float *p, vec_f32 a) { _mm256_storeu_ps(p, a); }
INLINE __m256i v_mask_f32(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE vec_f32 v_load_n_f32(const float *p, int n) { return _mm256_maskload_ps(p, v_mask_f32(n)); }
INLINE void v_store_n_f32(float *p, vec_f32 a, int n) { _mm256_maskstore_ps(p, v_mask_f32(n), a); }
INLINE vec_f32 v_set1_f32(float x) { return _mm256_set1_ps(x); }
INLINE vec_f32 v_add_f32(vec_f32 a, vec_f32 b) { return _mm256_add_ps(a, b); }
INLINE vec_f32 v_sub_f32(vec_f32 a, vec_f32 b) { return _mm256_sub_ps(a, b); }
INLINE vec_f32 v_mul_f32(vec_f32 a, vec_f32 b) { return _mm256_mul_ps(a, b); }
INLINE vec_f32 v_div_f32(vec_f32 a, vec_f32 b) { return _mm256_div_ps(a, b); }
INLINE vec_f32 v_sqrt_f32(vec_f32 a) { return _mm256_sqrt_ps(a); }
INLINE vec_f32 v_fma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vec_f32 v_fnma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return _mm256_fnmadd_ps(a, b, c); }
INLINE vec_f32 v_max_f32(vec_f32 a, vec_f32 b) { return _mm256_max_ps(a, b); }
INLINE vec_f32 v_min_f32(vec_f32 a, vec_f32 b) { return _mm256_min_ps(a, b); }
INLINE vec_f32 v_abs_f32(vec_f32 a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
INLINE vec_f32 v_copysign_f32(vec_f32 magnitude, vec_f32 sign)
{
    __m256 bit = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(bit, magnitude), _mm256_and_ps(bit, sign));
}
INLINE vec_f32 v_if_negative_f32(vec_f32 x, vec_f32 yes, vec_f32 no)
{
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ));
}
INLINE vec_f32 v_exp2_rounded_f32(vec_f32 t)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23));
}
/* Bits 0 to 15 rounded into the others, ties to even. */
INLINE vec_f32 v_bfloat16_f32(vec_f32 a)
{
    const __m256i bits = _mm256_castps_si256(a), one = _mm256_set1_epi32(1);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
    const __m256i r = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i nan = _mm256_or_si256(bits, _mm256_set1_epi32(1 << 22));
    const __m256 either =
        _mm256_blendv_ps(_mm256_castsi256_ps(r), _mm256_castsi256_ps(nan), _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_srli_epi32(_mm256_castps_si256(either), 16), 16));
}
INLINE void v_transpose_f32(vec_f32 r[8])
{
    __m256 a[8];
    UNROLL for (int i = 0; i < 8; i += 2) /* pairs of numbers, pairs of pairs, in each 128-bit lane, then lanes */
    {
        a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4) UNROLL for (int h = 0; h < 2; h++)
    {
        __m256d low = _mm256_castps_pd(a[i + h]), high = _mm256_castps_pd(a[i + 2 + h]);
        r[i + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
        r[i + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
    }
    UNROLL for (int h = 0; h < 4; h++)
    {
        a[h] = _mm256_permute2f128_ps(r[h], r[4 + h], 0x20);
        a[4 + h] = _mm256_permute2f128_ps(r[h], r[4 + h], 0x31);
    }
    UNROLL for (int i = 0; i < 8; i++) r[i] = a[i];
}

typedef __m256d vec_f64;
enum { VL_f64 = 4 };
INLINE vec_f64 v_load_f64(const double *p) { return _mm256_loadu_pd(p); }
INLINE void v_store_f64(double *p, vec_f64 a) { _mm256_storeu_pd(p, a); }
INLINE __m256i v_mask_f64(int n) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)); }
INLINE vec_f64 v_load_n_f64(const double *p, int n) { return _mm256_maskload_pd(p, v_mask_f64(n)); }
INLINE void v_store_n_f64(double *p, vec_f64 a, int n) { _mm256_maskstore_pd(p, v_mask_f64(n), a); }
INLINE vec_f64 v_set1_f64(double x) { return _mm256_set1_pd(x); }
INLINE vec_f64 v_add_f64(vec_f64 a, vec_f64 b) { return _mm256_add_pd(a, b); }
INLINE vec_f64 v_sub_f64(vec_f64 a, vec_f64 b) { return _mm256_sub_pd(a, b); }
INLINE vec_f64 v_mul_f64(vec_f64 a, vec_f64 b) { return _mm256_mul_pd(a, b); }
INLINE vec_f64 v_div_f64(vec_f64 a, vec_f64 b) { return _mm256_div_pd(a, b); }
INLINE vec_f64 v_sqrt_f64(vec_f64 a) { return _mm256_sqrt_pd(a); }
INLINE vec_f64 v_fma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return _mm256_fmadd_pd(a, b, c); }
INLINE vec_f64 v_fnma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return _mm256_fnmadd_pd(a, b, c); }
INLINE vec_f64 v_max_f64(vec_f64 a, vec_f64 b) { return _mm256_max_pd(a, b); }
INLINE vec_f64 v_min_f64(vec_f64 a, vec_f64 b) { return _mm256_min_pd(a, b); }
INLINE vec_f64 v_abs_f64(vec_f64 a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a); }
INLINE vec_f64 v_copysign_f64(vec_f64 magnitude, vec_f64 sign)
{
    __m256d bit = _mm256_set1_pd(-0.0);
    return _mm256_or_pd(_mm256_andnot_pd(bit, magnitude), _mm256_and_pd(bit, sign));
}
INLINE vec_f64 v_if_negative_f64(vec_f64 x, vec_f64 yes, vec_f64 no)
{
    return _mm256_blendv_pd(no, yes, _mm256_cmp_pd(x, _mm256_setzero_pd(), _CMP_LT_OQ));
}
INLINE vec_f64 v_exp2_rounded_f64(vec_f64 t)
{
    return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(t), 52));
}
INLINE void v_transpose_f64(vec_f64 r[4])
{
    __m256d a = _mm256_unpacklo_pd(r[0], r[1]), b = _mm256_unpackhi_pd(r[0], r[1]);
    __m256d c = _mm256_unpacklo_pd(r[2], r[3]), d = _mm256_unpackhi_pd(r[2], r[3]);
    r[0] = _mm256_permute2f128_pd(a, c, 0x20);
    r[1] = _mm256_permute2f128_pd(b, d, 0x20);
    r[2] = _mm256_permute2f128_pd(a, c, 0x31);
    r[3] = _mm256_permute2f128_pd(b, d, 0x31);
}

#endif
