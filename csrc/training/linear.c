/* A fully connected layer: two products forward and backward, and sums over rows. */
#include "fastrnn.h"

#include <string.h>

#include "kernels/kernels.h"
#include "layer/packed.h"
#include "layer/steps.h"
#include "layer/sums.h"
#include "runtime/memory.h"
#include "runtime/team.h"

/* The threads of a product of so many operations. */
static int threads_for(double operations, int threads)
{
    const double fewest = 400e3;
    return operations < fewest ? 1 : fastrnn_team_threads(threads);
}

static const double NS_OF_AN_OPERATION = 0.02;

#define BOTH "training/linear.inc.h"
#include "kernels/both.inc.h"

fastrnn_status fastrnn_linear(const fastrnn_isa *isa, fastrnn_dtype dtype, const fastrnn_linear_args *args,
                              fastrnn_workspace *workspace, const fastrnn_interruption *interruption, int threads)
{
    return dtype == FASTRNN_F32 ? run_linear_f32(isa->f32, args, workspace, interruption, threads)
                                : run_linear_f64(isa->f64, args, workspace, interruption, threads);
}

fastrnn_status fastrnn_linear_backward(const fastrnn_isa *isa, fastrnn_dtype dtype,
                                       const fastrnn_linear_back_args *args, fastrnn_workspace *workspace,
                                       const fastrnn_interruption *interruption, int threads)
{
    return dtype == FASTRNN_F32 ? run_linear_back_f32(isa->f32, args, workspace, interruption, threads)
                                : run_linear_back_f64(isa->f64, args, workspace, interruption, threads);
}
