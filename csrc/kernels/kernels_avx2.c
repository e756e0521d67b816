/* The kernels for AVX2 with FMA. */
#include "kernels/kernels.h"

#ifdef FASTRNN_X86_64
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

#include "kernels/vec/avx2.h"
#include "kernels/exponential.h"

#define BOTH "kernels/kernels.inc.h"
#include "kernels/both.inc.h"

const struct fastrnn_isa fastrnn_isa_avx2 = {"avx2", &table_f32, &table_f64};

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif
#endif
