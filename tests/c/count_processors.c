/* fastrnn_count_processors, for tests/test_quotas.py, where the files in the current folder stand for those of the
 * system (FASTRNN_ROOT). Its arguments are done in turn:
 *
 *     use=0,1,2         these are the processors that the thread may use, use= none that it can be told
 *     FILE=TEXT         the file has this text from now on
 *     1500              this is the time in ms: prints how many processors there are, and how many cores
 *     idle              prints how many processors are idle, of those that the system has */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/processors.h"

static cpu_set_t used;

/* In place of the C library's. */
int sched_getaffinity(pid_t thread, size_t bytes, cpu_set_t *processors)
{
    (void)thread;
    if (CPU_COUNT(&used) == 0 || bytes < sizeof used) {
        errno = EINVAL;
        return -1;
    }
    memcpy(processors, &used, sizeof used);
    return 0;
}

static int use(char *numbers)
{
    CPU_ZERO(&used);
    for (char *number = strtok(numbers, ","); number; number = strtok(NULL, ",")) CPU_SET(atoi(number), &used);
    return 1;
}

static int write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    return file && fputs(text, file) >= 0 && fclose(file) == 0;
}

int main(int argc, char **argv)
{
    for (int k = 1; k < argc; k++) {
        char *text = strchr(argv[k], '=');
        if (text) {
            *text++ = 0;
            if (!(strcmp(argv[k], "use") == 0 ? use(text) : write_text(argv[k], text))) return 1;
            continue;
        }
        if (strcmp(argv[k], "idle") == 0) {
            printf("%d %ld\n", fastrnn_idle_processors(), sysconf(_SC_NPROCESSORS_ONLN));
            continue;
        }
        const fastrnn_processors_count count = fastrnn_count_processors(strtoll(argv[k], NULL, 10) * 1000000);
        printf("%d %d\n", count.logical, count.cores);
    }
    return 0;
}
