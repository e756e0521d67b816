/* Narrow formats for AVX2. */
#define real float
#define SUFFIX f32

TARGET_BEGIN("avx2,fma,f16c")
INLINE vec_f32 v_load_half_f32(const char *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

#define SET "f16c"
#include "kernels/narrow/halves.inc.h"
TARGET_END

TARGET_BEGIN("avx2,fma")
typedef struct {
    vec_f32 first, second;
} pair_f32;

#define SET "avx2"
#define PAIR_ROWS 5
INLINE pair_f32 load_bf16(const char *p)
{
    const __m256i w = _mm256_loadu_si256((const __m256i *)p);
    return (pair_f32){_mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32(-65536))),
                      _mm256_castsi256_ps(_mm256_slli_epi32(w, 16))};
}
#include "kernels/narrow/every_set.inc.h"

/* x to the nearest, 16 bits each. */
INLINE __m128i rounded_to_int16(vec_f32 x)
{
    const __m256i q = _mm256_cvtps_epi32(x);
    return _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
}

#define NARROW i8avx2
#define INSTRUCTIONS "avx2"
#define RATE 1.5
#define OFFSET 0
#define ARGUMENT_BYTES 8
#define NARROW_ROWS 4
#define NARROW_FEW 1
#define IN_PAIRS 1
#define PAIRS_OF(groups, a) pairs_i8avx2(groups, a)
#define OF_FEW(a) JOIN(a, i8signs)
/* 16 bits each, so that sums of a weight and a number fit: 0 and 2 of a group, and 1 and 3. */
typedef __m256i sum_i8avx2;
typedef struct {
    __m256i even, odd;
} group_i8avx2, argument_i8avx2;
INLINE __m256i no_sums_i8avx2(void) { return _mm256_setzero_si256(); }
INLINE __m256i load_sums_i8avx2(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE __m256i reduced_i8avx2(__m256i sum, int32_t x) { return _mm256_sub_epi32(sum, _mm256_set1_epi32(x)); }
INLINE group_i8avx2 load_i8avx2(const char *p)
{
    const __m256i w = _mm256_loadu_si256((const __m256i *)p);
    return (group_i8avx2){_mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), _mm256_srai_epi16(w, 8)};
}
INLINE argument_i8avx2 broadcast_i8avx2(const char *a)
{
    return (argument_i8avx2){_mm256_set1_epi32(((const int *)a)[0]), _mm256_set1_epi32(((const int *)a)[1])};
}
/* With intrinsics gcc 12 keeps half of the sums in memory. MSVC has no inline assembly. */
INLINE __m256i dot_i8avx2(__m256i sum, group_i8avx2 w, argument_i8avx2 a)
{
#if defined(__GNUC__)
    __m256i even, odd;
    __asm__("vpaddw %3, %6, %1\n\tvpaddw %4, %5, %2\n\tvpmaddwd %1, %2, %1\n\tvpaddd %1, %0, %0"
            : "+&x"(sum), "=&x"(even), "=&x"(odd)
            : "x"(w.odd), "x"(w.even), "x"(a.odd), "x"(a.even));
    return sum;
#else
    const __m256i even = _mm256_add_epi16(a.even, w.odd), odd = _mm256_add_epi16(a.odd, w.even);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(even, odd));
#endif
}
INLINE int32_t pairs_i8avx2(ptrdiff_t groups, const char *a)
{
    const int16_t *four = (const int16_t *)a;
    __m256i sums = _mm256_setzero_si256();
    for (; groups >= 4; groups -= 4, four += 16) {
        const __m256i x = _mm256_loadu_si256((const __m256i *)four);
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(x, _mm256_srli_epi64(x, 32)));
    }
    uint32_t lanes[8], sum = 0; /* NaN became -32768: sums may exceed 32 bits, and count for nothing */
    _mm256_storeu_si256((__m256i *)lanes, sums);
    for (int i = 0; i < 8; i += 2) sum += lanes[i];
    for (; groups > 0; groups--, four += 4) sum += (uint32_t)(four[0] * four[2]) + (uint32_t)(four[1] * four[3]);
    return (int32_t)sum;
}

/* One row: the magnitudes of its numbers, and weights with their signs. Sums of two products fit 16 bits. */
typedef __m256i group_i8signs;
typedef struct {
    __m256i magnitudes, numbers;
} argument_i8signs;
INLINE __m256i load_i8signs(const char *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE argument_i8signs broadcast_i8signs(const char *a)
{
    const argument_i8avx2 pairs = broadcast_i8avx2(a);
    const __m256i even = _mm256_and_si256(pairs.even, _mm256_set1_epi16(0xff)), odd = _mm256_slli_epi16(pairs.odd, 8);
    const __m256i numbers = _mm256_or_si256(even, odd);
    return (argument_i8signs){_mm256_abs_epi8(numbers), numbers};
}
INLINE __m256i dot_i8signs(__m256i sum, __m256i w, argument_i8signs a)
{
    const __m256i pairs = _mm256_maddubs_epi16(a.magnitudes, _mm256_sign_epi8(w, a.numbers));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
INLINE vec_f32 floats_i8avx2(__m256i sum) { return _mm256_cvtepi32_ps(sum); }
INLINE void store_i8avx2(void *row, ptrdiff_t k, vec_f32 x)
{
    const __m128i q = rounded_to_int16(x);
    _mm_storeu_si128((__m128i *)((char *)row + 2 * k), _mm_shufflehi_epi16(_mm_shufflelo_epi16(q, 0xd8), 0xd8));
}
#include "kernels/narrow/int8.inc.h"
TARGET_END

TARGET_BEGIN("avx2,fma,avxvnni")
#define NARROW i8vnni
#define INSTRUCTIONS "avx_vnni"
#define RATE 4
#define OFFSET 128
#define ARGUMENT_BYTES 4
#define NARROW_ROWS 6
#define NARROW_FEW 2
typedef __m256i sum_i8vnni, group_i8vnni, argument_i8vnni;
INLINE __m256i no_sums_i8vnni(void) { return _mm256_setzero_si256(); }
INLINE __m256i load_sums_i8vnni(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE __m256i load_i8vnni(const char *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE __m256i broadcast_i8vnni(const char *a) { return _mm256_set1_epi32(*(const int *)a); }
/* In assembly for the same reason. {vex} selects the encoding of AVX-VNNI, not that of AVX-512. */
INLINE __m256i dot_i8vnni(__m256i sum, __m256i w, __m256i a)
{
#if defined(__GNUC__)
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(w));
    return sum;
#else
    return _mm256_dpbusd_avx_epi32(sum, a, w);
#endif
}
INLINE vec_f32 floats_i8vnni(__m256i sum) { return _mm256_cvtepi32_ps(sum); }
INLINE void store_i8vnni(void *row, ptrdiff_t k, vec_f32 x)
{
    const __m128i q = rounded_to_int16(x);
    _mm_storel_epi64((__m128i *)((char *)row + k), _mm_xor_si128(_mm_packs_epi16(q, q), _mm_set1_epi8(-128)));
}
#include "kernels/narrow/int8.inc.h"
TARGET_END

static const fastrnn_narrow *const narrow_avx2[] = {&narrow_i8vnni, &narrow_i8avx2, FORMATS_OF_HALVES,
                                                    FORMATS_OF_EVERY_SET, NULL};

#undef real
#undef SUFFIX
