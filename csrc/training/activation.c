/* The functions of the cells by themselves. */
#include "fastrnn.h"

#include "kernels/kernels.h"
#include "runtime/float_mode.h"

void fastrnn_activate(const fastrnn_isa *isa, fastrnn_dtype dtype, fastrnn_function function, ptrdiff_t n,
                      const void *x, void *y)
{
    const float_mode before = float_mode_enter();
    if (dtype == FASTRNN_F32)
        isa->f32->activate(function, n, x, y);
    else
        isa->f64->activate(function, n, x, y);
    float_mode_leave(before);
}
