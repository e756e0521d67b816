/* Names that exist once for each precision, see both.inc.h. */
#ifndef FASTRNN_NAMES_H
#define FASTRNN_NAMES_H

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(a) JOIN(a, SUFFIX)

#if defined(_MSC_VER)
#define INLINE static __forceinline
#else
#define INLINE static inline __attribute__((always_inline))
#endif

/* Unroll the following loop completely; its bound is a constant after inlining. UNROLL_4: four iterations at
 * a time, of a loop of any length. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_4 _Pragma("clang loop unroll_count(4)")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 16")
#define UNROLL_4 _Pragma("GCC unroll 4")
#else
#define UNROLL
#define UNROLL_4
#endif

#define vec NAME(vec)
#define VL NAME(VL)
#define NR (2 * VL) /* the columns of a panel */
#define v_load NAME(v_load)
#define v_store NAME(v_store)
#define v_load_n NAME(v_load_n)
#define v_store_n NAME(v_store_n)
#define v_set1 NAME(v_set1)
#define v_add NAME(v_add)
#define v_sub NAME(v_sub)
#define v_mul NAME(v_mul)
#define v_div NAME(v_div)
#define v_sqrt NAME(v_sqrt)
#define v_fma NAME(v_fma)
#define v_fnma NAME(v_fnma)
#define v_max NAME(v_max)
#define v_min NAME(v_min)
#define v_abs NAME(v_abs)
#define v_copysign NAME(v_copysign)
#define v_if_negative NAME(v_if_negative)
#define v_exp2_rounded NAME(v_exp2_rounded)
#define v_bfloat16 NAME(v_bfloat16)
#define v_load_half NAME(v_load_half)
#define v_transpose NAME(v_transpose)

#endif
