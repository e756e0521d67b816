/* The team of a call: the thread that made it, and helper threads that come and go while it lasts.
 *
 * A call is a sequence of phases. In each phase the members that are there share its work; the number of members may
 * differ from phase to phase, and no result depends on it. Nobody waits for a helper that has not come: its share of a
 * phase that it has not begun is done by the caller. */
#ifndef FASTRNN_TEAM_H
#define FASTRNN_TEAM_H

#include <stddef.h>
#include <stdint.h>

#include "fastrnn.h"
#include "runtime/float_mode.h"

enum { FASTRNN_MOST_MEMBERS = 256 };

typedef struct fastrnn_team fastrnn_team;

typedef struct {
    int index, size; /* 0 <= index < size */
    fastrnn_team *team;
    int is_caller;  /* whether this is the thread that made the call: it asks whether to go on */
    ptrdiff_t item; /* the phase's, an argument of fastrnn_team_phase */
} fastrnn_member;

/* A member's share of a phase. */
typedef void fastrnn_job(const void *context, const fastrnn_member *);

/* Opens the team of a call that takes about so many nanoseconds on one thread, for at most so many members, and sets
 * the floating-point mode. threads: 1 for the caller alone, who then needs nothing of other threads: that is safe after
 * a fork. should_cancel: or NULL. */
void fastrnn_team_open(fastrnn_team *, int threads, double alone, const fastrnn_interruption *);

/* Runs job once for each member, at most so many, and returns when all have returned. Whether to go on: 0 if the call
 * has been cancelled. operations: of all shares, to estimate the time. item: put a value that changes from phase to
 * phase here, not into the context: helpers receive it with the order and keep the unchanged context in their caches.
 * Writes of earlier phases are visible to all members. */
int fastrnn_team_phase(fastrnn_team *, int most, double operations, fastrnn_job *job, const void *context,
                       ptrdiff_t item);

/* Takes in the helpers that have come; how many members the next phase will have. */
int fastrnn_team_gather(fastrnn_team *, int most, double operations);

/* Releases the helpers; 0 if the call was cancelled. */
int fastrnn_team_close(fastrnn_team *);

/* Whether to go on with a piece of work of so many operations, or to skip it and all that follows, since the call has
 * been cancelled. */
int fastrnn_team_go(const fastrnn_member *, double operations);

/* The member as a team of its own, for work that it shares with nobody. */
static inline fastrnn_member fastrnn_alone(const fastrnn_member *me)
{
    const fastrnn_member alone = {0, 1, me->team, me->is_caller, me->item};
    return alone;
}

/* The caller as a team of its own. */
static inline fastrnn_member fastrnn_caller(fastrnn_team *team)
{
    const fastrnn_member caller = {0, 1, team, 1, 0};
    return caller;
}

typedef struct {
    ptrdiff_t from, to;
} fastrnn_range;

/* The member's part of n items: all of them in order, in parts that differ by one at most. */
static inline fastrnn_range fastrnn_share(ptrdiff_t n, const fastrnn_member *me)
{
    fastrnn_range part = {n / me->size * me->index + (n % me->size) * me->index / me->size,
                          n / me->size * (me->index + 1) + (n % me->size) * (me->index + 1) / me->size};
    return part;
}

/* Part k of n items in so many parts, and the member's share of the part that is the phase's item. */
static inline fastrnn_range fastrnn_part(ptrdiff_t n, ptrdiff_t k, int parts)
{
    const fastrnn_member member = {(int)k, parts, NULL, 0, 0};
    return fastrnn_share(n, &member);
}
static inline fastrnn_range fastrnn_share_of_item(ptrdiff_t n, int parts, const fastrnn_member *me)
{
    const fastrnn_range part = fastrnn_part(n, me->item, parts), share = fastrnn_share(part.to - part.from, me);
    return (fastrnn_range){part.from + share.from, part.from + share.to};
}

/* Blocks or panels in pieces none of which takes longer than a cancellation may, one of them having so many
 * operations: for (fastrnn_range piece = fastrnn_no_piece(all); fastrnn_next_piece(me, all, operations, &piece);) ...
 */
static inline fastrnn_range fastrnn_no_piece(fastrnn_range all) { return (fastrnn_range){all.from, all.from}; }
int fastrnn_next_piece(const fastrnn_member *, fastrnn_range all, double operations, fastrnn_range *piece);

/* How callers treat their helpers. The policy is for tests: PATIENT waits for all helpers at the beginning and for each
 * of them at every phase, however many processors there are; ERRATIC loses and regains them at random. */
typedef enum { FASTRNN_ADAPTIVE, FASTRNN_PATIENT, FASTRNN_ERRATIC } fastrnn_policy;
void fastrnn_team_policy(fastrnn_policy);

/* How many threads a call may use: at most `threads`, or, if that is 0, one for each core; but no more than there are
 * processors. */
int fastrnn_team_threads(int threads);

/* For threads.c. */
void fastrnn_team_after_fork(void);
void fastrnn_helper_was_away(int64_t time); /* ns, in which it would have helped */

#if defined(__STDC_NO_ATOMICS__)
typedef int fastrnn_flag;
#else
#include <stdatomic.h>
typedef atomic_int fastrnn_flag;
#endif

/* Its fields are team.c's. Times in ns. */
struct fastrnn_team {
    int size;          /* members now: the caller and the helpers it holds */
    int wanted, limit; /* the most to be held now; and later in the call */
    int callers;       /* in the process, when the processors were last shared among them */
    int counted;       /* whether this is one of them */
    int calling, erratic, patient;
    unsigned random;
    fastrnn_flag cancelled;
    double operations; /* since helpers were last looked for */
    int64_t opened, called, asked;
    double alone, asking_operations;
    const fastrnn_interruption *interruption;
    float_mode callers_mode;
    struct helper *held[FASTRNN_MOST_MEMBERS - 1];
};

#endif
