/* Plans of shapes given on the command line: eleven numbers T rows I H P gates parts element weight width block, the
 * threads, the rate of the products, the time of an empty phase, the columns of gradients, and the rounded operands.
 * Prints threads, sharing, the estimates in ns, and whether two stacked calls run side by side, and two directions, in
 * how many phases; compiled and run by test_plan.py. */
#include "layer/plan.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc != 17) return 2;
    long n[13];
    for (int k = 1; k < 13; k++) n[k] = strtol(argv[k], NULL, 10);
    const fastrnn_shape shape = {
        .T = n[1],
        .rows = n[2],
        .I = n[3],
        .H = n[4],
        .P = n[5],
        .sums = strtol(argv[15], NULL, 10),
        .rounded = (int)strtol(argv[16], NULL, 10),
        .gates = (int)n[6],
        .parts = (int)n[7],
        .element = (size_t)n[8],
        .weight = (size_t)n[9],
        .rate = strtod(argv[13], NULL),
        .width = (int)n[10],
        .block = (int)n[11],
    };
    const fastrnn_machine machine = fastrnn_machine_with(strtod(argv[14], NULL));
    const fastrnn_plan plan = fastrnn_plan_call(&shape, &machine, (int)n[12]);
    fastrnn_plan layers[2] = {plan, plan}, directions[2] = {plan, plan};
    const fastrnn_arrangement stacked = fastrnn_arrange(layers, &machine, 2, 1, n[1], (int)n[12]);
    const fastrnn_arrangement apart = fastrnn_arrange(directions, &machine, 2, 0, n[1], (int)n[12]);
    printf("%d %d %.17g %.17g %d %d %d\n", plan.threads, (int)plan.sharing, plan.time, plan.alone, stacked.side_by_side,
           apart.side_by_side, apart.items / apart.together);
    return 0;
}
