/* Narrow formats for NEON. */
#define real float
#define SUFFIX f32

INLINE vec_f32 v_load_half_f32(const char *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)p))); }

#define SET "neon"
#include "kernels/narrow/halves.inc.h"

typedef struct {
    vec_f32 first, second;
} pair_f32;

#define SET "neon"
#define PAIR_ROWS 8
INLINE pair_f32 load_bf16(const char *p)
{
    const uint32x4_t w = vreinterpretq_u32_u8(vld1q_u8((const uint8_t *)p));
    return (pair_f32){vreinterpretq_f32_u32(vandq_u32(w, vdupq_n_u32(0xffff0000))),
                      vreinterpretq_f32_u32(vshlq_n_u32(w, 16))};
}
#include "kernels/narrow/every_set.inc.h"

/* x to the nearest, 8 bits each, in both halves. */
INLINE int8x8_t rounded_to_int8(vec_f32 x)
{
    const int16x4_t q = vqmovn_s32(vcvtnq_s32_f32(x));
    return vqmovn_s16(vcombine_s16(q, q));
}

#define NARROW i8neon
#define INSTRUCTIONS "neon"
#define RATE 1.5
#define OFFSET 0
#define ARGUMENT_BYTES 4
#define NARROW_ROWS 6
#define NARROW_FEW 1
/* The products of each half of a vector, 16 bits each, are added in pairs to 4 sums of 32 bits: two for each column. */
typedef struct {
    int32x4_t low, high;
} sum_i8neon;
typedef int8x16_t group_i8neon;
typedef int8x8_t argument_i8neon;
INLINE sum_i8neon no_sums_i8neon(void) { return (sum_i8neon){vdupq_n_s32(0), vdupq_n_s32(0)}; }
INLINE sum_i8neon load_sums_i8neon(const int32_t *p)
{
    (void)p;
    return no_sums_i8neon();
}
INLINE int8x16_t load_i8neon(const char *p) { return vld1q_s8((const int8_t *)p); }
INLINE int8x8_t broadcast_i8neon(const char *a)
{
    int32_t group;
    memcpy(&group, a, sizeof group);
    return vreinterpret_s8_s32(vdup_n_s32(group));
}
INLINE sum_i8neon dot_i8neon(sum_i8neon sum, int8x16_t w, int8x8_t a)
{
    sum.low = vpadalq_s16(sum.low, vmull_s8(vget_low_s8(w), a));
    sum.high = vpadalq_s16(sum.high, vmull_s8(vget_high_s8(w), a));
    return sum;
}
INLINE vec_f32 floats_i8neon(sum_i8neon sum) { return vcvtq_f32_s32(vpaddq_s32(sum.low, sum.high)); }
INLINE void store_i8neon(void *row, ptrdiff_t k, vec_f32 x)
{
    const int32_t four = vget_lane_s32(vreinterpret_s32_s8(rounded_to_int8(x)), 0);
    memcpy((char *)row + k, &four, sizeof four);
}
#include "kernels/narrow/int8.inc.h"

#if defined(__ARM_FEATURE_DOTPROD) || !defined(__clang__) || __clang_major__ >= 16
#if defined(__clang__)
TARGET_BEGIN("dotprod")
#else
TARGET_BEGIN("arch=armv8.2-a+dotprod")
#endif
#define NARROW i8dot
#define INSTRUCTIONS "dotprod"
#define RATE 4
#define OFFSET 0
#define ARGUMENT_BYTES 4
#define NARROW_ROWS 10
#define NARROW_FEW 6
typedef int32x4_t sum_i8dot;
typedef int8x16_t group_i8dot, argument_i8dot;
INLINE int32x4_t no_sums_i8dot(void) { return vdupq_n_s32(0); }
INLINE int32x4_t load_sums_i8dot(const int32_t *p) { return vld1q_s32(p); }
INLINE int8x16_t load_i8dot(const char *p) { return vld1q_s8((const int8_t *)p); }
INLINE int8x16_t broadcast_i8dot(const char *a)
{
    int32_t group;
    memcpy(&group, a, sizeof group);
    return vreinterpretq_s8_s32(vdupq_n_s32(group));
}
INLINE int32x4_t dot_i8dot(int32x4_t sum, int8x16_t w, int8x16_t a) { return vdotq_s32(sum, w, a); }
INLINE vec_f32 floats_i8dot(int32x4_t sum) { return vcvtq_f32_s32(sum); }
INLINE void store_i8dot(void *row, ptrdiff_t k, vec_f32 x) { store_i8neon(row, k, x); }
#include "kernels/narrow/int8.inc.h"
TARGET_END
#define NARROW_DOTPROD &narrow_i8dot,
#else
#define NARROW_DOTPROD
#endif

static const fastrnn_narrow *const narrow_neon[] = {NARROW_DOTPROD & narrow_i8neon, FORMATS_OF_HALVES,
                                                    FORMATS_OF_EVERY_SET, NULL};

#undef real
#undef SUFFIX
