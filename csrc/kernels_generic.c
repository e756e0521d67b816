/* The kernels in plain C: any processor. */
#include "kernels.h"

#include "vec_generic.h"
#include "exponential.h"

#define real float
#define SUFFIX f32
#include "kernels.inc.h"
#undef real
#undef SUFFIX

#define real double
#define SUFFIX f64
#include "kernels.inc.h"
#undef real
#undef SUFFIX

const struct fastrnn_isa fastrnn_isa_generic = {"generic", &table_f32, &table_f64};
