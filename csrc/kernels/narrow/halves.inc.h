/* The formats whose weights v_load_half widens. Before it a set defines
 *   SET              the instructions of v_load_half
 * and v_load, v_fma ... as vec/generic.h has them. */
#define NARROW f16
#define INSTRUCTIONS SET
#include "kernels/narrow/float16.inc.h"

#define NARROW f8
#define INSTRUCTIONS SET
#include "kernels/narrow/float8.inc.h"

#define FORMATS_OF_HALVES &narrow_f16, &narrow_f8
#undef SET
