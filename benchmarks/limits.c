/* The machine's limits: fused multiply-adds on registers, and reads from memory.
 *
 * limits.py compiles this file with the flags of one instruction set and with csrc/ as an include directory. */
#include <stdint.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#include "kernels/names.h"

#if defined(__AVX512F__)
#include "kernels/vec/avx512.h"
#elif defined(__AVX2__) && defined(__FMA__)
#include "kernels/vec/avx2.h"
#else
#include "kernels/vec/generic.h"
#endif

/* Independent accumulators: more than latency times throughput, few enough for 16 registers. */
#define SUMS 12

#define DEFINE_LIMITS(S, real)                                                                                         \
    /* Operations done by one repetition of multiply_add_S. */                                                         \
    int64_t operations_##S(void) { return 2 * SUMS * VL_##S; }                                                         \
    /* s = s*a + b from the numbers at p (a, b, then SUMS different s, or they would be computed as one). */           \
    void multiply_add_##S(const real *p, real *sums, int64_t repetitions)                                              \
    {                                                                                                                  \
        vec_##S s[SUMS], a = v_set1_##S(p[0]), b = v_set1_##S(p[1]);                                                   \
        UNROLL for (int i = 0; i < SUMS; i++) s[i] = v_set1_##S(p[2 + i]);                                             \
        for (int64_t k = 0; k < repetitions; k++) UNROLL for (int i = 0; i < SUMS; i++) s[i] = v_fma_##S(s[i], a, b);  \
        UNROLL for (int i = 1; i < SUMS; i++) s[0] = v_add_##S(s[0], s[i]);                                            \
        v_store_##S(sums, s[0]);                                                                                       \
    }

DEFINE_LIMITS(f32, float)
DEFINE_LIMITS(f64, double)

/* Reads n numbers, a multiple of the loop's unrolled length, `repetitions` times; prefetches them `ahead` numbers
 * before they are read, unless that is 0. */
int64_t read_block(void) { return SUMS * VL_f32; }
void read_all(const float *p, int64_t n, int64_t passes, int64_t ahead, float *sums)
{
    vec_f32 s[SUMS];
    UNROLL for (int i = 0; i < SUMS; i++) s[i] = v_set1_f32(0);
    for (int64_t pass = 0; pass < passes; pass++)
        for (int64_t k = 0; k < n; k += SUMS * VL_f32) {
            if (ahead)
                for (int i = 0; i < SUMS * VL_f32; i += 16) v_prefetch((const void *)(p + k + i + ahead));
            UNROLL for (int i = 0; i < SUMS; i++) s[i] = v_add_f32(s[i], v_load_f32(p + k + i * VL_f32));
        }
    UNROLL for (int i = 1; i < SUMS; i++) s[0] = v_add_f32(s[0], s[i]);
    v_store_f32(sums, s[0]);
}
