/* The kernels in plain C: any processor. */
#include "kernels/kernels.h"

#include "kernels/vec/generic.h"
#include "kernels/exponential.h"

#define BOTH "kernels/kernels.inc.h"
#include "kernels/both.inc.h"
#include "kernels/narrow/generic.h"

const struct fastrnn_isa fastrnn_isa_generic = {"generic", &table_f32, &table_f64, narrow_generic};
