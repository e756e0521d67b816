/* For how long no helper is tried, for tests/test_team.py: team.c is compiled in here, where its pauses can be seen. The
 * argument: what a try has cost, in ns. Prints the pause, in ns. */
#define _GNU_SOURCE
#include "runtime/team.c"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    pause_longer(1, strtoll(argv[1], NULL, 10));
    printf("%lld\n", (long long)GET(pause));
    return 0;
}
