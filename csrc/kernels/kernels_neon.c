/* The kernels for NEON of AArch64, which every such processor has. */
#include "kernels/kernels.h"

#ifdef FASTRNN_AARCH64
#include <arm_neon.h>

#include "kernels/vec/neon.h"
#include "kernels/exponential.h"

#define real float
#define SUFFIX f32
#include "kernels/kernels.inc.h"
#undef real
#undef SUFFIX

#define real double
#define SUFFIX f64
#include "kernels/kernels.inc.h"
#undef real
#undef SUFFIX

const struct fastrnn_isa fastrnn_isa_neon = {"neon", &table_f32, &table_f64};
#endif
