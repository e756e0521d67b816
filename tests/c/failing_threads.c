/* Makes pthread_create fail while it is asked to, for tests/test_team.py. Loaded before the C library (LD_PRELOAD). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

static atomic_int failing, failed;

/* Whether to fail from now on; how many have failed so far. */
int threads_fail(int wanted)
{
    failing = wanted;
    return failed;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
    static int (*theirs)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (failing) {
        failed++;
        return EAGAIN;
    }
    if (!theirs) *(void **)&theirs = dlsym(RTLD_NEXT, "pthread_create");
    return theirs(thread, attributes, run, argument);
}
