#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* syscall */
#endif
#include "team.h"

#include <limits.h>
#include <time.h>

#include "float_mode.h"

#ifdef _OPENMP
#include <omp.h>
#include <stdatomic.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#define YIELD() sched_yield()
#else
#define YIELD() ((void)0)
#endif

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

typedef atomic_int shared_flag;
#define READ(flag) atomic_load_explicit(&(flag), memory_order_relaxed)
#define WRITE(flag, value) atomic_store_explicit(&(flag), value, memory_order_relaxed)
#else
typedef int shared_flag;
#define READ(flag) (flag)
#define WRITE(flag, value) ((flag) = (value))
#endif

/* Who may interrupt, and what member 0 remembers of asking them. They are asked in the caller's floating-point mode. */
typedef struct {
    const fastrnn_interruption *interruption;
    float_mode callers;
    double operations;
    struct timespec asked;
} asking;

/* Each has a cache line of its own: what the one writes at every step, others do not read. */
struct fastrnn_team {
#ifdef _OPENMP
    /* clang-format off */
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_uint round;
    atomic_int sleeping;
    _Alignas(64)
#endif
        shared_flag stopped, leaving;
#ifdef _OPENMP
    _Alignas(64)
#endif
        asking asking;
    /* clang-format on */
#ifdef _OPENMP
    struct {
        _Alignas(64) atomic_ptrdiff_t value;
    } progress[FASTRNN_PROGRESSES];
#endif
};

static void team_init(fastrnn_team *team, const fastrnn_interruption *interruption)
{
#ifdef _OPENMP
    atomic_init(&team->arrived, 0);
    atomic_init(&team->round, 0);
    atomic_init(&team->sleeping, 0);
    for (int k = 0; k < FASTRNN_PROGRESSES; k++) atomic_init(&team->progress[k].value, 0);
#endif
    WRITE(team->stopped, 0);
    WRITE(team->leaving, 0);
    team->asking.interruption = interruption;
    team->asking.operations = 0;
    if (interruption) timespec_get(&team->asking.asked, TIME_UTC);
}

/* Asking may take as long as another thread holds Python's lock, and looking at the clock takes as long as a small
 * step: so the clock is looked at after so many operations, some milliseconds, and the question asked by the clock. */
int fastrnn_team_go(const fastrnn_member *me, double operations)
{
    const double look = 1e8, seconds = 0.05;
    asking *a = &me->team->asking;
    if (me->asks && a->interruption && (a->operations += operations) > look) {
        struct timespec now;
        a->operations = 0;
        timespec_get(&now, TIME_UTC);
        const double since = (double)(now.tv_sec - a->asked.tv_sec) + 1e-9 * (double)(now.tv_nsec - a->asked.tv_nsec);
        if (since < 0 || since > seconds) {
            float_mode_leave(a->callers);
            const int wanted = a->interruption->wanted(a->interruption->context);
            float_mode_enter();
            timespec_get(&a->asked, TIME_UTC); /* after the wait for Python's lock */
            if (wanted) WRITE(me->team->stopped, 1);
        }
    }
    return !READ(me->team->stopped);
}

int fastrnn_next_piece(const fastrnn_member *me, fastrnn_range all, double operations, fastrnn_range *piece)
{
    enum { FEWEST = 2 };
    const double most = 1e9, fit = most / (operations + 1);
    if (piece->to >= all.to) return 0;
    piece->from = piece->to;
    if (fit < (double)(all.to - piece->from))
        piece->to = fit < FEWEST ? piece->from + FEWEST : piece->from + (ptrdiff_t)fit;
    if (fit >= (double)(all.to - piece->from) || piece->to > all.to) piece->to = all.to;
    return fastrnn_team_go(me, operations * (double)(piece->to - piece->from));
}

#ifdef _OPENMP

/* Sleep until `round` is no longer `seen`, or for no reason, or (the asker) so long at most; and the end of that sleep.
 */
static void sleep_through(fastrnn_team *team, unsigned seen, const struct timespec *most)
{
#if defined(__linux__)
    atomic_fetch_add(&team->sleeping, 1);
    syscall(SYS_futex, (void *)&team->round, FUTEX_WAIT_PRIVATE, seen, most, NULL, 0);
    atomic_fetch_sub(&team->sleeping, 1);
#else
    (void)team, (void)seen, (void)most;
    YIELD();
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

enum { SPINS = 2000 };

/* OpenMP's own barrier costs microseconds where a step may take less than one. Waiting members spin for some tens of
 * microseconds. Longer than that, a member has probably lost its processor to another program, perhaps to the very
 * spinning of its own team: then they sleep, because on a busy machine a spinning wait costs a time slice a step. */
int fastrnn_team_barrier(const fastrnn_member *me)
{
    if (me->size == 1) return 0;
    fastrnn_team *team = me->team;
    unsigned round = atomic_load_explicit(&team->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == me->size - 1) {
        /* Here nobody can be on the way from one barrier to the next: so all read the same before they go on. */
        WRITE(team->leaving, READ(team->stopped));
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store(&team->round, round + 1);
        wake_sleepers(team);
        return READ(team->leaving);
    }
    for (int spins = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round;) {
        if (spins++ < SPINS)
            RELAX();
        else
            sleep_through(team, round, NULL);
    }
    return READ(team->leaving);
}

/* `round` counts what is published, too: a job has either this or barriers. */
void fastrnn_team_publish(const fastrnn_member *me, int which, ptrdiff_t progress)
{
    atomic_store_explicit(&me->team->progress[which].value, progress, memory_order_release);
    atomic_fetch_add(&me->team->round, 1);
    wake_sleepers(me->team);
}

void fastrnn_team_wait(const fastrnn_member *me, int which, ptrdiff_t progress)
{
    fastrnn_team *team = me->team;
    for (int spins = 0;;) {
        const unsigned round = atomic_load(&team->round); /* before the look: what comes after it changes the round */
        if (atomic_load_explicit(&team->progress[which].value, memory_order_acquire) >= progress) return;
        if (spins++ < SPINS)
            RELAX();
        else
            sleep_through(team, round, NULL);
    }
}

void fastrnn_team_finish(const fastrnn_member *me)
{
    const struct timespec most = {0, 20000000};
    fastrnn_team *team = me->team;
    atomic_fetch_add(&team->arrived, 1);
    atomic_fetch_add(&team->round, 1);
    wake_sleepers(team);
    if (!me->asks) return;
    for (int spins = 0;;) {
        const unsigned round = atomic_load(&team->round);
        if (atomic_load(&team->arrived) == me->size) return;
        if (spins++ < SPINS)
            RELAX();
        else {
            sleep_through(team, round, &most);
            fastrnn_team_go(me, 1e9);
        }
    }
}
#else
/* A team of one does one thing after the other. */
int fastrnn_team_barrier(const fastrnn_member *me)
{
    (void)me;
    return 0;
}
void fastrnn_team_finish(const fastrnn_member *me) { (void)me; }
void fastrnn_team_publish(const fastrnn_member *me, int which, ptrdiff_t progress)
{
    (void)me, (void)which, (void)progress;
}
void fastrnn_team_wait(const fastrnn_member *me, int which, ptrdiff_t progress)
{
    (void)me, (void)which, (void)progress;
}
#endif

int fastrnn_team_run(int threads, void (*job)(void *context, const fastrnn_member *), void *context,
                     const fastrnn_interruption *interruption)
{
    fastrnn_team team;
    team_init(&team, interruption);
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        {
            const int index = omp_get_thread_num();
            const fastrnn_member me = {index, omp_get_num_threads(), &team, index == 0};
            float_mode before = float_mode_enter();
            if (me.asks) team.asking.callers = before;
            job(context, &me);
            float_mode_leave(before);
        }
        return !READ(team.stopped);
    }
#else
    (void)threads;
#endif
    const fastrnn_member alone = {0, 1, &team, 1};
    float_mode before = float_mode_enter();
    team.asking.callers = before;
    job(context, &alone);
    float_mode_leave(before);
    return !READ(team.stopped);
}
