/* The helper threads of the process. Its own are created on demand, asleep between calls, and never ended. Borrowed
 * ones are the threads of another library's OpenMP, which serve from the beginning to the end of a parallel region.
 * team.c decides which helpers are woken and held.
 *
 * A helper's seat holds its state and the number of its last order:
 *
 *     ASLEEP -> CHOSEN      by a caller, which prepares it
 *     CHOSEN -> CALLED      by the same caller: any thread may wake it now
 *     CALLED -> WOKEN       by the caller or another helper, which then wakes it
 *     WOKEN -> READY        by the helper: it has checked in, and spin-waits for a while
 *     READY -> ASLEEP       by the helper: no caller has taken it
 *     READY -> HELD         by a caller, which owns it until it is released
 *     HELD -> WORKING       by the helper, when it finds an order; WORKING -> HELD when it is done
 *     HELD -> LEFT          by the helper: no order for too long; it sleeps
 *     HELD -> RELEASED      by the caller: at the end of a call, or because an order was not begun in time
 *     LEFT -> ASLEEP        by the caller, when it notices
 *     RELEASED -> READY     by the helper, which thereby shows that it is awake
 *
 * A borrowed helper is WOKEN when the region begins, and leaves the region when it is ASLEEP or LEFT.
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

enum { MOST_HELPERS = FASTRNN_MOST_MEMBERS - 1 };
enum { ASLEEP, CHOSEN, CALLED, WOKEN, READY, HELD, WORKING, LEFT, RELEASED };
enum { SEAT_BITS = 4, SEAT_MASK = (1 << SEAT_BITS) - 1 };

/* One cache line for each direction of communication, one for the seat, and one for rarely used fields. */
typedef struct helper {
    /* clang-format off */
    /* Written by the caller that holds it. */
    _Alignas(128) atomic_ullong order;
    fastrnn_job *job;
    const void *context;
    fastrnn_member member;
    int64_t patience; /* ns without another order after which it leaves */
    unsigned long long ordered; /* the last order; the caller's private copy, which saves a read of the shared line */
    /* Written by the helper. */
    _Alignas(128) atomic_ullong done;
    int64_t took; /* the time of the last share that was measured */
    /* Of the caller that holds it, see compare_speeds. */
    _Alignas(128) double speed, measured; /* relative to the caller's: of its shares, and the latest average */
    /* Written by both. */
    _Alignas(128) atomic_ullong seat;
    atomic_int caller_sleeps; /* until `done` */
    /* clang-format on */
    _Alignas(128) pthread_mutex_t lock;
    pthread_cond_t summoned, finished;
    atomic_llong came; /* when it last became READY */
    pthread_t thread;
#if defined(__linux__)
    cpu_set_t processors; /* its affinity, as set by the last caller that summoned it */
#endif
} helper;
_Static_assert(offsetof(helper, patience) + sizeof(int64_t) <= 64, "an order is one cache line");

static inline unsigned long long seat_of(unsigned long long number, unsigned state)
{
    return number << SEAT_BITS | state;
}

/* The state of a spin-wait, which yields the processor after a while. */
typedef struct {
    unsigned spins;
    int64_t since, looked, away; /* away: the longest time between two reads of the clock */
} spinning;
int64_t fastrnn_spin(spinning *, int yields); /* nanoseconds waited, or 0 if the clock was not read */

/* The helpers of one kind, and the experience of callers with them. Times in ns. */
typedef struct fastrnn_crew {
    helper *_Atomic helpers[MOST_HELPERS];
    atomic_int count, ready; /* of all; of those that are READY */
    atomic_llong arrival;    /* the time from called to ready, a running mean */
    atomic_int members;      /* of the last team with helpers */
    atomic_int most;         /* the maximal number of members until paused_until */
    atomic_llong paused_until;
    atomic_llong long_calls_paused_until; /* the same for a call that has lasted a while */
    atomic_llong look_at, between_looks;  /* the time of the next look for idle processors, which end the pause */
    atomic_int idle_looks;                /* those that have found some, one after the other */
    atomic_llong pause;                   /* the length of the last pause */
    atomic_llong served;                  /* the time that helpers have worked since without a loss */
} fastrnn_crew;
extern fastrnn_crew fastrnn_own, fastrnn_borrowed;

/* Threads that compute a call now; ns that own helpers spin before they sleep. */
extern atomic_int fastrnn_callers;
extern atomic_llong fastrnn_helpers_window;

int fastrnn_helpers(const fastrnn_crew *);         /* their number */
helper *fastrnn_helper(fastrnn_crew *, int index); /* the helper with this index */
int fastrnn_make_helper(fastrnn_crew *);           /* creates one, ASLEEP; 0 if that fails */

/* Whether the calling thread borrows its helpers now; then no other thread may until fastrnn_return_borrowed. It does
 * if the threads of its last region run, as they do when they spin. The scheduler would wake sleeping ones on any
 * processor, the caller's included, and a region ends only when all have come: then own helpers are better. */
int fastrnn_may_borrow(void);
void fastrnn_return_borrowed(void);

/* Begins a parallel region whose threads, except the calling one, are at most `most` borrowed helpers; 0 if it does not
 * begin. fastrnn_end_region waits until all have left, and returns the ns waited. */
int fastrnn_begin_region(int most);
int64_t fastrnn_end_region(void);

/* ASLEEP -> CALLED; 0 if it was not asleep. `processor`: the caller's, or -1 if unknown. The helper's affinity excludes
 * it if there are others, because schedulers tend to wake a thread on its waker's processor. */
int fastrnn_call_helper(helper *, int processor);
void fastrnn_wake_one(void); /* wakes one CALLED helper, which wakes two more, and so on */

/* Sleeps until the helper has finished an order, or for a ms. */
void fastrnn_await(helper *, unsigned long long order);

/* Whether a helper has a processor, by its processor time in 20 us; 0 if unknown. */
int fastrnn_runs(const helper *);

/* Set the affinity of a held helper: take_to to one processor; keep_away to the calling thread's affinity, without
 * `processor` if there are others. A processor of -1 means none. */
void fastrnn_take_to(helper *, int processor);
void fastrnn_keep_away(helper *, int processor);

#endif
#endif
