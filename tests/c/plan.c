/* Plans of shapes given on the command line: nine numbers T rows I H P gates parts element width, and the block and the
 * threads. Prints threads, split_rows, and the estimates in ns; compiled and run by test_plan.py. */
#include "layer/plan.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc != 12) return 2;
    long n[12];
    for (int k = 1; k < argc; k++) n[k] = strtol(argv[k], NULL, 10);
    const fastrnn_shape shape = {n[1], n[2], n[3], n[4], n[5], (int)n[6], (int)n[7], (size_t)n[8], (int)n[9], (int)n[10]};
    const fastrnn_plan plan = fastrnn_plan_call(&shape, &fastrnn_usual_machine, (int)n[11]);
    printf("%d %d %.17g %.17g\n", plan.threads, plan.split_rows, plan.time, plan.alone);
    return 0;
}
