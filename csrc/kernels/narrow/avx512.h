/* Narrow formats for AVX-512. */
#define real float
#define SUFFIX f32

TARGET_BEGIN("avx512f")
/* float16 and bfloat16 with AVX-512 F alone. */
INLINE vec_f32 v_load_half_f32(const char *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

#define SET "avx512"
#include "kernels/narrow/halves.inc.h"

typedef struct {
    vec_f32 first, second;
} pair_f32;

#define SET "avx512"
#define PAIR_ROWS 10
INLINE pair_f32 load_bf16(const char *p)
{
    const __m512i w = _mm512_loadu_si512(p);
    return (pair_f32){_mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32(-65536))),
                      _mm512_castsi512_ps(_mm512_slli_epi32(w, 16))};
}
#include "kernels/narrow/every_set.inc.h"
TARGET_END

TARGET_BEGIN("avx512f,avx512bw,avx512bf16")
#if defined(__GNUC__)
INLINE __m512bh bf16_of(__m512i bits) { return (__m512bh)bits; }
#else /* MSVC: one type under two names, and no casts between vectors */
INLINE __m512bh bf16_of(__m512i bits) { return bits; }
#endif

int fastrnn_bfloat16_is_fused(void)
{
    enum { CASES = 4096, MASK = -65536 };
    uint64_t random = UINT64_C(88172645463325252);
    const float_mode before = float_mode_enter();
    int same = 1;
    for (int k = 0; k < CASES && same; k++) {
        uint32_t bits[3][VL_f32]; /* sums, and pairs of numbers: exponents near each other, or any */
        for (int i = 0; i < 3 * VL_f32; i++) {
            random ^= random << 13, random ^= random >> 7, random ^= random << 17;
            const uint32_t near =
                (uint32_t)(random >> 16 & 0x807f807f) | (120 + (random & 15)) << 23 | (120 + (random >> 4 & 15)) << 7;
            bits[i / VL_f32][i % VL_f32] = k % 4 ? near : (uint32_t)(random >> 16);
        }
        const __m512i w = _mm512_loadu_si512(bits[1]), a = _mm512_loadu_si512(bits[2]);
        const __m512i upper = _mm512_set1_epi32(MASK);
        const vec_f32 sum = _mm512_castsi512_ps(_mm512_loadu_si512(bits[0]));
        const vec_f32 got = _mm512_dpbf16_ps(sum, bf16_of(w), bf16_of(a));
        vec_f32 want = v_fma_f32(_mm512_castsi512_ps(_mm512_and_si512(w, upper)),
                                 _mm512_castsi512_ps(_mm512_and_si512(a, upper)), sum);
        want = v_fma_f32(_mm512_castsi512_ps(_mm512_slli_epi32(w, 16)), _mm512_castsi512_ps(_mm512_slli_epi32(a, 16)),
                         want);
        const __mmask16 numbers = _mm512_cmp_ps_mask(want, want, _CMP_ORD_Q),
                        nan = _mm512_cmp_ps_mask(got, got, _CMP_UNORD_Q);
        same = !(nan & numbers) && !((__mmask16)~nan & (__mmask16)~numbers) &&
               _mm512_mask_cmpneq_epi32_mask(numbers, _mm512_castps_si512(got), _mm512_castps_si512(want)) == 0;
    }
    float_mode_leave(before);
    return same;
}

#define NARROW vdpbf16
#define INSTRUCTIONS "avx512_bf16"
#define RATE 1.8
#define ARGUMENT_BYTES 4
#define NARROW_ROWS 14
#define NARROW_FEW 6
typedef __m512i group_vdpbf16, argument_vdpbf16;
INLINE __m512i load_vdpbf16(const char *p) { return _mm512_loadu_si512(p); }
INLINE __m512i broadcast_vdpbf16(const char *a) { return _mm512_set1_epi32(*(const int *)a); }
INLINE vec_f32 dot_vdpbf16(vec_f32 sum, __m512i w, __m512i a) { return _mm512_dpbf16_ps(sum, bf16_of(w), bf16_of(a)); }
/* The upper halves of pairs of lanes, the first one above: even lanes are in the lower half of 64 bits. */
INLINE void store_vdpbf16(void *row, ptrdiff_t k, vec_f32 x)
{
    const __m512i bits = _mm512_castps_si512(x);
    const __m256i pairs = _mm512_cvtepi64_epi32(_mm512_or_si512(bits, _mm512_srli_epi64(bits, 48)));
    _mm256_storeu_si256((__m256i *)((char *)row + 2 * k), pairs);
}
#include "kernels/narrow/bfloat16.inc.h"
TARGET_END

TARGET_BEGIN("avx512f,avx512bw")
#define NARROW i8bw
#define INSTRUCTIONS "avx512bw"
#define RATE 1.5
#define OFFSET 0
#define ARGUMENT_BYTES 8
#define NARROW_ROWS 8
#define NARROW_FEW 1
/* Pairs of 16 bits, which vpmaddwd multiplies and adds: weights 0 and 2 of a group, and 1 and 3. */
typedef __m512i sum_i8bw;
typedef struct {
    __m512i even, odd;
} group_i8bw, argument_i8bw;
INLINE __m512i no_sums_i8bw(void) { return _mm512_setzero_si512(); }
INLINE __m512i load_sums_i8bw(const int32_t *p) { return _mm512_loadu_si512(p); }
INLINE group_i8bw load_i8bw(const char *p)
{
    const __m512i w = _mm512_loadu_si512(p);
    return (group_i8bw){_mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8), _mm512_srai_epi16(w, 8)};
}
INLINE argument_i8bw broadcast_i8bw(const char *a)
{
    return (argument_i8bw){_mm512_set1_epi32(((const int *)a)[0]), _mm512_set1_epi32(((const int *)a)[1])};
}
INLINE __m512i dot_i8bw(__m512i sum, group_i8bw w, argument_i8bw a)
{
    sum = _mm512_add_epi32(sum, _mm512_madd_epi16(w.even, a.even));
    return _mm512_add_epi32(sum, _mm512_madd_epi16(w.odd, a.odd));
}
INLINE vec_f32 floats_i8bw(__m512i sum) { return _mm512_cvtepi32_ps(sum); }
INLINE void store_i8bw(void *row, ptrdiff_t k, vec_f32 x)
{
    const __m256i q = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x));
    const __m256i pairs = _mm256_shufflehi_epi16(_mm256_shufflelo_epi16(q, 0xd8), 0xd8);
    _mm256_storeu_si256((__m256i *)((char *)row + 2 * k), pairs);
}
#include "kernels/narrow/int8.inc.h"
TARGET_END

TARGET_BEGIN("avx512f,avx512bw,avx512vnni")
#define NARROW i8vnni
#define INSTRUCTIONS "avx512_vnni"
#define RATE 4
#define OFFSET 128
#define ARGUMENT_BYTES 4
#define NARROW_ROWS 14
#define NARROW_FEW 6
typedef __m512i sum_i8vnni, group_i8vnni, argument_i8vnni;
INLINE __m512i no_sums_i8vnni(void) { return _mm512_setzero_si512(); }
INLINE __m512i load_sums_i8vnni(const int32_t *p) { return _mm512_loadu_si512(p); }
INLINE __m512i load_i8vnni(const char *p) { return _mm512_loadu_si512(p); }
INLINE __m512i broadcast_i8vnni(const char *a) { return _mm512_set1_epi32(*(const int *)a); }
/* With the intrinsic gcc 12 keeps half of the sums in memory. MSVC has no inline assembly. */
INLINE __m512i dot_i8vnni(__m512i sum, __m512i w, __m512i a)
{
#if defined(__GNUC__)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w));
    return sum;
#else
    return _mm512_dpbusd_epi32(sum, a, w);
#endif
}
INLINE vec_f32 floats_i8vnni(__m512i sum) { return _mm512_cvtepi32_ps(sum); }
INLINE void store_i8vnni(void *row, ptrdiff_t k, vec_f32 x)
{
    const __m128i q = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x));
    _mm_storeu_si128((__m128i *)((char *)row + k), _mm_xor_si128(q, _mm_set1_epi8(-128)));
}
#include "kernels/narrow/int8.inc.h"
TARGET_END

#include "kernels/narrow/amx.h"

static const fastrnn_narrow *const narrow_avx512[] = {
    NARROW_AMX & narrow_i8vnni, &narrow_i8bw, FORMATS_OF_HALVES, &narrow_vdpbf16, FORMATS_OF_EVERY_SET, NULL,
};

#undef real
#undef SUFFIX
