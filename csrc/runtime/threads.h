/* The helper threads of the process: they are made when they are first wanted, sleep while nobody wants them, and never
 * end. team.c, whose calls they help, decides who is woken and held.
 *
 * A helper's seat holds its state and the number of its last order:
 *
 *     ASLEEP -> CHOSEN      by a caller, who prepares it
 *     CHOSEN -> CALLED      by the same: anybody may wake it now
 *     CALLED -> WOKEN       by the caller, or another helper, who then wakes it
 *     WOKEN -> READY        by the helper: it has checked in, and spins for a while
 *     READY -> ASLEEP       by the helper: nobody has come
 *     READY -> HELD         by a caller, whose alone it is until it is released
 *     HELD -> WORKING       by the helper, when it finds an order; and back when it is done
 *     HELD -> LEFT          by the helper: no order for too long; it sleeps
 *     HELD -> RELEASED      by the caller: at the end of a call, or because an order was not begun in time
 *     LEFT -> ASLEEP        by the caller, who had not known it yet
 *     RELEASED -> READY     by the helper, which so shows that it is awake
 *
 * Only WORKING helpers access the memory of a call. */
#ifndef FASTRNN_THREADS_H
#define FASTRNN_THREADS_H

#if (defined(__unix__) || defined(__APPLE__) || defined(__MINGW32__)) && !defined(__STDC_NO_ATOMICS__) &&              \
    !defined(FASTRNN_NO_THREADS)
#define FASTRNN_THREADS 1

#if !defined(_GNU_SOURCE)
#error "define _GNU_SOURCE before the first header"
#endif

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include "runtime/team.h"

enum { ASLEEP, CHOSEN, CALLED, WOKEN, READY, HELD, WORKING, LEFT, RELEASED };
enum { SEAT_BITS = 4, SEAT_MASK = (1 << SEAT_BITS) - 1 };

/* One cache line for each direction of communication, one for the seat, and one for fields that are rarely used. */
typedef struct helper {
    /* clang-format off */
    /* Written by the caller who holds it. */
    _Alignas(128) atomic_ullong order;
    fastrnn_job *job;
    const void *context;
    fastrnn_member member;
    int64_t patience; /* ns: without another order for so long, it leaves */
    unsigned long long ordered; /* the last order; the caller's own, who need not read the line again */
    /* Written by the helper. */
    _Alignas(128) atomic_ullong done;
    /* Exchanged by both. */
    _Alignas(128) atomic_ullong seat;
    atomic_int caller_sleeps; /* until `done` */
    /* clang-format on */
    _Alignas(128) pthread_mutex_t lock;
    pthread_cond_t summoned, finished;
    atomic_llong came; /* when it last became READY */
    pthread_t thread;
#if defined(__linux__)
    cpu_set_t processors; /* where it may run, as its last summoner left it */
#endif
} helper;

static inline unsigned long long seat_of(unsigned long long number, unsigned state)
{
    return number << SEAT_BITS | state;
}

/* How long a thread has waited, by a spin that leaves the processor to others after a while. */
typedef struct {
    unsigned spins;
    int64_t since, looked, away; /* away: the longest time between two looks at the clock */
} spinning;
int64_t fastrnn_spin(spinning *, int yields); /* nanoseconds, or 0 if the clock was not looked at */

/* Threads that compute a call now; helpers that are READY; how long these spin before they fall asleep, ns. */
extern atomic_int fastrnn_callers, fastrnn_helpers_ready;
extern atomic_llong fastrnn_helpers_window;

int fastrnn_helpers(void);         /* that there are */
helper *fastrnn_helper(int index); /* one of them */
int fastrnn_make_helper(void);     /* one more, ASLEEP; 0 if there can be none */

/* ASLEEP -> CALLED; 0 if it was not asleep. `processor`: the caller's, which the helper is kept away from where it may
 * use others, because the system likes to wake a thread where its waker runs; -1 if it is not known. */
int fastrnn_call_helper(helper *, int processor);
void fastrnn_wake_one(void); /* of those CALLED; it wakes two more, and so on */

/* Waits, asleep, until the helper is done with an order, or for a ms. */
void fastrnn_await(helper *, unsigned long long order);

/* Whether a helper has a processor, by its processor time in 20 us; 0 where that is not known. */
int fastrnn_runs(const helper *);

/* Where a held helper may run: on one processor, or where the calling thread may, but for one processor if there is
 * another. -1 for none. */
void fastrnn_take_to(helper *, int processor);
void fastrnn_keep_away(helper *, int processor);

#endif
#endif
