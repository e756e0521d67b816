/* Prints the pause before the next try with a helper, in ns, for tests/test_team.py; the argument is the cost of the
 * last try, in ns. It includes team.c to access its pauses. */
#define _GNU_SOURCE
#include "runtime/team.c"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    pause_longer(&fastrnn_own, 1, strtoll(argv[1], NULL, 10));
    printf("%lld\n", (long long)GET_OF(&fastrnn_own, pause));
    return 0;
}
