/* The kernels for AVX-512 F. */
#include "kernels/kernels.h"

#ifdef FASTRNN_X86_64
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC target("avx512f")
#endif

#include "kernels/vec/avx512.h"
#include "kernels/exponential.h"

#define BOTH "kernels/kernels.inc.h"
#include "kernels/both.inc.h"

const struct fastrnn_isa fastrnn_isa_avx512 = {"avx512", &table_f32, &table_f64};

#if defined(__clang__)
#pragma clang attribute pop
#elif defined(__GNUC__)
#pragma GCC pop_options
#endif
#endif
