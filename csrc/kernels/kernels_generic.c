/* The kernels in plain C: any processor. */
#include "kernels/kernels.h"

#include "kernels/vec/generic.h"
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

const struct fastrnn_isa fastrnn_isa_generic = {"generic", &table_f32, &table_f64};
