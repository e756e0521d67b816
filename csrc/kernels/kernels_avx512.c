/* The kernels for AVX-512 F. */
#include "kernels/kernels.h"

#ifdef FASTRNN_X86_64
#include <immintrin.h>

#include "kernels/target.h"
#include "runtime/float_mode.h"
TARGET_BEGIN("avx512f")

#include "kernels/vec/avx512.h"
#include "kernels/exponential.h"

#define BOTH "kernels/kernels.inc.h"
#include "kernels/both.inc.h"
TARGET_END

#include "kernels/narrow/avx512.h"

const struct fastrnn_isa fastrnn_isa_avx512 = {"avx512", &table_f32, &table_f64, narrow_avx512};

#endif
