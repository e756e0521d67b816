/* float16. */
#define N(a) JOIN(a, NARROW)
#define FORMAT FASTRNN_FLOAT16
#define LOAD(p, columns, v) v_load_half(p)
#define GROUP_BYTES 2
#define NARROW_ROWS TILE_ROWS
#define NARROW_FEW FEW_ROWS
#define ROWS_IN_REGISTERS PTRDIFF_MAX
#include "kernels/narrow/widened.inc.h"
