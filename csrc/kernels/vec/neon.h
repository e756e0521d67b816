/* Vector operations for NEON of AArch64 with FMA. The meaning of every operation is written down in
 * kernels/vec/generic.h. */
#ifndef FASTRNN_VEC_NEON_H
#define FASTRNN_VEC_NEON_H

/* 32 registers: a tile of 10 rows by 2 vectors keeps 20 sums, enough for four units that take four cycles each, 2 panel
 * vectors and the numbers of A, which are loaded ahead: with more rows gcc 12 keeps some of the sums in memory. */
#define TILE_ROWS 10
#define FEW_ROWS 6
#define NARROW_TILES 0
#define WHOLE_LOOPS 1
#define STREAM_VECTORS 16

INLINE void v_prefetch_l2(const void *p) { __builtin_prefetch(p, 0, 2); }
INLINE void v_prefetch(const void *p) { __builtin_prefetch(p); }

typedef float32x4_t vec_f32;
enum { VL_f32 = 4 };
INLINE vec_f32 v_load_f32(const float *p) { return vld1q_f32(p); }
INLINE void v_store_f32(float *p, vec_f32 a) { vst1q_f32(p, a); }
INLINE vec_f32 v_load_n_f32(const float *p, int n)
{
    vec_f32 r = vsetq_lane_f32(p[0], vdupq_n_f32(0), 0);
    if (n > 1) r = vld1q_lane_f32(p + 1, r, 1);
    if (n > 2) r = vld1q_lane_f32(p + 2, r, 2);
    if (n > 3) r = vld1q_lane_f32(p + 3, r, 3);
    return r;
}
INLINE void v_store_n_f32(float *p, vec_f32 a, int n)
{
    vst1q_lane_f32(p, a, 0);
    if (n > 1) vst1q_lane_f32(p + 1, a, 1);
    if (n > 2) vst1q_lane_f32(p + 2, a, 2);
    if (n > 3) vst1q_lane_f32(p + 3, a, 3);
}
INLINE vec_f32 v_set1_f32(float x) { return vdupq_n_f32(x); }
INLINE vec_f32 v_add_f32(vec_f32 a, vec_f32 b) { return vaddq_f32(a, b); }
INLINE vec_f32 v_sub_f32(vec_f32 a, vec_f32 b) { return vsubq_f32(a, b); }
INLINE vec_f32 v_mul_f32(vec_f32 a, vec_f32 b) { return vmulq_f32(a, b); }
INLINE vec_f32 v_div_f32(vec_f32 a, vec_f32 b) { return vdivq_f32(a, b); }
INLINE vec_f32 v_sqrt_f32(vec_f32 a) { return vsqrtq_f32(a); }
INLINE vec_f32 v_fma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return vfmaq_f32(c, a, b); }
INLINE vec_f32 v_fnma_f32(vec_f32 a, vec_f32 b, vec_f32 c) { return vfmsq_f32(c, a, b); }
INLINE vec_f32 v_max_f32(vec_f32 a, vec_f32 b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
INLINE vec_f32 v_min_f32(vec_f32 a, vec_f32 b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
INLINE vec_f32 v_abs_f32(vec_f32 a) { return vabsq_f32(a); }
INLINE vec_f32 v_copysign_f32(vec_f32 magnitude, vec_f32 sign)
{
    return vbslq_f32(vdupq_n_u32(UINT32_C(1) << 31), sign, magnitude);
}
INLINE vec_f32 v_if_negative_f32(vec_f32 x, vec_f32 yes, vec_f32 no) { return vbslq_f32(vcltzq_f32(x), yes, no); }
INLINE vec_f32 v_exp2_rounded_f32(vec_f32 t)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(t), 23));
}
/* Bits 0 to 15 rounded into the others, ties to even. */
INLINE vec_f32 v_bfloat16_f32(vec_f32 a)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(a), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t r = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    const uint32x4_t nan = vorrq_u32(bits, vdupq_n_u32(1 << 22));
    const uint32x4_t either = vbslq_u32(vceqq_f32(a, a), r, nan);
    return vreinterpretq_f32_u32(vshlq_n_u32(vshrq_n_u32(either, 16), 16));
}
INLINE void v_transpose_f32(vec_f32 r[4])
{
    /* Each pair of rows one number after the other; then pairs of pairs, two numbers at a time. */
    float64x2_t a = vreinterpretq_f64_f32(vzip1q_f32(r[0], r[1])), b = vreinterpretq_f64_f32(vzip2q_f32(r[0], r[1]));
    float64x2_t c = vreinterpretq_f64_f32(vzip1q_f32(r[2], r[3])), d = vreinterpretq_f64_f32(vzip2q_f32(r[2], r[3]));
    r[0] = vreinterpretq_f32_f64(vzip1q_f64(a, c));
    r[1] = vreinterpretq_f32_f64(vzip2q_f64(a, c));
    r[2] = vreinterpretq_f32_f64(vzip1q_f64(b, d));
    r[3] = vreinterpretq_f32_f64(vzip2q_f64(b, d));
}

typedef float64x2_t vec_f64;
enum { VL_f64 = 2 };
INLINE vec_f64 v_load_f64(const double *p) { return vld1q_f64(p); }
INLINE void v_store_f64(double *p, vec_f64 a) { vst1q_f64(p, a); }
INLINE vec_f64 v_load_n_f64(const double *p, int n)
{
    return n > 1 ? vld1q_f64(p) : vsetq_lane_f64(p[0], vdupq_n_f64(0), 0);
}
INLINE void v_store_n_f64(double *p, vec_f64 a, int n)
{
    vst1q_lane_f64(p, a, 0);
    if (n > 1) vst1q_lane_f64(p + 1, a, 1);
}
INLINE vec_f64 v_set1_f64(double x) { return vdupq_n_f64(x); }
INLINE vec_f64 v_add_f64(vec_f64 a, vec_f64 b) { return vaddq_f64(a, b); }
INLINE vec_f64 v_sub_f64(vec_f64 a, vec_f64 b) { return vsubq_f64(a, b); }
INLINE vec_f64 v_mul_f64(vec_f64 a, vec_f64 b) { return vmulq_f64(a, b); }
INLINE vec_f64 v_div_f64(vec_f64 a, vec_f64 b) { return vdivq_f64(a, b); }
INLINE vec_f64 v_sqrt_f64(vec_f64 a) { return vsqrtq_f64(a); }
INLINE vec_f64 v_fma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return vfmaq_f64(c, a, b); }
INLINE vec_f64 v_fnma_f64(vec_f64 a, vec_f64 b, vec_f64 c) { return vfmsq_f64(c, a, b); }
INLINE vec_f64 v_max_f64(vec_f64 a, vec_f64 b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }
INLINE vec_f64 v_min_f64(vec_f64 a, vec_f64 b) { return vbslq_f64(vcltq_f64(a, b), a, b); }
INLINE vec_f64 v_abs_f64(vec_f64 a) { return vabsq_f64(a); }
INLINE vec_f64 v_copysign_f64(vec_f64 magnitude, vec_f64 sign)
{
    return vbslq_f64(vdupq_n_u64(UINT64_C(1) << 63), sign, magnitude);
}
INLINE vec_f64 v_if_negative_f64(vec_f64 x, vec_f64 yes, vec_f64 no) { return vbslq_f64(vcltzq_f64(x), yes, no); }
INLINE vec_f64 v_exp2_rounded_f64(vec_f64 t)
{
    return vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(t), 52));
}
INLINE void v_transpose_f64(vec_f64 r[2])
{
    vec_f64 first = vzip1q_f64(r[0], r[1]);
    r[1] = vzip2q_f64(r[0], r[1]);
    r[0] = first;
}

#endif
