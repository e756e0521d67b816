#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* sched_getcpu */
#endif
#include "runtime/team.h"

#include "runtime/processors.h"
#include "runtime/threads.h"

/* should_cancel may wait for the GIL as long as another thread holds it, and reading the clock takes as long as a small
 * step. So the clock is read once per `look` operations, a few milliseconds, and should_cancel is polled by the clock,
 * in the caller's floating-point mode. */
int fastrnn_team_go(const fastrnn_member *me, double operations)
{
    const double look = 1e8;
    const int64_t pause = 50000000;
    fastrnn_team *team = me->team;
    if (me->is_caller && team->interruption && (team->asking_operations += operations) > look) {
        team->asking_operations = 0;
        if (fastrnn_clock() - team->asked > pause) {
            float_mode_leave(team->callers_mode);
            const int cancel = team->interruption->should_cancel(team->interruption->context);
            float_mode_enter();
            team->asked = fastrnn_clock();
            if (cancel) team->cancelled = 1;
        }
    }
#if defined(__STDC_NO_ATOMICS__)
    return !team->cancelled;
#else
    return !atomic_load_explicit(&team->cancelled, memory_order_relaxed);
#endif
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

int fastrnn_has_threads(void)
{
#ifdef FASTRNN_THREADS
    return 1;
#else
    return 0;
#endif
}

#ifdef FASTRNN_THREADS

/* State common to all callers of the process. Times in ns, of fastrnn_clock(). */
static struct {
    atomic_int policy;
    atomic_llong closed, gap;   /* the end of the last call; the recent gap between calls */
    atomic_llong shared_until;  /* until then several recent callers share the cores */
    atomic_llong empty_phase;   /* see fastrnn_team_empty_phase; 0 if it has not been measured */
    atomic_llong latest_phase;  /* the last measurement */
    atomic_llong fastest_phase; /* the least of all */
    atomic_llong measured_at;   /* the time of the last */
    atomic_int measurements;
} company = {.gap = 1000000};

#define GET_OF(owner, field) atomic_load_explicit(&(owner)->field, memory_order_relaxed)
#define SET_OF(owner, field, value) atomic_store_explicit(&(owner)->field, value, memory_order_relaxed)
#define GET(field) GET_OF(&company, field)
#define SET(field, value) SET_OF(&company, field, value)

void fastrnn_team_policy(fastrnn_policy policy) { SET(policy, policy); }

void fastrnn_team_after_fork(void) { atomic_store(&fastrnn_callers, 0); }

int fastrnn_team_threads(int threads)
{
    if (threads == 1) return 1;
    if (threads > FASTRNN_MOST_MEMBERS) threads = FASTRNN_MOST_MEMBERS;
    if (threads && GET(policy) != FASTRNN_ADAPTIVE) return threads;
    const fastrnn_processors_count there = fastrnn_count_processors(fastrnn_clock());
    const int most = threads ? there.logical : there.cores;
    if (!threads || threads > most) threads = most;
    return threads > FASTRNN_MOST_MEMBERS ? FASTRNN_MOST_MEMBERS : threads;
}

double fastrnn_team_empty_phase(void)
{
    const int64_t valid = 100000000, phase = GET(empty_phase);
    if (phase == GET(fastest_phase)) return (double)phase;
    return (double)(fastrnn_clock() - GET(measured_at) < valid ? phase : GET(fastest_phase));
}

static int current_processor(void)
{
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

static unsigned draw(fastrnn_team *team, unsigned n)
{
    team->random = team->random * 1664525u + 1013904223u;
    return (team->random >> 16) % n;
}

/* Limits teams with helpers of this kind to `most` members for `pause` ns, those of long calls for pause_of_long_calls.
 * A pause of FAIR times the cost of a try bounds the cost of all tries to a twentieth of the time. */
static void pause_tries(fastrnn_crew *crew, int most, int64_t pause, int64_t pause_of_long_calls)
{
    const int64_t now = fastrnn_clock();
    SET_OF(crew, most, most > 1 ? most : 1);
    SET_OF(crew, paused_until, now + pause);
    SET_OF(crew, long_calls_paused_until, now + pause_of_long_calls);
    SET_OF(crew, look_at, now + pause);
}
enum { FAIR = 20 };

/* Pauses after a helper lost its processor to another thread, which lost time, too, and may keep the processor: four
 * times the fair pause, at least twice the last pause, at most fifty times that; for long calls the fair pause. Never
 * longer than a second, because the whole process may have been stopped. Idle processors end the pause before, see
 * ends_early: the pause has LOOKS looks for them, or one each `rare` ns. */
enum { LOOKS = 16 };
static void pause_longer(fastrnn_crew *crew, int most, int64_t cost)
{
    const int64_t rare = 4000000; /* ns; a look takes 5 us and more */
    const int64_t second = 1000000000, first = cost < second / (4 * FAIR) ? 4 * FAIR * cost : second;
    const int64_t longest = 50 * first < second ? 50 * first : second;
    int64_t pause = 2 * GET_OF(crew, pause);
    if (pause > longest) pause = longest;
    if (pause < first) pause = first;
    SET_OF(crew, served, 0);
    SET_OF(crew, pause, pause);
    pause_tries(crew, most, pause, first / 4);
    const int64_t between = pause / LOOKS < rare ? pause / LOOKS : rare;
    SET_OF(crew, between_looks, between);
    SET_OF(crew, look_at, fastrnn_clock() + between);
    SET_OF(crew, idle_looks, 0);
}

/* Pauses after the loss of a helper. The threads of another library lose their processors in its own operations, too,
 * so for borrowed ones the fair pause is enough. */
static void pause_after_loss(fastrnn_crew *crew, int most, int64_t cost)
{
    if (crew == &fastrnn_own)
        pause_longer(crew, most, cost);
    else
        pause_tries(crew, most, FAIR * cost, FAIR * cost);
}

/* Whether a pause is over because two looks have found as many idle processors as helpers are missing: the other thread
 * has ended, as those of the system and interrupts of a hypervisor do soon. */
static int ends_early(const fastrnn_team *team, int most, int64_t now)
{
    fastrnn_crew *crew = team->crew;
    if (now < GET_OF(crew, look_at)) return 0;
    SET_OF(crew, look_at, now + GET_OF(crew, between_looks));
    const int looks = fastrnn_idle_processors() < most - team->size ? 0 : GET_OF(crew, idle_looks) + 1;
    SET_OF(crew, idle_looks, looks);
    if (looks < 2) return 0;
    SET_OF(crew, paused_until, now);
    SET_OF(crew, long_calls_paused_until, now);
    return 1;
}

/* The number of members, at most `most`, that a team may have now. During a pause it is less. Short calls wait for the
 * whole pause, which grows from loss to loss, because one try may cost as much as a call. In a call that has lasted a
 * while a try costs little, and the other thread may have ended, as those of a BLAS do that spin for 0.1 s after a
 * product: such a call waits for the fair pause alone. */
static int may_have(const fastrnn_team *team, int most, int64_t now)
{
    const int64_t a_while = 10000000;
    const int is_long = now - team->opened > a_while;
    const fastrnn_crew *crew = team->crew;
    if (now >= (is_long ? GET_OF(crew, long_calls_paused_until) : GET_OF(crew, paused_until))) return most;
    return most <= GET_OF(crew, most) || ends_early(team, most, now) ? most : GET_OF(crew, most);
}

/* Counts ns of helpers' work without a loss; after as much as the last pause, the next pause may be shorter. */
static void count_service(fastrnn_crew *crew, int64_t time)
{
    const int64_t pause = GET_OF(crew, pause), served = GET_OF(crew, served) + time;
    SET_OF(crew, served, served < pause ? served : 0);
    if (served >= pause) SET_OF(crew, pause, pause / 2);
}

void fastrnn_helper_was_away(fastrnn_crew *crew, int64_t time)
{
    const int64_t longest = 4000000; /* it may have been away for other reasons, too */
    if (GET(policy) == FASTRNN_ADAPTIVE)
        pause_after_loss(crew, GET_OF(crew, members) - 1, time < longest ? time : longest);
}

static void forget(fastrnn_team *team, int index) { team->held[index] = team->held[--team->size - 1]; }

/* Releases a helper: state READY if it is known to be awake, else RELEASED. */
static void let_go(fastrnn_team *team, int index, unsigned state)
{
    helper *h = team->held[index];
    unsigned long long seat = seat_of(h->ordered, HELD);
    forget(team, index);
    if (state == READY) atomic_fetch_add(&team->crew->ready, 1);
    if (!atomic_compare_exchange_strong(&h->seat, &seat, seat_of(h->ordered, state))) {
        if (state == READY) atomic_fetch_sub(&team->crew->ready, 1);
        atomic_store(&h->seat, seat_of(h->ordered, ASLEEP)); /* it had left */
    }
}

/* A helper that was called has come: updates the estimate of the time in which they come. */
static void has_come(fastrnn_team *team, const helper *h)
{
    const int64_t took = atomic_load_explicit(&h->came, memory_order_relaxed) - team->called;
    if (took > 0 && took < 1000000)
        SET_OF(team->crew, arrival, GET_OF(team->crew, arrival) + (took - GET_OF(team->crew, arrival)) / 8);
    team->calling = 0;
}

static void take_ready(fastrnn_team *team, int most)
{
    for (int k = 0, count = fastrnn_helpers(team->crew); k < count && team->size < most; k++) {
        helper *h = fastrnn_helper(team->crew, k);
        unsigned long long seat = atomic_load_explicit(&h->seat, memory_order_relaxed);
        if ((seat & SEAT_MASK) != READY) continue;
        if (!atomic_compare_exchange_strong(&h->seat, &seat, seat_of(seat >> SEAT_BITS, HELD))) continue;
        atomic_fetch_sub(&team->crew->ready, 1);
        team->held[team->size++ - 1] = h;
        if (team->calling) has_come(team, h);
    }
}

/* Whether a helper that was called has come during the last phase, which may be the only long one, and was not seen. */
static int came_unseen(fastrnn_team *team)
{
    for (int k = 0, count = fastrnn_helpers(team->crew); k < count && team->calling; k++) {
        const helper *h = fastrnn_helper(team->crew, k);
        if (atomic_load_explicit(&h->came, memory_order_relaxed) > team->called) has_come(team, h);
    }
    return !team->calling;
}

/* Calls `missing` own helpers; returns the number called. If none can be created, pauses, because the reason may last.
 */
static int call_own(fastrnn_team *team, int64_t now, int missing)
{
    const int processor = current_processor();
    int called = 0, looked_at = 0;
    for (;;) {
        for (int count = fastrnn_helpers(team->crew); looked_at < count && called < missing; looked_at++)
            called += fastrnn_call_helper(fastrnn_helper(team->crew, looked_at), processor);
        if (called == missing || (!team->patient && fastrnn_helpers(team->crew) >= team->limit - 1)) break;
        if (fastrnn_make_helper(team->crew)) continue;
        pause_longer(team->crew, team->size + called, fastrnn_clock() - now);
        break;
    }
    if (called) fastrnn_wake_one();
    return called;
}

/* The library may create threads here, which inherit the floating-point mode. */
static int call_borrowed(fastrnn_team *team)
{
    if (team->in_region) return 0;
    float_mode_leave(team->callers_mode);
    team->in_region = fastrnn_begin_region(team->limit - 1);
    float_mode_enter();
    return team->in_region;
}

static void call_helpers(fastrnn_team *team, int64_t now, int missing)
{
    if (!(team->crew == &fastrnn_borrowed ? call_borrowed(team) : call_own(team, now, missing))) return;
    team->calling = 1;
    team->called = now;
}

/* Whether helpers called now would arrive early enough to pay off. The estimate of their arrival decays slowly, so that
 * helpers are tried again. */
static int worth_calling(fastrnn_team *team, int64_t now)
{
    const double left = team->alone - (double)(now - team->opened);
    const int64_t longest = 30000, expected = GET_OF(team->crew, arrival);
    if (left > 8.0 * (double)expected) return 1;
    if (expected > longest) SET_OF(team->crew, arrival, expected - expected / 128);
    return 0;
}

/* The maximal members of a team beside concurrent callers: its caller's part of the cores. */
static int fair_share(const fastrnn_team *team, int64_t now)
{
    int callers = atomic_load_explicit(&fastrnn_callers, memory_order_relaxed);
    if (callers < 2 && now < GET(shared_until)) callers = 2;
    if (callers < 2) return team->limit;
    const int part = fastrnn_count_processors(now).cores / callers;
    return part < 1 ? 1 : part < team->limit ? part : team->limit;
}

static void look_for_helpers(fastrnn_team *team, int at_once)
{
    const int64_t again = 1000000, now = fastrnn_clock();
    team->operations = 0;
    team->callers = atomic_load_explicit(&fastrnn_callers, memory_order_relaxed);
    team->wanted = team->patient || team->erratic ? team->limit : fair_share(team, now);
    const int most = may_have(team, team->wanted, now);
    const int missing = most - team->size - GET_OF(team->crew, ready);
    if (missing <= 0 || (team->calling && now - team->called < again)) return;
    if (at_once || team->erratic || worth_calling(team, now)) call_helpers(team, now, missing);
}

static void open_for_helpers(fastrnn_team *team)
{
    const int64_t longest = 1000000, frequent = 400000, short_window = 10000, share_for = 3000000;
    const int64_t now = team->opened;
    int64_t gap = now - GET(closed);
    if (gap > longest) gap = longest;
    gap = GET(gap) + (gap - GET(gap)) / 4;
    SET(gap, gap);
    const int64_t window = gap < frequent ? 2 * gap + short_window : short_window;
    atomic_store_explicit(&fastrnn_helpers_window, window, memory_order_relaxed);
    if (team->callers > 1) SET(shared_until, now + share_for);
    look_for_helpers(team, team->patient || gap < frequent);
    if (!team->patient) return;
    spinning wait = {0};
    while (team->size < team->limit && fastrnn_spin(&wait, 1) < 1000000000) {
        take_ready(team, team->limit);
        if (team->size < team->limit && fastrnn_clock() - team->called > 10000000)
            call_helpers(team, fastrnn_clock(), team->limit - team->size);
    }
}

/* Waits for helpers that have been called, before a phase that is much longer than the time in which they come: they
 * look for work only for some microseconds, and would have gone to sleep again when the phase ends. */
static void wait_for_called(fastrnn_team *team, int members, double operations)
{
    const double fastest = 200; /* operations per ns */
    const int64_t longest = 200000, arrival = GET_OF(team->crew, arrival);
    const int64_t most = 2 * arrival < longest ? 2 * arrival : longest;
    if (!team->calling || team->size >= members || operations / fastest < 16.0 * (double)arrival) return;
    const int64_t waited = fastrnn_clock() - team->called;
    if (waited > most) return;
    spinning wait = {0};
    while (team->size < members && fastrnn_spin(&wait, 0) < most - waited)
        if (GET_OF(team->crew, ready) > 0) take_ready(team, members);
    if (team->calling) pause_tries(team->crew, team->size, 2 * FAIR * most, FAIR * most);
}

int fastrnn_team_gather(fastrnn_team *team, int most, double operations)
{
    const double look = 2e7; /* about a tenth of a millisecond */
    if (team->limit > 1) {
        if (atomic_load_explicit(&fastrnn_callers, memory_order_relaxed) != team->callers) look_for_helpers(team, 0);
        if (team->erratic && draw(team, 4) == 0) look_for_helpers(team, 1);
        while (team->size > team->wanted || (team->erratic && team->size > 1 && draw(team, 4) == 0))
            let_go(team, (int)draw(team, (unsigned)team->size - 1), READY);
        if (team->size < team->limit && team->size < most) {
            const int members = most < team->wanted ? most : team->wanted;
            if (team->size < members && GET_OF(team->crew, ready) > 0)
                take_ready(team, may_have(team, members, fastrnn_clock()));
            else if ((team->operations += operations) > look)
                look_for_helpers(team, 0);
            wait_for_called(team, members, operations);
        }
    }
    return team->size < most ? team->size : most;
}

/* Waits for helper `index` to finish its order and returns 1. If the helper has not begun, revokes the order and
 * returns 0. usual: ns after which the helper is checked for the loss of its processor. */
static int wait_for(fastrnn_team *team, int index, int64_t usual)
{
    enum { SPINS = 64 };
    const int64_t begins = 4000; /* ns: an interrupt may delay its start */
    helper *h = team->held[index];
    const fastrnn_member caller = fastrnn_caller(team);
    const unsigned long long order = h->ordered;
    const int at_once = team->erratic && draw(team, 4) == 0;
    spinning wait = {0};
    while (atomic_load_explicit(&h->done, memory_order_acquire) != order) {
        const int64_t waited = fastrnn_spin(&wait, team->patient);
        if (!at_once && wait.spins % SPINS) continue;
        unsigned long long seat = atomic_load_explicit(&h->seat, memory_order_relaxed);
        if (seat == seat_of(order - 1, LEFT)) {
            let_go(team, index, RELEASED);
            return 0;
        }
        if (seat == seat_of(order - 1, HELD) && !team->patient && (waited > begins || at_once) &&
            atomic_compare_exchange_strong(&h->seat, &seat, seat_of(order, RELEASED))) {
            forget(team, index);
            pause_tries(team->crew, team->size, FAIR * waited, FAIR * waited);
            return 0;
        }
        if ((waited <= usual || team->patient) && !(at_once && wait.spins > SPINS)) continue;
        if (!at_once && fastrnn_runs(h)) { /* it is slow, perhaps because of page faults */
            usual = 2 * waited;
            fastrnn_team_go(&caller, 1e9);
            continue;
        }
        /* It has lost its processor during its work. It moves to this processor, and the caller sleeps until it is
         * done: some microseconds, instead of some milliseconds until the helper is scheduled. */
        const int processor = team->in_region ? -1 : current_processor();
        fastrnn_take_to(h, processor);
        do {
            fastrnn_await(h, order);
            fastrnn_team_go(&caller, 1e9);
        } while (atomic_load_explicit(&h->done, memory_order_acquire) != order);
        if (!team->in_region) fastrnn_keep_away(h, processor);
        let_go(team, index, RELEASED);
        pause_after_loss(team->crew, team->size, wait.since ? fastrnn_clock() - wait.since : 0);
        return 1;
    }
    return 1;
}

/* Divides a phase among `size` members: member k has the part from bounds[k] to bounds[k + 1]. Processors may differ in
 * speed for long: there are slow cores beside fast ones, and the other hardware thread of a core may be busy. */
static void divide(fastrnn_team *team, int size, int *bounds)
{
    double all = 1, before = 1;
    for (int k = 1; k < size; k++) all += team->held[k - 1]->speed;
    bounds[0] = 0;
    for (int k = 1; k < size; k++) {
        bounds[k] = (int)(FASTRNN_WHOLE * before / all + 0.5);
        before += team->held[k - 1]->speed;
        if (team->erratic) bounds[k] = bounds[k - 1] + (int)draw(team, (unsigned)(FASTRNN_WHOLE - bounds[k - 1] + 1));
    }
    bounds[size] = FASTRNN_WHOLE;
}

/* The number of items in the share of member k. */
static double items_of(const fastrnn_team *team, const int *bounds, int k)
{
    const fastrnn_member member = {.from = bounds[k], .to = bounds[k + 1]};
    const fastrnn_range share = fastrnn_share(team->items, &member);
    return (double)(share.to - share.from);
}

/* Compares the items a ns of the caller's share with those of the helpers. An interrupt may lengthen a share, so a
 * single phase counts little; and a helper's speed changes only if that is worth reading other weights. */
static void compare_speeds(fastrnn_team *team, int size, const int *bounds, int64_t own)
{
    const double most = 4, step = 1.25, weight = 0.125, notable = 1.05;
    const double own_items = items_of(team, bounds, 0);
    if (own_items <= 0 || own <= 0) return;
    for (int k = 1; k < size; k++) {
        helper *h = team->held[k - 1];
        const double items = items_of(team, bounds, k);
        if (items <= 0 || h->took <= 0) continue;
        const double before = h->measured;
        double speed = items / (double)h->took / (own_items / (double)own);
        if (speed > before * step) speed = before * step;
        if (speed < before / step) speed = before / step;
        h->measured += weight * (speed - before);
        if (h->measured > most) h->measured = most;
        if (h->measured < 1 / most) h->measured = 1 / most;
        if (h->measured > h->speed * notable || h->measured * notable < h->speed) h->speed = h->measured;
    }
}

int fastrnn_team_phase(fastrnn_team *team, int most, double operations, fastrnn_job *job, const void *context,
                       ptrdiff_t item)
{
    const double timed = 1e6, speed = 10; /* operations; operations per ns, a lower bound */
    const int64_t impatience = 200000;    /* interrupts may take tens of us */
    const int size = fastrnn_team_gather(team, most, operations);
    fastrnn_member me = {0, (short)size, (short)most, 1, 0, 0, FASTRNN_WHOLE, team, item};
    if (size == 1) {
        job(context, &me);
        return fastrnn_team_go(&me, 0);
    }
    int bounds[FASTRNN_MOST_MEMBERS + 1];
    divide(team, size, bounds);
    me.to = bounds[1];
    const int64_t began = operations > timed ? fastrnn_clock() : 0;
    const int compares = began && !team->by_index;
    team->items = 0;
    me.is_timed = (unsigned char)compares;
    for (int k = 1; k < size; k++) {
        helper *h = team->held[k - 1];
        h->job = job;
        h->context = context;
        h->member =
            (fastrnn_member){(short)k, (short)size, (short)most, 0, compares, bounds[k], bounds[k + 1], team, item};
        h->patience = team->patient ? INT64_MAX : impatience + (int64_t)(operations / speed);
        atomic_store_explicit(&h->order, ++h->ordered, memory_order_release);
    }
    job(context, &me);
    const int64_t own = began ? fastrnn_clock() - began : 0;
    const int64_t usual = impatience + (own / 2 < impatience ? own / 2 : impatience);
    for (int k = size - 1; k > 0; k--)
        if (!wait_for(team, k - 1, usual)) {
            me.index = (short)k, me.from = bounds[k], me.to = bounds[k + 1];
            job(context, &me);
        }
    if (compares && team->size == size) compare_speeds(team, size, bounds, own);
    return fastrnn_team_go(&me, 0);
}

int fastrnn_team_phase_by_index(fastrnn_team *team, int most, double operations, fastrnn_job *job, const void *context,
                                ptrdiff_t item)
{
    team->by_index = 1;
    const int go = fastrnn_team_phase(team, most, operations, job, context, item);
    team->by_index = 0;
    return go;
}

void fastrnn_team_open(fastrnn_team *team, int threads, double alone, const fastrnn_interruption *interruption)
{
    const double counted = 20000;
    team->size = team->wanted = 1;
    team->limit = threads < FASTRNN_MOST_MEMBERS ? threads : FASTRNN_MOST_MEMBERS;
    team->calling = team->by_index = 0;
    team->called = 0;
    team->operations = team->asking_operations = 0;
    team->alone = alone;
    team->interruption = interruption;
    atomic_init(&team->cancelled, 0);
    team->callers_mode = float_mode_enter();
    team->counted = threads > 1 || alone > counted;
    if (!team->counted && !interruption) return;
    team->opened = team->asked = fastrnn_clock();
    if (!team->counted) return;
    team->callers = 1 + atomic_fetch_add_explicit(&fastrnn_callers, 1, memory_order_relaxed);
    if (threads == 1) return;
    team->patient = GET(policy) == FASTRNN_PATIENT;
    team->in_region = 0;
    team->crew = !team->patient && fastrnn_may_borrow() ? &fastrnn_borrowed : &fastrnn_own;
    team->erratic = GET(policy) == FASTRNN_ERRATIC;
    team->random = (unsigned)team->opened;
    open_for_helpers(team);
}

int fastrnn_team_stays_alone(const fastrnn_team *team)
{
    const double shortest = 1e6; /* ns, of a call that looks for helpers again */
    return team->limit > 1 && team->alone < shortest && !team->patient && !team->erratic && !team->calling &&
           GET_OF(team->crew, ready) == 0;
}

static void no_work(const void *context, const fastrnn_member *me) { (void)context, (void)me; }

/* Times some phases without work, at the end of the first calls that have all members and then every 10 ms: the
 * hypervisor of a virtual machine may move its processors closer together or further apart. The fastest phase of a
 * measurement counts, because an interrupt may lengthen others; and the smaller of two successive measurements, because
 * an interrupt may lengthen all phases of one. Teams of different sizes are not told apart. */
static void measure_phase(fastrnn_team *team)
{
    enum { PHASES = 8, FIRST = 8 };
    const int64_t again = 10000000;
    const int size = team->size, count = GET(measurements);
    if (size < team->limit || team->patient || team->erratic) return;
    int64_t began = fastrnn_clock(), least = 0;
    if (count >= FIRST && began - GET(measured_at) < again) return;
    for (int k = 0; k < PHASES; k++) {
        if (!fastrnn_team_phase(team, size, 0, no_work, NULL, k) || team->size != size) return;
        const int64_t now = fastrnn_clock();
        if (!least || now - began < least) least = now - began;
        began = now;
    }
    const int64_t latest = GET(latest_phase), fastest = GET(fastest_phase);
    if (!fastest || least < fastest) SET(fastest_phase, least);
    SET(empty_phase, count < FIRST ? GET(fastest_phase) : latest < least ? latest : least);
    SET(latest_phase, least);
    SET(measured_at, began);
    if (count < FIRST) SET(measurements, count + 1);
}

/* Ends the region of borrowed helpers. All have to come and leave, so one without a processor costs its absence. */
static void return_borrowed(fastrnn_team *team)
{
    const int64_t usual = 200000, waited = team->in_region ? fastrnn_end_region() : 0;
    fastrnn_return_borrowed();
    if (waited > usual) pause_after_loss(&fastrnn_borrowed, 1, waited);
}

/* Updates the experience with helpers at the end of a call. */
static void learn(fastrnn_team *team, int helped)
{
    const int64_t now = fastrnn_clock(), late = now - team->called, expected = GET_OF(team->crew, arrival);
    SET(closed, now);
    if (team->calling && !team->patient && !came_unseen(team)) {
        if (late > expected && expected < 200000) SET_OF(team->crew, arrival, expected + expected / 8);
        if (late > 4 * GET_OF(team->crew, arrival)) pause_after_loss(team->crew, team->size, 10000);
    } else if (helped && GET_OF(team->crew, pause))
        count_service(team->crew, now - team->opened);
}

int fastrnn_team_close(fastrnn_team *team)
{
    const int helped = team->size > 1;
    if (helped) measure_phase(team);
    if (helped && GET_OF(team->crew, members) != team->size) SET_OF(team->crew, members, team->size);
    while (team->size > 1) let_go(team, team->size - 2, READY);
    if (team->counted) {
        atomic_fetch_sub_explicit(&fastrnn_callers, 1, memory_order_relaxed);
        if (team->limit > 1) {
            if (team->crew == &fastrnn_borrowed) return_borrowed(team);
            learn(team, helped);
        }
    }
    float_mode_leave(team->callers_mode);
    return !team->cancelled;
}

#else

void fastrnn_team_policy(fastrnn_policy policy) { (void)policy; }

void fastrnn_set_lender(const fastrnn_lender *lender) { (void)lender; }

int fastrnn_borrow_threads(int on)
{
    (void)on;
    return 0;
}

unsigned long long fastrnn_borrowed_shares(void) { return 0; }

int fastrnn_team_threads(int threads)
{
    (void)threads;
    return 1;
}

double fastrnn_team_empty_phase(void) { return 0; }

int fastrnn_team_gather(fastrnn_team *team, int most, double operations)
{
    (void)team, (void)most, (void)operations;
    return 1;
}

int fastrnn_team_phase(fastrnn_team *team, int most, double operations, fastrnn_job *job, const void *context,
                       ptrdiff_t item)
{
    const fastrnn_member me = {0, 1, (short)most, 1, 0, 0, FASTRNN_WHOLE, team, item};
    (void)operations;
    job(context, &me);
    return !team->cancelled;
}

int fastrnn_team_phase_by_index(fastrnn_team *team, int most, double operations, fastrnn_job *job, const void *context,
                                ptrdiff_t item)
{
    return fastrnn_team_phase(team, most, operations, job, context, item);
}

int fastrnn_team_stays_alone(const fastrnn_team *team)
{
    (void)team;
    return 0;
}

void fastrnn_team_open(fastrnn_team *team, int threads, double alone, const fastrnn_interruption *interruption)
{
    (void)threads, (void)alone;
    team->interruption = interruption;
    team->cancelled = 0;
    team->asking_operations = 0;
    if (interruption) team->asked = fastrnn_clock();
    team->callers_mode = float_mode_enter();
}

int fastrnn_team_close(fastrnn_team *team)
{
    float_mode_leave(team->callers_mode);
    return !team->cancelled;
}
#endif
