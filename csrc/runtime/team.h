/* The team of a call: the calling thread, and helper threads that join and leave during the call.
 *
 * A call is a sequence of phases. The members of a phase share its work. Their number may differ from phase to phase;
 * no result depends on it. No member waits for a helper that has not begun its share of a phase: the caller takes over
 * that share. */
#ifndef FASTRNN_TEAM_H
#define FASTRNN_TEAM_H

#include <stddef.h>
#include <stdint.h>

#include "fastrnn.h"
#include "runtime/float_mode.h"

enum { FASTRNN_MOST_MEMBERS = 256 };

typedef struct fastrnn_team fastrnn_team;

typedef struct {
    short index, size;       /* 0 <= index < size */
    short most;              /* the most members, an argument of fastrnn_team_phase */
    unsigned char is_caller; /* whether this is the calling thread, which polls should_cancel */
    unsigned char is_timed;  /* whether the time of this share is measured */
    int from, to;            /* the member's part of the work of a phase, in 1 / FASTRNN_WHOLE */
    fastrnn_team *team;
    ptrdiff_t item; /* of the phase, an argument of fastrnn_team_phase */
} fastrnn_member;
enum { FASTRNN_WHOLE = 1 << 15 };

#if defined(__STDC_NO_ATOMICS__)
typedef int fastrnn_flag;
#else
#include <stdatomic.h>
typedef atomic_int fastrnn_flag;
#endif

/* Only team.c accesses the fields, but for `items`. Times in ns. */
struct fastrnn_team {
    _Alignas(128) fastrnn_flag cancelled; /* read by all members, so apart from the fields that the caller writes */
    _Alignas(128) int size;               /* members now: the caller and the helpers it holds */
    int wanted, limit;                    /* the maximal size now; and later in the call */
    int callers;                          /* of the process, when the processors were last divided among them */
    int counted;                          /* whether this caller is counted */
    int calling, erratic, patient, by_index;
    ptrdiff_t items;           /* that the caller has divided in a phase whose shares are timed */
    int in_region;             /* whether it has called borrowed helpers */
    struct fastrnn_crew *crew; /* from which its helpers come */
    unsigned random;
    double operations; /* since the last search for helpers */
    int64_t opened, called, asked;
    double alone, asking_operations;
    const fastrnn_interruption *interruption;
    float_mode callers_mode;
    struct helper *held[FASTRNN_MOST_MEMBERS - 1];
};

/* Computes a member's share of a phase. */
typedef void fastrnn_job(const void *context, const fastrnn_member *);

/* Opens the team of a call that takes about `alone` nanoseconds on one thread, with at most `threads` members, and sets
 * the floating-point mode. threads = 1 uses no state of other threads, and is safe after a fork. The interruption may
 * be NULL. */
void fastrnn_team_open(fastrnn_team *, int threads, double alone, const fastrnn_interruption *);

/* Whether a short call that has just opened its team stays on its thread: no helper is ready, and none was called,
 * because it would come too late or lose its processor. */
int fastrnn_team_stays_alone(const fastrnn_team *);

/* Runs job once for each of at most `most` members, and returns when all have returned; a barrier. Returns 0 if the
 * call has been cancelled, else 1. operations: of all shares, to estimate the time. item: a value that changes from
 * phase to phase, kept out of the context: helpers receive it with the order and keep the unchanged context in their
 * caches. Writes of earlier phases are visible to all members. */
int fastrnn_team_phase(fastrnn_team *, int most, double operations, fastrnn_job *job, const void *context,
                       ptrdiff_t item);

/* The same for a job that goes by the index of a member, so that shares say nothing about the speed of members. */
int fastrnn_team_phase_by_index(fastrnn_team *team, int most, double operations, fastrnn_job *job, const void *context,
                                ptrdiff_t item);

/* Adds the helpers that are ready; returns the number of members of the next phase. */
int fastrnn_team_gather(fastrnn_team *, int most, double operations);

/* Releases the helpers; 0 if the call was cancelled. */
int fastrnn_team_close(fastrnn_team *);

/* Whether to compute a piece of work of `operations` operations. 0 if the call has been cancelled: then the member
 * skips this and all later work. */
int fastrnn_team_go(const fastrnn_member *, double operations);

/* The member as a team of one, for work that it does not share. */
static inline fastrnn_member fastrnn_alone(const fastrnn_member *me)
{
    const fastrnn_member alone = {0, 1, 1, me->is_caller, 0, 0, FASTRNN_WHOLE, me->team, me->item};
    return alone;
}

/* The caller as a team of one. */
static inline fastrnn_member fastrnn_caller(fastrnn_team *team)
{
    const fastrnn_member caller = {0, 1, 1, 1, 0, 0, FASTRNN_WHOLE, team, 0};
    return caller;
}

typedef struct {
    ptrdiff_t from, to;
} fastrnn_range;

/* The member's contiguous share of n items. Shares differ by at most one item, but for members whose processors have
 * turned out to be faster or slower than others. In a timed phase the team learns n from its caller. */
static inline fastrnn_range fastrnn_share(ptrdiff_t n, const fastrnn_member *me)
{
    if (me->is_timed && me->is_caller) me->team->items = n;
    const ptrdiff_t many = n / FASTRNN_WHOLE, rest = n % FASTRNN_WHOLE, half = FASTRNN_WHOLE / 2;
    const fastrnn_range part = {many * me->from + (rest * me->from + half) / FASTRNN_WHOLE,
                                many * me->to + (rest * me->to + half) / FASTRNN_WHOLE};
    return part;
}

/* fastrnn_part: part k of n items divided into `parts` even parts. fastrnn_share_of_item: the member's share of part
 * number `item`, the item of the phase. A part has a multiple of `most` items, except the last one, so that the members
 * of a complete team have equal shares if their processors are equal. */
static inline fastrnn_range fastrnn_part(ptrdiff_t n, ptrdiff_t k, int parts)
{
    const fastrnn_range part = {n / parts * k + (n % parts) * k / parts,
                                n / parts * (k + 1) + (n % parts) * (k + 1) / parts};
    return part;
}
static inline fastrnn_range fastrnn_share_of_item(ptrdiff_t n, int parts, const fastrnn_member *me)
{
    const fastrnn_range rounds = fastrnn_part((n + me->most - 1) / me->most, me->item, parts);
    const ptrdiff_t from = rounds.from * me->most, to = rounds.to * me->most < n ? rounds.to * me->most : n;
    const fastrnn_range share = fastrnn_share(to - from, me);
    return (fastrnn_range){from + share.from, from + share.to};
}

/* Splits blocks or panels into pieces, with polls of should_cancel in between; `operations` is the cost of one block:
 * for (fastrnn_range piece = fastrnn_no_piece(all); fastrnn_next_piece(me, all, operations, &piece);) ... */
static inline fastrnn_range fastrnn_no_piece(fastrnn_range all) { return (fastrnn_range){all.from, all.from}; }
int fastrnn_next_piece(const fastrnn_member *, fastrnn_range all, double operations, fastrnn_range *piece);

/* The policy of callers towards helpers, for tests: PATIENT waits for all helpers at the beginning and for each helper
 * at every phase, for any number of processors; ERRATIC loses and regains helpers at random. */
typedef enum { FASTRNN_ADAPTIVE, FASTRNN_PATIENT, FASTRNN_ERRATIC } fastrnn_policy;
void fastrnn_team_policy(fastrnn_policy);

/* The number of threads of a call: `threads`, or one per core if it is 0, but at most the number of processors. */
int fastrnn_team_threads(int threads);

/* The time in ns of a phase without work, measured every 10 ms at the end of a call that had all its members; 0 until
 * then. If there has been no such call for 0.1 s, the least time measured so far: plans for one thread, made because
 * phases were slow, would otherwise prevent the next measurement. */
double fastrnn_team_empty_phase(void);

/* Functions of another library's OpenMP: GOMP_parallel_start, GOMP_parallel_end and omp_get_max_threads. */
typedef struct {
    void (*start)(void (*job)(void *), void *context, unsigned threads);
    void (*end)(void);
    int (*most)(void);
} fastrnn_lender;

/* Sets the OpenMP that lends its threads to calls, until a fork. */
void fastrnn_set_lender(const fastrnn_lender *);

/* Sets whether calls of this thread borrow their helpers; returns the previous setting. Between its own regions a
 * library lets its threads spin, for milliseconds. Helpers of our own would share the processors with those. */
int fastrnn_borrow_threads(int on);
unsigned long long fastrnn_borrowed_shares(void); /* the shares of phases that borrowed helpers have computed */

/* For threads.c. */
void fastrnn_team_after_fork(void);
struct fastrnn_crew;
void fastrnn_helper_was_away(struct fastrnn_crew *, int64_t time); /* ns without a processor */

#endif
