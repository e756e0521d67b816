/* The kernels for NEON of AArch64, which every such processor has. */
#include "kernels/kernels.h"

#ifdef FASTRNN_AARCH64
#include <arm_neon.h>
#include <string.h>

#include "kernels/target.h"

#include "kernels/vec/neon.h"
#include "kernels/exponential.h"

#define BOTH "kernels/kernels.inc.h"
#include "kernels/both.inc.h"
#include "kernels/narrow/neon.h"

const struct fastrnn_isa fastrnn_isa_neon = {"neon", &table_f32, &table_f64, narrow_neon};
#endif
