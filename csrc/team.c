#if !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L /* sched_yield */
#endif
#include "team.h"

#include "float_mode.h"

#ifdef _OPENMP
#include <omp.h>
#include <stdatomic.h>
#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#else
static void sched_yield(void) {}
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
};

/* OpenMP's own barrier costs microseconds where a step may take less than one. Waiting members spin for some tens of
 * microseconds, then let others run: there may be more threads than processors. */
void fastrnn_team_barrier(const fastrnn_member *me)
{
    if (me->size == 1) return;
    fastrnn_team *team = me->team;
    unsigned round = atomic_load_explicit(&team->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == me->size - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->round, round + 1, memory_order_release);
        return;
    }
    for (unsigned spins = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round; spins++) {
        if (spins < 2000)
            RELAX();
        else
            sched_yield();
    }
}

void fastrnn_team_run(int threads, void (*job)(void *context, const fastrnn_member *), void *context)
{
    if (threads > 1) {
        fastrnn_team team;
        atomic_init(&team.arrived, 0);
        atomic_init(&team.round, 0);
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
