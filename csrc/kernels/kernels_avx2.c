/* The kernels for AVX2 with FMA. */
#include "kernels/kernels.h"

#ifdef FASTRNN_X86_64
#include <immintrin.h>

#include "kernels/target.h"
TARGET_BEGIN("avx2,fma")

#include "kernels/vec/avx2.h"
#include "kernels/exponential.h"

#define BOTH "kernels/kernels.inc.h"
#include "kernels/both.inc.h"
TARGET_END

#include "kernels/narrow/avx2.h"

const struct fastrnn_isa fastrnn_isa_avx2 = {"avx2", &table_f32, &table_f64, narrow_avx2};

#endif
