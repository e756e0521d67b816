/* The formats whose kernels are the same text for every instruction set. Before it a set defines
 *   SET              its name
 *   pair_f32         vectors `first` and `second` of floats
 *   load_bf16(p)     the two weights of each of VL columns as such a pair
 *   PAIR_ROWS        the most rows of a tile of pairs
 * and v_load, v_fma ... as vec/generic.h has them. */
#define NARROW bf16
#define INSTRUCTIONS SET
#define RATE 1
#define ARGUMENT_BYTES 8
#define NARROW_ROWS PAIR_ROWS
#define NARROW_FEW 1
typedef pair_f32 group_bf16, argument_bf16;
INLINE pair_f32 broadcast_bf16(const char *a)
{
    return (pair_f32){v_set1(((const float *)a)[0]), v_set1(((const float *)a)[1])};
}
INLINE vec dot_bf16(vec sum, pair_f32 w, pair_f32 a) { return v_fma(a.second, w.second, v_fma(a.first, w.first, sum)); }
INLINE void store_bf16(void *row, ptrdiff_t k, vec x) { v_store((float *)row + k, x); }
#include "kernels/narrow/bfloat16.inc.h"

#define FORMATS_OF_EVERY_SET &narrow_bf16
#undef SET
#undef PAIR_ROWS
