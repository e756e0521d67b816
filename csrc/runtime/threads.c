#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* affinities */
#endif
#include "runtime/threads.h"

#include "runtime/float_mode.h"
#include "runtime/processors.h"

#ifdef FASTRNN_THREADS
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

enum { ARRIVAL = 30000 }; /* the initial estimate */

static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER; /* held while a helper is made */
fastrnn_crew fastrnn_own = {.arrival = ARRIVAL}, fastrnn_borrowed = {.arrival = ARRIVAL};

/* The region of the thread that borrows helpers. */
static struct {
    fastrnn_lender lender;
    atomic_int in_use;
    atomic_int most, next, ends; /* the helpers wanted; those that have come; whether they should leave */
    atomic_llong thread;         /* the system's number of one of them */
} region;
static _Thread_local int borrows;
static _Thread_local int64_t watched; /* the system's number of a thread that served this one's last region, or 0 */

atomic_int fastrnn_callers;
atomic_llong fastrnn_helpers_window;

int fastrnn_helpers(const fastrnn_crew *crew) { return atomic_load_explicit(&crew->count, memory_order_acquire); }
helper *fastrnn_helper(fastrnn_crew *crew, int index)
{
    return atomic_load_explicit(&crew->helpers[index], memory_order_acquire);
}

int64_t fastrnn_spin(spinning *wait, int yields)
{
    enum { SPINS = 32, ALONE = 10000 };
    RELAX();
    if (++wait->spins % SPINS) return 0;
    const int64_t now = fastrnn_clock();
    if (!wait->since) wait->since = wait->looked = now;
    if (now - wait->looked > wait->away) wait->away = now - wait->looked;
    wait->looked = now;
    if (yields && now - wait->since > ALONE) sched_yield();
    return now - wait->since;
}

/* Whether another thread had this processor while the helper waited. Interrupts take tens of us and do not count. */
enum { AWAY = 200000 };
static int was_away(fastrnn_crew *crew, const spinning *wait)
{
    if (wait->away < AWAY) return 0;
    fastrnn_helper_was_away(crew, wait->away);
    return 1;
}

static int exchange_seat(helper *h, unsigned long long from, unsigned long long to)
{
    return atomic_compare_exchange_strong(&h->seat, &from, to);
}

/* Executes orders until the caller releases the helper, or until no order has come for `patience` ns. */
static void serve(fastrnn_crew *crew, helper *h, unsigned long long number)
{
    int64_t patience = 100000;
    for (;;) {
        spinning wait = {0};
        while (atomic_load_explicit(&h->order, memory_order_acquire) == number) {
            if (atomic_load_explicit(&h->seat, memory_order_relaxed) != seat_of(number, HELD)) return;
            const int64_t waited = fastrnn_spin(&wait, 1);
            if (waited > 0 && (waited > patience || (patience < INT64_MAX && was_away(crew, &wait))) &&
                exchange_seat(h, seat_of(number, HELD), seat_of(number, LEFT)))
                return;
        }
        if (!exchange_seat(h, seat_of(number, HELD), seat_of(number, WORKING))) return;
        number++;
        patience = h->patience;
        const int64_t began = h->member.is_timed ? fastrnn_clock() : 0;
        h->job(h->context, &h->member);
        if (began) h->took = fastrnn_clock() - began;
        atomic_store_explicit(&h->seat, seat_of(number, HELD), memory_order_release);
        atomic_store_explicit(&h->done, number, memory_order_release);
        if (atomic_load_explicit(&h->caller_sleeps, memory_order_relaxed)) { /* perhaps on this processor: yield it */
            pthread_mutex_lock(&h->lock);
            pthread_cond_signal(&h->finished);
            pthread_mutex_unlock(&h->lock);
            if (exchange_seat(h, seat_of(number, HELD), seat_of(number, LEFT)) ||
                exchange_seat(h, seat_of(number, RELEASED), seat_of(number, ASLEEP)))
                return;
        }
    }
}

static void sleep_until_woken(helper *h)
{
    pthread_mutex_lock(&h->lock);
    for (;;) {
        const unsigned long long seat = atomic_load(&h->seat), number = seat >> SEAT_BITS;
        const unsigned state = seat & SEAT_MASK;
        if (state == CALLED) /* it was still awake */
            exchange_seat(h, seat, seat_of(number, WOKEN));
        else if (state == ASLEEP || state == CHOSEN || state == LEFT)
            pthread_cond_wait(&h->summoned, &h->lock);
        else
            break;
    }
    pthread_mutex_unlock(&h->lock);
}

/* One iteration of a READY helper's spin-wait; returns whether it should sleep. The window begins when no call is
 * running; a helper that has just checked in also waits for the end of the caller's phase. */
static int waited_long(spinning *wait, int64_t *missed)
{
    const int64_t longest_phase = 5000000, waited = fastrnn_spin(wait, 1);
    if (waited > 0 && was_away(&fastrnn_own, wait)) return 1;
    if (waited > 0 && *missed < longest_phase && atomic_load_explicit(&fastrnn_callers, memory_order_relaxed) > 0) {
        *missed += waited;
        wait->since += waited;
        return 0;
    }
    return waited > atomic_load_explicit(&fastrnn_helpers_window, memory_order_relaxed);
}

/* The same for a borrowed helper: whether it should leave the region. */
static int region_ends(spinning *wait)
{
    const int64_t waited = fastrnn_spin(wait, 1);
    return atomic_load_explicit(&region.ends, memory_order_relaxed) ||
           (waited > 0 && was_away(&fastrnn_borrowed, wait));
}

/* Serves callers from WOKEN until it is ASLEEP or LEFT. */
static void attend(fastrnn_crew *crew, helper *h)
{
    spinning wait = {0};
    int64_t missed = 0;
    for (;;) {
        const unsigned long long seat = atomic_load_explicit(&h->seat, memory_order_acquire),
                                 number = seat >> SEAT_BITS;
        const unsigned state = seat & SEAT_MASK;
        if (state == WOKEN || state == RELEASED) {
            if (state == WOKEN) fastrnn_wake_one(), fastrnn_wake_one();
            missed = 0;
            atomic_store_explicit(&h->came, fastrnn_clock(), memory_order_relaxed);
            if (exchange_seat(h, seat, seat_of(number, READY))) atomic_fetch_add(&crew->ready, 1);
            wait = (spinning){0};
        } else if (state == HELD) {
            serve(crew, h, number);
            wait = (spinning){0};
            missed = INT64_MAX / 2;
        } else if (state != READY)
            return;
        else if ((crew == &fastrnn_own ? waited_long(&wait, &missed) : region_ends(&wait)) &&
                 exchange_seat(h, seat, seat_of(number, ASLEEP))) {
            atomic_fetch_sub(&crew->ready, 1);
            return;
        }
    }
}

static void *helper_main(void *argument)
{
    helper *h = argument;
    float_mode_enter();
    for (;;) {
        sleep_until_woken(h);
        attend(&fastrnn_own, h);
    }
    return NULL;
}

#if defined(__linux__)
static int64_t this_thread(void) { return syscall(SYS_gettid); }

/* The clock of a thread's processor time. Unlike pthread_getcpuclockid, this is safe for a thread that has ended. */
static clockid_t clock_of(int64_t thread)
{
    enum { OF_A_THREAD = 4, PRECISE = 2 };
    return (clockid_t)(~(unsigned)thread << 3 | OF_A_THREAD | PRECISE);
}
static int runs(clockid_t clock, int64_t look)
{
    struct timespec before, after;
    if (clock_gettime(clock, &before)) return 0;
    for (const int64_t end = fastrnn_clock() + look; fastrnn_clock() < end;) RELAX();
    if (clock_gettime(clock, &after)) return 0;
    return (int64_t)(after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec > look / 4;
}
#else
static int64_t this_thread(void) { return 0; }
#endif

/* The job of each thread of a region, except the one that began it. */
static void serve_region(void *nothing)
{
    (void)nothing;
    const int index = atomic_fetch_add(&region.next, 1);
    if (index >= atomic_load(&region.most) || atomic_load(&region.ends)) return;
    helper *h = fastrnn_helper(&fastrnn_borrowed, index);
    const float_mode mode = float_mode_enter();
    h->thread = pthread_self();
    atomic_store(&region.thread, this_thread());
    atomic_store(&h->seat, seat_of(atomic_load(&h->seat) >> SEAT_BITS, WOKEN));
    attend(&fastrnn_borrowed, h);
    float_mode_leave(mode);
}

int fastrnn_borrow_threads(int on)
{
    const int before = borrows;
    borrows = on;
    return before;
}

int fastrnn_may_borrow(void)
{
#if defined(__linux__)
    const int64_t look = 2000;
    int unused = 0;
    return borrows && region.lender.most && region.lender.most() > 1 && (!watched || runs(clock_of(watched), look)) &&
           atomic_compare_exchange_strong(&region.in_use, &unused, 1);
#else
    return 0;
#endif
}
void fastrnn_return_borrowed(void) { atomic_store(&region.in_use, 0); }

int fastrnn_begin_region(int most)
{
    if (most > MOST_HELPERS) most = MOST_HELPERS;
    while (fastrnn_helpers(&fastrnn_borrowed) < most && fastrnn_make_helper(&fastrnn_borrowed)) continue;
    if (most > fastrnn_helpers(&fastrnn_borrowed)) most = fastrnn_helpers(&fastrnn_borrowed);
    if (most < 1) return 0;
    atomic_store(&region.most, most);
    atomic_store(&region.next, 0);
    atomic_store(&region.ends, 0);
    region.lender.start(serve_region, NULL, 0);
    return 1;
}

unsigned long long fastrnn_borrowed_shares(void)
{
    unsigned long long shares = 0;
    for (int k = 0, count = fastrnn_helpers(&fastrnn_borrowed); k < count; k++)
        shares += atomic_load(&fastrnn_helper(&fastrnn_borrowed, k)->done);
    return shares;
}

int64_t fastrnn_end_region(void)
{
    const int64_t began = fastrnn_clock();
    atomic_store(&region.ends, 1);
    region.lender.end();
    for (int k = 0, count = fastrnn_helpers(&fastrnn_borrowed); k < count; k++) { /* some have LEFT */
        helper *h = fastrnn_helper(&fastrnn_borrowed, k);
        atomic_store(&h->seat, seat_of(h->ordered, ASLEEP));
    }
    watched = atomic_load(&region.thread);
    return fastrnn_clock() - began;
}

#if !defined(_WIN32)
/* A forked child has no threads of its parent, nor may it begin a region. Their memory is not freed. */
static void forget_helpers(void)
{
    pthread_mutex_init(&making, NULL);
    for (int k = 0; k < 2; k++) {
        fastrnn_crew *crew = k ? &fastrnn_borrowed : &fastrnn_own;
        atomic_store(&crew->count, 0);
        atomic_store(&crew->ready, 0);
    }
    region.lender = (fastrnn_lender){0};
    atomic_store(&region.in_use, 0);
    fastrnn_team_after_fork();
}
static void register_fork_handler(void) { pthread_atfork(NULL, NULL, forget_helpers); }
static void watch_forks(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_fork_handler);
}
#else
static void watch_forks(void) {}
#endif

void fastrnn_set_lender(const fastrnn_lender *lender)
{
    watch_forks();
    region.lender = *lender;
}

/* Signals go to the program's own threads. */
static int start(helper *h)
{
    watch_forks();
#if !defined(_WIN32)
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
    pthread_attr_t attributes;
    int failed = pthread_attr_init(&attributes);
    if (!failed) {
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        failed = pthread_create(&h->thread, &attributes, helper_main, h);
        pthread_attr_destroy(&attributes);
    }
#if !defined(_WIN32)
    pthread_sigmask(SIG_SETMASK, &before, NULL);
#endif
#if defined(__linux__)
    if (!failed) pthread_setname_np(h->thread, "fastrnn");
#endif
    return !failed;
}

int fastrnn_make_helper(fastrnn_crew *crew)
{
    int made = 0;
    pthread_mutex_lock(&making);
    const int count = fastrnn_helpers(crew);
    /* Over-allocated for alignment, because not every system has aligned_alloc. ASLEEP is 0. */
    void *memory = count < MOST_HELPERS ? calloc(1, sizeof(helper) + _Alignof(helper)) : NULL;
    if (memory) {
        helper *h = (helper *)(((uintptr_t)memory + _Alignof(helper) - 1) & ~(uintptr_t)(_Alignof(helper) - 1));
        h->speed = h->measured = 1;
        pthread_mutex_init(&h->lock, NULL);
        pthread_cond_init(&h->summoned, NULL);
        pthread_cond_init(&h->finished, NULL);
        if (crew == &fastrnn_borrowed || start(h)) {
            atomic_store_explicit(&crew->helpers[count], h, memory_order_release);
            atomic_store_explicit(&crew->count, count + 1, memory_order_release);
            made = 1;
        } else
            free(memory);
    }
    pthread_mutex_unlock(&making);
    return made;
}

#if defined(__linux__)
/* Sets a helper's affinity to this thread's, without `processor` if there are others. */
void fastrnn_keep_away(helper *h, int processor)
{
    cpu_set_t processors;
    if (sched_getaffinity(0, sizeof processors, &processors)) return;
    if (processor >= 0 && processor < CPU_SETSIZE && CPU_COUNT(&processors) > 1) CPU_CLR(processor, &processors);
    if (CPU_EQUAL(&processors, &h->processors)) return;
    h->processors = processors;
    pthread_setaffinity_np(h->thread, sizeof processors, &processors);
}
int fastrnn_runs(const helper *h)
{
    enum { LOOK = 20000 };
    clockid_t clock;
    return !pthread_getcpuclockid(h->thread, &clock) && runs(clock, LOOK);
}
void fastrnn_take_to(helper *h, int processor)
{
    if (processor < 0 || processor >= CPU_SETSIZE) return;
    CPU_ZERO(&h->processors);
    CPU_SET(processor, &h->processors);
    pthread_setaffinity_np(h->thread, sizeof h->processors, &h->processors);
}
#else
int fastrnn_runs(const helper *h)
{
    (void)h;
    return 0;
}
void fastrnn_keep_away(helper *h, int processor) { (void)h, (void)processor; }
void fastrnn_take_to(helper *h, int processor) { (void)h, (void)processor; }
#endif

int fastrnn_call_helper(helper *h, int processor)
{
    const unsigned long long seat = atomic_load_explicit(&h->seat, memory_order_relaxed), number = seat >> SEAT_BITS;
    if ((seat & SEAT_MASK) != ASLEEP || !exchange_seat(h, seat, seat_of(number, CHOSEN))) return 0;
    fastrnn_keep_away(h, processor);
    atomic_store(&h->seat, seat_of(number, CALLED));
    return 1;
}

void fastrnn_wake_one(void)
{
    for (int k = 0, count = fastrnn_helpers(&fastrnn_own); k < count; k++) {
        helper *h = fastrnn_helper(&fastrnn_own, k);
        const unsigned long long seat = atomic_load_explicit(&h->seat, memory_order_relaxed);
        if ((seat & SEAT_MASK) == CALLED && exchange_seat(h, seat, seat_of(seat >> SEAT_BITS, WOKEN))) {
            pthread_mutex_lock(&h->lock);
            pthread_cond_signal(&h->summoned);
            pthread_mutex_unlock(&h->lock);
            return;
        }
    }
}

void fastrnn_await(helper *h, unsigned long long order)
{
    /* The helper does not fence its store to `done` before it reads `caller_sleeps`, which would take as long as a
     * small step. So it may miss that the caller sleeps; the caller checks again soon. */
    const long soon = 1000000;
    struct timespec end;
    pthread_mutex_lock(&h->lock);
    atomic_store(&h->caller_sleeps, 1);
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += (end.tv_nsec + soon) / 1000000000;
    end.tv_nsec = (end.tv_nsec + soon) % 1000000000;
    while (atomic_load(&h->done) != order && !pthread_cond_timedwait(&h->finished, &h->lock, &end)) continue;
    atomic_store(&h->caller_sleeps, 0);
    pthread_mutex_unlock(&h->lock);
}
#endif
