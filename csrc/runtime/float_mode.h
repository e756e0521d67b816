/* The floating-point mode of a computing thread: round to nearest, no traps, denormal inputs and results are zero (a
 * state that decays towards zero would make every step twenty times slower). */
#ifndef FASTRNN_FLOAT_MODE_H
#define FASTRNN_FLOAT_MODE_H

#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
typedef unsigned float_mode;
static inline float_mode float_mode_enter(void)
{
    float_mode before = _mm_getcsr();
    _mm_setcsr(0x9fc0); /* flush to zero, denormals are zero, every exception masked */
    return before;
}
static inline void float_mode_leave(float_mode before) { _mm_setcsr(before); }
#elif defined(__aarch64__)
#include <stdint.h>
typedef uint64_t float_mode;
static inline void float_mode_leave(float_mode before) { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }
static inline float_mode float_mode_enter(void)
{
    float_mode before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    float_mode_leave(UINT64_C(1) << 24); /* flush to zero, in and out; all else off */
    return before;
}
#else /* denormals are not flushed, and slow */
#include <fenv.h>
typedef fenv_t float_mode;
static inline float_mode float_mode_enter(void)
{
    float_mode before;
    feholdexcept(&before);
    fesetround(FE_TONEAREST);
    return before;
}
static inline void float_mode_leave(float_mode before) { fesetenv(&before); }
#endif

#endif
