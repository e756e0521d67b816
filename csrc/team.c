#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* syscall */
#endif
#include "team.h"

#include <limits.h>

#include "float_mode.h"

#ifdef _OPENMP
#include <omp.h>
#include <stdatomic.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#endif

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

/* Each counter has a cache line of its own: the waiting read one while the arriving write the other. */
struct fastrnn_team {
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_uint round;
    atomic_int sleeping;
};

/* Sleep until `round` is no longer `seen`, or for no reason; and the end of that sleep. */
static void sleep_through(fastrnn_team *team, unsigned seen)
{
#if defined(__linux__)
    atomic_fetch_add(&team->sleeping, 1);
    syscall(SYS_futex, (void *)&team->round, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&team->sleeping, 1);
#elif defined(__unix__) || defined(__APPLE__)
    (void)team, (void)seen;
    sched_yield();
#else
    (void)team, (void)seen;
#endif
}
static void wake_sleepers(fastrnn_team *team)
{
#if defined(__linux__)
    if (atomic_load(&team->sleeping) > 0)
        syscall(SYS_futex, (void *)&team->round, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
#else
    (void)team;
#endif
}

/* OpenMP's own barrier costs microseconds where a step may take less than one. Waiting members spin for some tens of
 * microseconds. Longer than that, a member has probably lost its processor to another program, perhaps to the very
 * spinning of its own team: then they sleep, because on a busy machine a spinning wait costs a time slice a step. */
void fastrnn_team_barrier(const fastrnn_member *me)
{
    enum { SPINS = 2000 };
    if (me->size == 1) return;
    fastrnn_team *team = me->team;
    unsigned round = atomic_load_explicit(&team->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == me->size - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store(&team->round, round + 1);
        wake_sleepers(team);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round;) {
        if (spins++ < SPINS)
            RELAX();
        else
            sleep_through(team, round);
    }
}

void fastrnn_team_run(int threads, void (*job)(void *context, const fastrnn_member *), void *context)
{
    if (threads > 1) {
        fastrnn_team team;
        atomic_init(&team.arrived, 0);
        atomic_init(&team.round, 0);
        atomic_init(&team.sleeping, 0);
#pragma omp parallel num_threads(threads)
        {
            fastrnn_member me = {omp_get_thread_num(), omp_get_num_threads(), &team};
            float_mode before = float_mode_enter();
            job(context, &me);
            float_mode_leave(before);
        }
        return;
    }
#else
void fastrnn_team_barrier(const fastrnn_member *me) { (void)me; }

void fastrnn_team_run(int threads, void (*job)(void *context, const fastrnn_member *), void *context)
{
    (void)threads;
#endif
    fastrnn_member alone = {0, 1, NULL};
    float_mode before = float_mode_enter();
    job(context, &alone);
    float_mode_leave(before);
}
