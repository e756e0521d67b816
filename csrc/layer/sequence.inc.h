/* Shapes and plans of calls in one precision, and the passes. */
#include "layer/sums.inc.h"

/* The shape of a call. Weights that the product widens to its precision, and multiplies no faster, count as wide ones:
 * every core that shares the batch would read all of them, and two cores together do not read twice as fast. */
static fastrnn_shape NAME(shape_of)(steps s, const fastrnn_packed *packed, fastrnn_pass pass)
{
    const NAME(kernels) *kernel = packed->isa->SUFFIX;
    const NAME(cell) *cell = kernel->cells[packed->cell];
    const fastrnn_narrow *narrow = packed->narrow && packed->narrow->rate > 1 ? packed->narrow : NULL;
    const int rounds = packed->narrow && packed->narrow->bytes;
    return (fastrnn_shape){.T = s.T,
                           .rows = first_row(&s, s.T),
                           .I = packed->I,
                           .H = packed->H,
                           .P = packed->S,
                           .sums = pass == FASTRNN_BACKWARD ? packed->I + packed->S : 0,
                           .rounded = rounds ? 1 + packed->parts + (packed->weight_hr.narrow != NULL) : 0,
                           .gates = cell->gates,
                           .parts = packed->parts,
                           .element = sizeof(real),
                           .weight = narrow ? fastrnn_narrow_layouts[narrow->format].element : sizeof(real),
                           .rate = narrow ? narrow->rate : 1,
                           .width = kernel->width,
                           .block = cell->block};
}

/* The arrangement of the calls. plans (count) written: the plan of each call; operations written: the sum of the
 * operations of their products. */
static fastrnn_arrangement NAME(plan_calls)(steps s, const fastrnn_packed *const *packed, fastrnn_pass pass, int count,
                                            int stacked, int threads, fastrnn_plan *plans, double *operations)
{
    fastrnn_shape shapes[FASTRNN_MOST_CALLS];
    double longest = 0;
    *operations = 0;
    for (int k = 0; k < count; k++) {
        shapes[k] = NAME(shape_of)(s, packed[k], pass);
        plans[k] = fastrnn_plan_call(&shapes[k], &fastrnn_usual_machine, 1);
        *operations += fastrnn_operations(&shapes[k]);
        if (plans[k].alone > longest) longest = plans[k].alone;
    }
    threads = longest < FASTRNN_SHORTEST ? 1 : fastrnn_team_threads(threads);
    if (threads > 1) {
        const fastrnn_machine machine = fastrnn_machine_with(fastrnn_team_empty_phase());
        for (int k = 0; k < count; k++) plans[k] = fastrnn_plan_call(&shapes[k], &machine, threads);
    }
    return fastrnn_arrange(plans, &fastrnn_usual_machine, count, stacked, s.T, threads);
}

#include "layer/forward.inc.h"
#include "layer/backward.inc.h"
