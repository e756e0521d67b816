/* Prints the pause before the next try with a helper, in ns, for tests/test_team.py; the argument is the cost of the
 * last try, in ns. Then the members that a team of two may have: at once; after an eighth and a quarter of the pause;
 * and after it. The file proc/loadavg of the current folder stands for that of the system. Includes team.c to access
 * its pauses. */
#define _GNU_SOURCE
#include "runtime/team.c"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc < 2) return 2;
    const int64_t began = fastrnn_clock();
    const fastrnn_team team = {.size = 1, .limit = 2, .crew = &fastrnn_own, .opened = began + 1000000000000};
    pause_longer(&fastrnn_own, 1, strtoll(argv[1], NULL, 10));
    const int64_t pause = GET_OF(&fastrnn_own, pause);
    printf("%lld", (long long)pause);
    printf(" %d", may_have(&team, 2, began));
    for (int part = 1; part <= 2; part++) printf(" %d", may_have(&team, 2, began + part * pause / 8 + 1000000));
    printf(" %d\n", may_have(&team, 2, fastrnn_clock() + pause));
    return 0;
}
